#!/usr/bin/env python3
"""A client for the bank's native protocol, version 1, written from docs/PROTOCOL.md alone.

It shares no code with the server: it is the proof that the page suffices. As a module it offers `Connection`, and a
function for each request. As a program, `python3 atm_client.py HOST:PORT`, it holds a scripted conversation with a
server whose bank was freshly loaded from data/accounts.csv, and checks every answer.
"""
import secrets
import socket
import sys
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple, Self, TypeVar

# ---- Values ----


class Malformed(Exception):
    """The server sent what the protocol does not allow."""


def varint(n: int) -> bytes:
    if not 0 <= n < 1 << 64:
        raise ValueError(f"{n} is not a u64")
    return bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80]) + varint(n >> 7)


def zigzag(n: int) -> bytes:
    return varint(2 * n if n >= 0 else -2 * n - 1)


def blob(b: bytes) -> bytes:
    return varint(len(b)) + b


def text(s: str) -> bytes:
    return blob(s.encode())


def uuid7() -> bytes:
    """A new transaction id: 48 bits of milliseconds, then random ones but for the version (7) and the variant (2)."""
    n = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return (n & ~(0xF << 76 | 3 << 62) | 7 << 76 | 2 << 62).to_bytes(16)


class Reader:
    """Takes values off the front of a body. Each must be whole, and at the `end` nothing may be left over."""

    def __init__(self, body: bytes) -> None:
        self.rest = body

    def take(self, n: int) -> bytes:
        if n > len(self.rest):
            raise Malformed(f"{n} bytes wanted, {len(self.rest)} left")
        taken, self.rest = self.rest[:n], self.rest[n:]
        return taken

    def uint(self, bits: int) -> int:
        n = 0
        for shift in range(0, bits, 7):
            byte = self.take(1)[0]
            n |= (byte & 0x7F) << shift
            if byte < 0x80 and n < 1 << bits:
                return n
        raise Malformed(f"a varint of more than {bits} bits")

    def i64(self) -> int:
        n = self.uint(64)
        return -(n >> 1) - 1 if n & 1 else n >> 1

    def text(self) -> str:
        try:
            return self.take(self.uint(32)).decode()
        except UnicodeDecodeError as e:
            raise Malformed(f"text: {e}") from e

    def option_txn(self) -> bytes | None:
        some = self.take(1)[0]
        if some > 1:
            raise Malformed(f"an option that begins with {some}")
        return self.take(16) if some else None

    def currency(self) -> str:
        return self.take(3).decode("latin-1")

    def end(self) -> None:
        if self.rest:
            raise Malformed(f"{len(self.rest)} bytes left over")


# ---- Requests, laid out as the table of the page ----

def ping() -> bytes: return varint(0)
def login(card: str, pin: str) -> bytes: return varint(1) + text(card) + text(pin)
def logout() -> bytes: return varint(2)
def balance() -> bytes: return varint(3)
def deposit(txn: bytes, amount: int) -> bytes: return varint(4) + txn + zigzag(amount)
def withdraw(txn: bytes, amount: int) -> bytes: return varint(5) + txn + zigzag(amount)
def transfer(txn: bytes, payee: int, amount: int) -> bytes: return varint(6) + txn + varint(payee) + zigzag(amount)
def reverse(account: int, txn: bytes) -> bytes: return varint(7) + varint(account) + txn
def resolve(account: int, txn: bytes) -> bytes: return varint(8) + varint(account) + txn
def advice(account: int, txn: bytes, amount: int) -> bytes: return varint(9) + varint(account) + txn + zigzag(amount)
def statement(lines: int) -> bytes: return varint(10) + varint(lines)
def change_pin(pin: str, new: str) -> bytes: return varint(11) + text(pin) + text(new)


def hello(terminal: str, version: int = 1, secret: bytes | None = None) -> bytes:
    return b"ATMB" + varint(version) + text(terminal) + (varint(0) if secret is None else varint(1) + blob(secret))


# ---- Replies ----

Receipt = NamedTuple("Receipt", [("txn", bytes), ("time", int), ("amount", int), ("balance", int), ("currency", str)])
Line = NamedTuple("Line", [("row", int), ("time", int), ("kind", int), ("outcome", int), ("amount", int),
                           ("balance", int), ("contra", int), ("terminal", str), ("txn", bytes | None)])
Welcome = NamedTuple("Welcome", [("version", int), ("time", int), ("max_request", int), ("max_reply", int)])
Pong = NamedTuple("Pong", [("time", int)])
LoggedIn = NamedTuple("LoggedIn", [("account", int), ("currency", str), ("holder", str)])
LoggedOut = NamedTuple("LoggedOut", [])
Balance = NamedTuple("Balance", [("balance", int), ("currency", str)])
Approved = NamedTuple("Approved", [("receipt", Receipt)])
Declined = NamedTuple("Declined", [("code", int), ("receipt", Receipt), ("message", str)])
Statement = NamedTuple("Statement", [("balance", int), ("currency", str), ("lines", list[Line])])
PinChanged = NamedTuple("PinChanged", [])


class Error(Exception):
    """Nothing happened, for the reason that the code tells."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


class Refused(Error):
    """The server does not take this client; it speaks the versions from `oldest` to `newest`."""

    def __init__(self, code: int, oldest: int, newest: int, message: str) -> None:
        super().__init__(code, message)
        self.args, self.oldest, self.newest = (code, oldest, newest, message), oldest, newest


Body = Pong | LoggedIn | LoggedOut | Balance | Approved | Declined | Statement | PinChanged | Error
Reply = NamedTuple("Reply", [("id", int), ("row", int), ("body", Body)])


def read_welcome(body: bytes) -> Welcome | Refused:
    r = Reader(body)
    answer: Welcome | Refused
    match r.uint(32):
        case 0: answer = Welcome(r.uint(16), r.i64(), r.uint(32), r.uint(32))
        case 1: answer = Refused(r.uint(16), r.uint(16), r.uint(16), r.text())
        case form: raise Malformed(f"a handshake of form {form}")
    r.end()
    return answer


def read_receipt(r: Reader) -> Receipt:
    return Receipt(r.take(16), r.i64(), r.i64(), r.i64(), r.currency())


def read_line(r: Reader) -> Line:
    return Line(r.uint(64), r.i64(), r.take(1)[0], r.uint(16), r.i64(), r.i64(), r.i64(), r.text(), r.option_txn())


def read_body(r: Reader) -> Body:
    match r.uint(32):
        case 0: return Pong(r.i64())
        case 1: return LoggedIn(r.uint(64), r.currency(), r.text())
        case 2: return LoggedOut()
        case 3: return Balance(r.i64(), r.currency())
        case 4: return Approved(read_receipt(r))
        case 5: return Declined(r.uint(16), read_receipt(r), r.text())
        case 6: return Statement(r.i64(), r.currency(), [read_line(r) for _ in range(r.uint(32))])
        case 7: return PinChanged()
        case 8: return Error(r.uint(16), r.text())
        case form: raise Malformed(f"a reply of form {form}")


def read_reply(body: bytes) -> Reply:
    r = Reader(body)
    reply = Reply(r.uint(32), r.uint(64), read_body(r))
    r.end()
    return reply


class Connection:
    """Frames over a socket. `hello` first; then `ask`, or `ask_all` for several requests at once."""

    def __init__(self, host: str, port: int, timeout: float = 10.0) -> None:
        self.socket = socket.create_connection((host, port), timeout)
        self.max_reply, self.last_id = 16_384, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *bodies: bytes) -> None:
        self.socket.sendall(b"".join(len(body).to_bytes(4) + body for body in bodies))

    def receive(self) -> bytes:
        length = int.from_bytes(self.read(4))
        if length > self.max_reply:
            raise Malformed(f"a frame of {length} bytes")
        return self.read(length)

    def read(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            part = self.socket.recv(n - len(data))
            if not part:
                raise EOFError("the server closed the connection")
            data += part
        return data

    def hello(self, terminal: str, version: int = 1) -> Welcome:
        self.send(hello(terminal, version))
        answer = read_welcome(self.receive())
        if isinstance(answer, Refused):
            raise answer
        self.max_reply = answer.max_reply
        return answer

    def ask_all(self, requests: list[bytes]) -> list[Reply]:
        """Sends all the requests, then takes their replies, among which may be errors."""
        ids = range(self.last_id + 1, self.last_id + 1 + len(requests))
        self.last_id += len(requests)
        self.send(*(varint(i) + request for i, request in zip(ids, requests)))
        return [self.reply_to(i) for i in ids]

    def reply_to(self, request_id: int) -> Reply:
        reply = read_reply(self.receive())
        if reply.id == 0 and isinstance(reply.body, Error):
            raise reply.body
        if reply.id != request_id:
            raise Malformed(f"a reply to {reply.id}, where one to {request_id} was due")
        return reply

    def ask(self, request: bytes) -> Reply:
        reply = self.ask_all([request])[0]
        if isinstance(reply.body, Error):
            raise reply.body
        return reply


# ---- The program ----

E = TypeVar("E", bound=Exception)
TXN = bytes.fromhex("017f22e279b07cc398c4dc0c0c07398f")
THEN = 1_645_557_742_000
GOLDEN_REQUESTS = {
    "07 00": ping(),
    "07 01 03 4b656e 04 32343638": login("Ken", "2468"),
    "07 02": logout(),
    "07 03": balance(),
    "07 04 TXN a01f": deposit(TXN, 2000),
    "07 05 TXN a01f": withdraw(TXN, 2000),
    "07 06 TXN ea07 a01f": transfer(TXN, 1002, 2000),
    "07 07 e907 TXN": reverse(1001, TXN),
    "07 08 e907 TXN": resolve(1001, TXN),
    "07 09 e907 TXN a01f": advice(1001, TXN, 2000),
    "07 0a 0a": statement(10),
    "07 0b 04 32343638 04 31333537": change_pin("2468", "1357"),
}
RECEIPT = Receipt(TXN, THEN, -2000, 10_050, "USD")
LINE = Line(300, THEN, 2, 0, -2000, 10_050, -1, "ATM-1", TXN)
GOLDEN_REPLIES = {
    "07 00 00 e0e693aee45f": Reply(7, 0, Pong(THEN)),
    "07 00 01 e907 555344 03 4b656e": Reply(7, 0, LoggedIn(1001, "USD", "Ken")),
    "07 00 02": Reply(7, 0, LoggedOut()),
    "07 ac02 03 849d01 555344": Reply(7, 300, Balance(10_050, "USD")),
    "07 ac02 04 TXN e0e693aee45f 9f1f 849d01 555344": Reply(7, 300, Approved(RECEIPT)),
    "07 ac02 05 04 TXN e0e693aee45f 9f1f 849d01 555344 13 496e73756666696369656e742066756e64732e":
        Reply(7, 300, Declined(4, RECEIPT, "Insufficient funds.")),
    "07 ac02 06 849d01 555344 01 ac02 e0e693aee45f 02 00 9f1f 849d01 01 05 41544d2d31 01 TXN":
        Reply(7, 300, Statement(10_050, "USD", [LINE])),
    "07 00 07": Reply(7, 0, PinChanged()),
    "07 00 08 70 05 427573792e": Reply(7, 0, Error(112, "Busy.")),
}


def unhex(golden: str) -> bytes:
    return bytes.fromhex(golden.replace("TXN", TXN.hex()))


Move = tuple[int, int, int, int, int]  # kind, outcome, amount, balance afterwards, contra: as in a Line


class Mismatch(Exception):
    """An answer is not the expected one."""


class Script:
    """The conversation; it ends at the first answer that is not the expected one."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.checks, self.doing = 0, "connect"

    def connect(self) -> Connection:
        return Connection(self.host, self.port)

    def same(self, what: str, found: object, expected: object) -> None:
        """Compares by `repr`, which tells LoggedOut() from PinChanged(): as tuples they are equal."""
        self.checks += 1
        if repr(found) != repr(expected):
            raise Mismatch(f"{what}: expected {expected!r}, found {found!r}")

    def raises(self, what: str, kind: type[E], call: Callable[[], object]) -> E:
        self.checks, self.doing = self.checks + 1, what
        try:
            found = call()
        except kind as e:
            return e
        raise Mismatch(f"{what}: expected {kind.__name__}, found {found!r}")

    def error(self, what: str, bank: Connection, request: bytes, code: int) -> None:
        self.same(what, self.raises(what, Error, lambda: bank.ask(request)).code, code)

    def answer(self, what: str, bank: Connection, request: bytes, expected: Body) -> None:
        self.doing = what
        self.same(what, bank.ask(request).body, expected)

    def book(self, what: str, bank: Connection, *moves: Move) -> list[Line]:
        """Asks for all the moves in one send; gives the lines that the statement has to have for them."""
        self.doing, requests, lines = what, [], [Line(0, 0, 0, 0, 0, 0, 0, "", None)]
        txns = [uuid7() for _ in moves]
        for txn, (kind, _, amount, _, contra) in zip(txns, moves):
            made = {1: deposit(txn, amount), 2: withdraw(txn, -amount), 3: transfer(txn, abs(contra), -amount)}
            requests.append(made[kind])
        for reply, txn, (kind, code, amount, after, contra) in zip(bank.ask_all(requests), txns, moves):
            body = reply.body
            if not isinstance(body, Approved | Declined):
                raise Mismatch(f"{what}: expected outcome {code}, found {body!r}")
            self.same(f"{what}, outcome", body.code if isinstance(body, Declined) else 0, code)
            self.same(f"{what}, receipt", body.receipt, Receipt(txn, body.receipt.time, amount, after, "USD"))
            self.same(f"{what}, has a newer row", reply.row > lines[0].row, True)
            lines.insert(0, Line(reply.row, body.receipt.time, kind, code, amount, after, contra, "PY-1", txn))
        return lines[:-1]

    def golden(self) -> None:
        self.same("golden Hello", hello("ATM-1"), unhex("41544d42 01 05 41544d2d31 00"))
        self.same("golden secret", hello("ATM-1", 1, b"\xca\xfe"), unhex("41544d42 01 05 41544d2d31 01 02 cafe"))
        self.same("golden Welcome", read_welcome(unhex("00 01 e0e693aee45f 8008 808001")), Welcome(1, THEN, 1024, 16384))
        self.same("golden Refused", read_welcome(unhex("01 66 01 01 03 4e6f2e")), Refused(102, 1, 1, "No."))
        for golden, request in GOLDEN_REQUESTS.items():
            self.same("golden request", varint(7) + request, unhex(golden))
        for golden, reply in GOLDEN_REPLIES.items():
            self.same("golden reply", read_reply(unhex(golden)), reply)
            self.raises("a byte too many", Malformed, lambda: read_reply(unhex(golden + "00")))
            self.raises("a byte too few", Malformed, lambda: read_reply(unhex(golden)[:-1]))
        for n, golden in [(2000, "a01f"), (-2000, "9f1f"), (-(1 << 63), "ff" * 9 + "01"), ((1 << 63) - 1, "fe" + "ff" * 8 + "01")]:
            self.same("an i64", (zigzag(n), Reader(unhex(golden)).i64()), (unhex(golden), n))
        self.same("a UUID's version", uuid.UUID(bytes=uuid7()).version, 7)
        self.same("a UUID's variant", uuid.UUID(bytes=uuid7()).variant, uuid.RFC_4122)

    def run(self) -> None:
        self.golden()
        with self.connect() as ken, self.connect() as jack:
            self.begin(ken)
            jack.hello("PY-2")
            self.answer("log in as Jack", jack, login("Jack", "8642"), LoggedIn(1007, "USD", "Jack"))
            self.money(ken, jack)
            self.refused_requests(ken)
            self.people(ken, jack)
        self.broken_rules()

    def begin(self, ken: Connection) -> None:
        welcome, now = ken.hello("PY-1"), time.time_ns() // 1_000_000
        self.same("welcome", welcome, Welcome(1, welcome.time, 1024, 16_384))
        self.same("the server's clock is right to an hour", abs(welcome.time - now) < 3_600_000, True)
        self.doing, pong = "ping", ken.ask(ping())
        self.same("ping", (type(pong.body), pong.row), (Pong, 0))
        for request in [balance(), logout(), deposit(uuid7(), 1), statement(1), change_pin("2468", "1111")]:
            self.error("a request before the login", ken, request, 104)
        self.error("log in with a wrong PIN", ken, login("Ken", "2469"), 106)
        self.error("log in with an unknown card", ken, login("Nobody", "2468"), 106)
        self.answer("log in as Ken", ken, login("Ken", "2468"), LoggedIn(1006, "USD", "Ken"))
        self.error("log in twice", ken, login("Jill", "1357"), 105)

    def money(self, ken: Connection, jack: Connection) -> None:
        self.answer("balance", ken, balance(), Balance(10_000, "USD"))
        lines = self.book("deposit", ken, (1, 0, 2000, 12_000, -1))
        lines = self.book("withdraw", ken, (2, 0, -3000, 9000, -1)) + lines
        lines = self.book("withdraw too much", ken, (2, 4, -9001, 9000, -1)) + lines
        self.answer("balance after a decline", ken, balance(), Balance(9000, "USD"))
        lines = self.book("transfer", ken, (3, 0, -2500, 6500, 1007)) + lines
        self.answer("the payer's balance", ken, balance(), Balance(6500, "USD"))
        self.answer("the payee's balance", jack, balance(), Balance(2500, "USD"))
        self.doing, paid = "the payee's statement", lines[0]._replace(amount=2500, balance=2500, contra=1006)
        self.answer("the payee's statement", jack, statement(1), Statement(2500, "USD", [paid]))
        lines = self.book("transfer to another currency", ken, (3, 9, -100, 6500, 1003)) + lines
        lines = self.book("transfer to itself", ken, (3, 6, -100, 6500, 1006)) + lines
        lines = self.book("transfer to nobody", ken, (3, 7, -100, 6500, 9999)) + lines
        moves = [(1, 0, n, 6500 + n * (n + 1) // 2, -1) for n in range(1, 21)]
        lines = self.book("twenty deposits at once", ken, *moves) + lines
        self.answer("statement of three lines", ken, statement(3), Statement(6710, "USD", lines[:3]))
        self.doing, found = "statement", ken.ask(statement(100)).body
        if isinstance(found, Statement) and found.lines:  # of the opening, nobody told the row and the time
            lines.append(Line(found.lines[-1].row, found.lines[-1].time, 4, 0, 10_000, 10_000, -2, "", None))
        self.same("statement", found, Statement(6710, "USD", lines))

    def refused_requests(self, ken: Connection) -> None:
        for amount in (0, -1):
            for request in [deposit(uuid7(), amount), withdraw(uuid7(), amount), transfer(uuid7(), 1007, amount)]:
                self.error(f"an amount of {amount}", ken, request, 108)
        self.error("a UUID of version 4", ken, deposit(uuid.uuid4().bytes, 1), 109)
        self.error("a transfer to account 0", ken, transfer(uuid7(), 0, 1), 110)
        for request in [reverse(1006, uuid7()), resolve(1006, uuid7()), advice(1006, uuid7(), 1)]:
            self.error("not supported yet", ken, request, 111)
        self.answer("nothing happened", ken, balance(), Balance(6710, "USD"))

    def people(self, ken: Connection, jack: Connection) -> None:
        self.answer("log out", ken, logout(), LoggedOut())
        self.error("a balance after the logout", ken, balance(), 104)
        self.answer("log in as Jill", ken, login("Jill", "1357"), LoggedIn(1006, "USD", "Jill"))
        self.answer("Jill's balance", ken, balance(), Balance(6710, "USD"))
        self.error("change a wrong PIN", jack, change_pin("8643", "97531"), 106)
        self.error("change to a PIN too short", jack, change_pin("8642", "975"), 117)
        self.answer("change the PIN", jack, change_pin("8642", "97531"), PinChanged())
        self.answer("log out", jack, logout(), LoggedOut())
        self.error("log in with the PIN of before", jack, login("Jack", "8642"), 106)
        self.answer("log in with the new PIN", jack, login("Jack", "97531"), LoggedIn(1007, "USD", "Jack"))
        self.answer("log out again", jack, logout(), LoggedOut())
        self.answer("log in as Elena", jack, login("Elena", "2580"), LoggedIn(1003, "EUR", "Elena"))
        self.answer("Elena's balance", jack, balance(), Balance(87_550, "EUR"))
        self.answer("log out as Jill", ken, logout(), LoggedOut())
        self.answer("log in as Mark", ken, login("Mark", "1470"), LoggedIn(1004, "USD", "Mark"))
        self.book("use and pass the overdraft", ken, (2, 0, -14_000, -10_000, -1), (2, 4, -1, -10_000, -1))

    def broken_rules(self) -> None:
        with self.connect() as bank:
            self.doing = "a frame too long"
            bank.hello("PY-1")
            bank.send(bytes(1025))
            reply = read_reply(bank.receive())
            code = reply.body.code if isinstance(reply.body, Error) else reply.body
            self.same("a frame too long", (reply.id, code), (0, 101))
            self.raises("the end after it", EOFError, lambda: bank.read(1))
        with self.connect() as bank:
            refused = self.raises("a hello of version 2", Refused, lambda: bank.hello("PY-1", 2))
            self.same("a hello of version 2", (refused.code, refused.oldest, refused.newest), (102, 1, 1))
            self.raises("the end after it", EOFError, lambda: bank.read(1))


def main() -> None:
    host, colon, port = sys.argv[-1].rpartition(":")
    if len(sys.argv) != 2 or not colon or not port.isdecimal():
        sys.exit("usage: atm_client.py HOST:PORT")
    script = Script(host.strip("[]"), int(port))
    try:
        script.run()
    except Mismatch as e:
        sys.exit(f"differs: {e}")
    except (Error, Malformed, EOFError, OSError) as e:
        sys.exit(f"failed: {script.doing}: {type(e).__name__}: {e}")
    print(f"ok: {script.checks} checks")


if __name__ == "__main__":
    main()
