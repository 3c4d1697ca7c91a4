#!/usr/bin/env python3
"""A client for the bank's native protocol, version 1, written from docs/PROTOCOL.md alone: the proof that it suffices.

As a module it offers `Connection`, and a function for each request. As a program, `atm_client.py HOST:PORT`, it holds
a scripted conversation with a server whose bank was freshly loaded from data/accounts.csv, and checks every answer.
"""
import secrets
import socket
import sys
import time
import uuid
from typing import NamedTuple, Self


class Malformed(ValueError):
    """The server sent what the protocol does not allow."""


class Error(Exception):
    """An `Error`, or a `Refused` with the oldest and the newest version spoken: nothing happened."""

    def __init__(self, code: int, message: str, versions: tuple[int, ...] = ()) -> None:
        super().__init__(code, message, *versions)
        self.code, self.message, self.versions = code, message, versions


# Values and requests, laid out as the tables of the page.
def varint(n: int) -> bytes: return bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80]) + varint(n >> 7)
def zigzag(n: int) -> bytes: return varint(2 * n if n >= 0 else -2 * n - 1)
def blob(b: bytes) -> bytes: return varint(len(b)) + b
def text(s: str) -> bytes: return blob(s.encode())
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


def uuid7() -> bytes:
    """A new transaction id: 48 bits of milliseconds, then random ones but for the version (7) and the variant (2)."""
    n = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return (n & ~(0xF << 76 | 3 << 62) | 7 << 76 | 2 << 62).to_bytes(16)


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
Body = Pong | LoggedIn | LoggedOut | Balance | Approved | Declined | Statement | PinChanged | Error
Reply = NamedTuple("Reply", [("id", int), ("row", int), ("body", Body)])


class Reader:
    """Takes values off the front of a frame: each must be whole, and at the end nothing may be left over."""

    def __init__(self, frame: bytes) -> None:
        self.rest = frame

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
        return self.take(self.uint(32)).decode()  # a UnicodeDecodeError is a ValueError, as Malformed is

    def currency(self) -> str:
        return self.take(3).decode("ascii")

    def option(self) -> bool:
        if (form := self.take(1)[0]) > 1:
            raise Malformed(f"an option of form {form}")
        return form == 1

    def receipt(self) -> Receipt:
        return Receipt(self.take(16), self.i64(), self.i64(), self.i64(), self.currency())

    def line(self) -> Line:
        return Line(self.uint(64), self.i64(), self.take(1)[0], self.uint(16), self.i64(), self.i64(), self.i64(),
                    self.text(), self.take(16) if self.option() else None)

    def body(self) -> Body:
        match self.uint(32):
            case 0: return Pong(self.i64())
            case 1: return LoggedIn(self.uint(64), self.currency(), self.text())
            case 2: return LoggedOut()
            case 3: return Balance(self.i64(), self.currency())
            case 4: return Approved(self.receipt())
            case 5: return Declined(self.uint(16), self.receipt(), self.text())
            case 6: return Statement(self.i64(), self.currency(), [self.line() for _ in range(self.uint(32))])
            case 7: return PinChanged()
            case 8: return Error(self.uint(16), self.text())
            case form: raise Malformed(f"a reply of form {form}")

    def handshake(self) -> Welcome | Error:
        match self.uint(32):
            case 0: return Welcome(self.uint(16), self.i64(), self.uint(32), self.uint(32))
            case 1: return Error(self.uint(16), versions=(self.uint(16), self.uint(16)), message=self.text())
            case form: raise Malformed(f"a handshake of form {form}")

    def end(self) -> None:
        if self.rest:
            raise Malformed(f"{len(self.rest)} bytes left over")


def read_handshake(frame: bytes) -> Welcome | Error:
    r = Reader(frame)
    answer = r.handshake()
    r.end()
    return answer


def read_reply(frame: bytes) -> Reply:
    r = Reader(frame)
    reply = Reply(r.uint(32), r.uint(64), r.body())
    r.end()
    return reply


class Connection:
    """Frames over a socket. `hello` comes first, then `ask`, or `ask_all` for several requests at once."""

    def __init__(self, host: str, port: int, timeout: float = 10.0) -> None:
        self.socket = socket.create_connection((host, port), timeout)
        self.max_reply, self.last_id = 16_384, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(len(frame).to_bytes(4) + frame for frame in frames))

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

    def hello(self, terminal: str) -> Welcome:
        self.send(hello(terminal))
        answer = read_handshake(self.receive())
        if isinstance(answer, Error):
            raise answer
        self.max_reply = answer.max_reply
        return answer

    def ask_all(self, requests: list[bytes]) -> list[Reply]:
        """Sends all the requests, then takes their replies, in order; the body of each may be an error."""
        ids = range(self.last_id + 1, self.last_id + 1 + len(requests))
        self.last_id += len(requests)
        self.send(*(varint(i) + request for i, request in zip(ids, requests)))
        replies = []
        for i in ids:
            replies.append(reply := read_reply(self.receive()))
            if reply.id == 0 and isinstance(reply.body, Error):  # said of the server's own accord, before it closes
                raise reply.body
            if reply.id != i:
                raise Malformed(f"a reply to {reply.id}, not to {i}")
        return replies

    def ask(self, request: bytes) -> Reply:
        [reply] = self.ask_all([request])
        if isinstance(reply.body, Error):
            raise reply.body
        return reply


# ---- The program ----

TXN, THEN = bytes.fromhex("017f22e279b07cc398c4dc0c0c07398f"), 1_645_557_742_000
RECEIPT = Receipt(TXN, THEN, -2000, 10_050, "USD")
LINE = Line(300, THEN, 2, 0, -2000, 10_050, -1, "ATM-1", TXN)
GOLDEN_SENT = {
    "41544d42 01 05 41544d2d31 00": hello("ATM-1"),
    "41544d42 01 05 41544d2d31 01 02 cafe": hello("ATM-1", 1, b"\xca\xfe"),
    "07 00": b"\7" + ping(),
    "07 01 03 4b656e 04 32343638": b"\7" + login("Ken", "2468"),
    "07 02": b"\7" + logout(),
    "07 03": b"\7" + balance(),
    "07 04 TXN a01f": b"\7" + deposit(TXN, 2000),
    "07 05 TXN a01f": b"\7" + withdraw(TXN, 2000),
    "07 06 TXN ea07 a01f": b"\7" + transfer(TXN, 1002, 2000),
    "07 07 e907 TXN": b"\7" + reverse(1001, TXN),
    "07 08 e907 TXN": b"\7" + resolve(1001, TXN),
    "07 09 e907 TXN a01f": b"\7" + advice(1001, TXN, 2000),
    "07 0a 0a": b"\7" + statement(10),
    "07 0b 04 32343638 04 31333537": b"\7" + change_pin("2468", "1357"),
    "ac02 a01f 9f1f": varint(300) + zigzag(2000) + zigzag(-2000),
}
GOLDEN_RECEIVED = {
    "00 01 e0e693aee45f 8008 808001": Welcome(1, THEN, 1024, 16_384),
    "01 66 01 01 03 4e6f2e": Error(102, "No.", (1, 1)),
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


class Mismatch(Exception):
    """An answer is not the expected one."""


class Script:
    """The conversation, which ends at the first answer that is not the expected one."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port, self.checks, self.doing = host, port, 0, "connect"

    def same(self, what: str, found: object, expected: object) -> None:
        """Compares by `repr`, which tells LoggedOut() from PinChanged(): as tuples they are equal."""
        self.checks += 1
        if repr(found) != repr(expected):
            raise Mismatch(f"{what}: expected {expected!r}, found {found!r}")

    def ask(self, what: str, bank: Connection, request: bytes, expected: Body | int) -> None:
        """Expects a body, or the `Error` of a code."""
        self.doing = what
        [reply] = bank.ask_all([request])
        self.same(what, reply.body.code if isinstance(reply.body, Error) else reply.body, expected)

    def ends(self, what: str, bank: Connection) -> None:
        try:
            self.same(f"{what}, then the end of the stream", bank.read(1), None)
        except EOFError:
            self.checks += 1

    def book(self, what: str, bank: Connection, *moves: tuple[int, int, int, int, int]) -> list[Line]:
        """Asks in one send for all the moves, each told by the kind, outcome, amount, balance afterwards and contra
        that its line of the statement has to have; gives these lines, the newest first."""
        self.doing, txns, requests, row = what, [uuid7() for _ in moves], [], 0
        lines: list[Line] = []
        for txn, (kind, _, amount, _, contra) in zip(txns, moves):
            requests.append(transfer(txn, contra, -amount) if kind == 3 else
                            withdraw(txn, -amount) if kind == 2 else deposit(txn, amount))
        for reply, txn, (kind, outcome, amount, after, contra) in zip(bank.ask_all(requests), txns, moves):
            if not isinstance(body := reply.body, Approved | Declined):
                raise Mismatch(f"{what}: expected outcome {outcome}, found {body!r}")
            self.same(f"{what}, outcome", body.code if isinstance(body, Declined) else 0, outcome)
            self.same(f"{what}, receipt", body.receipt, Receipt(txn, body.receipt.time, amount, after, "USD"))
            self.same(f"{what}, row {reply.row} after {row}", reply.row > row, True)
            row = reply.row
            lines.insert(0, Line(row, body.receipt.time, kind, outcome, amount, after, contra, "PY-1", txn))
        return lines

    def run(self) -> None:
        self.golden()
        with Connection(self.host, self.port) as ken, Connection(self.host, self.port) as jack:
            self.greet(ken, jack)
            self.move_money(ken, jack)
            self.be_refused(ken)
            self.change_cards(ken, jack)
        self.break_the_rules()

    def golden(self) -> None:
        for golden, frame in GOLDEN_SENT.items():
            self.same("golden bytes", frame.hex(), golden.replace("TXN", TXN.hex()).replace(" ", ""))
        for golden, answer in GOLDEN_RECEIVED.items():
            frame = bytes.fromhex(golden.replace("TXN", TXN.hex()))
            read = read_reply if isinstance(answer, Reply) else read_handshake
            self.same(f"golden {golden}", read(frame), answer)
            for wrong in (frame[:-1], frame + b"\0"):
                try:
                    self.same(f"{wrong.hex()}, a byte too few or too many", read(wrong), Malformed)
                except Malformed:
                    self.checks += 1
        made = uuid.UUID(bytes=uuid7())
        self.same("a UUID", (made.version, made.variant), (7, uuid.RFC_4122))

    def greet(self, ken: Connection, jack: Connection) -> None:
        self.doing = "hello"
        welcome = ken.hello("PY-1")
        self.same("welcome", welcome, Welcome(1, welcome.time, 1024, 16_384))
        self.same("clocks agree to an hour", abs(welcome.time - time.time_ns() // 1_000_000) < 3_600_000, True)
        self.doing = "ping"
        pong = ken.ask(ping())
        self.same("ping", (type(pong.body), pong.row), (Pong, 0))
        for request in (balance(), logout(), deposit(uuid7(), 1), statement(1), change_pin("2468", "1111")):
            self.ask("a request before the login", ken, request, 104)
        self.ask("a wrong PIN", ken, login("Ken", "2469"), 106)
        self.ask("an unknown card", ken, login("Nobody", "2468"), 106)
        self.ask("log in as Ken", ken, login("Ken", "2468"), LoggedIn(1006, "USD", "Ken"))
        self.ask("log in twice", ken, login("Jill", "1357"), 105)
        self.doing = "hello of a second terminal"
        jack.hello("PY-2")
        self.ask("log in as Jack", jack, login("Jack", "8642"), LoggedIn(1007, "USD", "Jack"))

    def move_money(self, ken: Connection, jack: Connection) -> None:
        self.ask("balance", ken, balance(), Balance(10_000, "USD"))
        lines = self.book("deposit", ken, (1, 0, 2000, 12_000, -1))
        lines = self.book("withdraw", ken, (2, 0, -3000, 9000, -1)) + lines
        lines = self.book("withdraw too much", ken, (2, 4, -9001, 9000, -1)) + lines
        self.ask("balance after the decline", ken, balance(), Balance(9000, "USD"))
        lines = self.book("transfer", ken, (3, 0, -2500, 6500, 1007)) + lines
        self.ask("the payer's balance", ken, balance(), Balance(6500, "USD"))
        self.ask("the payee's balance", jack, balance(), Balance(2500, "USD"))
        paid = lines[0]._replace(amount=2500, balance=2500, contra=1006)
        self.ask("the payee's statement", jack, statement(1), Statement(2500, "USD", [paid]))
        lines = self.book("transfer to another currency", ken, (3, 9, -100, 6500, 1003)) + lines
        lines = self.book("transfer to itself", ken, (3, 6, -100, 6500, 1006)) + lines
        lines = self.book("transfer to nobody", ken, (3, 7, -100, 6500, 9999)) + lines
        lines = self.book("20 deposits", ken, *((1, 0, n, 6500 + n * (n + 1) // 2, -1) for n in range(1, 21))) + lines
        rows = [line.row for line in lines]
        self.same("rows, the newest first", rows, sorted(set(rows), reverse=True))
        self.ask("three lines", ken, statement(3), Statement(6710, "USD", lines[:3]))
        self.doing = "statement"
        found = ken.ask(statement(100)).body
        row, opened = found.lines[-1][:2] if isinstance(found, Statement) and found.lines else (0, 0)
        lines.append(Line(row, opened, 4, 0, 10_000, 10_000, -2, "", None))
        self.same("statement", found, Statement(6710, "USD", lines))

    def be_refused(self, ken: Connection) -> None:
        for amount in (0, -1):
            for request in (deposit(uuid7(), amount), withdraw(uuid7(), amount), transfer(uuid7(), 1007, amount)):
                self.ask(f"an amount of {amount}", ken, request, 108)
        self.ask("a UUID of version 4", ken, deposit(uuid.uuid4().bytes, 1), 109)
        self.ask("a transfer to account 0", ken, transfer(uuid7(), 0, 1), 110)
        for request in (reverse(999, uuid7()), resolve(999, uuid7()), advice(999, uuid7(), 1)):
            self.ask("an account that is not there", ken, request, 120)
        self.ask("balance after the errors", ken, balance(), Balance(6710, "USD"))

    def change_cards(self, ken: Connection, jack: Connection) -> None:
        self.ask("log out Ken", ken, logout(), LoggedOut())
        self.ask("balance after the logout", ken, balance(), 104)
        self.ask("log in as Jill", ken, login("Jill", "1357"), LoggedIn(1006, "USD", "Jill"))
        self.ask("Jill's balance", ken, balance(), Balance(6710, "USD"))
        self.ask("change from a wrong PIN", jack, change_pin("8643", "97531"), 106)
        self.ask("change to a PIN too short", jack, change_pin("8642", "975"), 117)
        self.ask("change the PIN", jack, change_pin("8642", "97531"), PinChanged())
        self.ask("log out Jack", jack, logout(), LoggedOut())
        self.ask("log in with the old PIN", jack, login("Jack", "8642"), 106)
        self.ask("log in with the new PIN", jack, login("Jack", "97531"), LoggedIn(1007, "USD", "Jack"))
        self.ask("log out Jack again", jack, logout(), LoggedOut())
        self.ask("log in as Elena", jack, login("Elena", "2580"), LoggedIn(1003, "EUR", "Elena"))
        self.ask("Elena's balance", jack, balance(), Balance(87_550, "EUR"))
        self.ask("log out Jill", ken, logout(), LoggedOut())
        self.ask("log in as Mark", ken, login("Mark", "1470"), LoggedIn(1004, "USD", "Mark"))
        self.book("use up the overdraft", ken, (2, 0, -14_000, -10_000, -1), (2, 4, -1, -10_000, -1))

    def break_the_rules(self) -> None:
        self.doing = "a frame too long"
        with Connection(self.host, self.port) as bank:
            bank.hello("PY-1")
            bank.send(bytes(1025))
            reply = read_reply(bank.receive())
            code = reply.body.code if isinstance(reply.body, Error) else reply.body
            self.same(self.doing, (reply.id, code), (0, 101))
            self.ends(self.doing, bank)
        self.doing = "a hello of version 2"
        with Connection(self.host, self.port) as bank:
            bank.send(hello("PY-1", version=2))
            answer = read_handshake(bank.receive())
            found = (answer.code, answer.versions) if isinstance(answer, Error) else answer
            self.same(self.doing, found, (102, (1, 1)))
            self.ends(self.doing, bank)


def main() -> None:
    host, _, port = sys.argv[-1].rpartition(":")
    if len(sys.argv) != 2 or not host or not port.isdecimal():
        sys.exit("usage: atm_client.py HOST:PORT")
    script = Script(host.strip("[]"), int(port))
    try:
        script.run()
    except Mismatch as e:
        sys.exit(f"differs: {e}")
    except (Error, ValueError, EOFError, OSError) as e:
        sys.exit(f"failed: {script.doing}: {type(e).__name__}: {e}")
    print(f"ok: {script.checks} checks")


if __name__ == "__main__":
    main()
