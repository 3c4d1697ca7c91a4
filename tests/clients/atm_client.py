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
GOLDEN_SENT = [
    ("41544d42 01 05 41544d2d31 00", hello("ATM-1")),
    ("41544d42 01 05 41544d2d31 01 02 cafe", hello("ATM-1", secret=b"\xca\xfe")),
    ("07 00", varint(7) + ping()),
    ("07 01 03 4b656e 04 32343638", varint(7) + login("Ken", "2468")),
    ("07 02", varint(7) + logout()),
    ("07 03", varint(7) + balance()),
    ("07 04 TXN a01f", varint(7) + deposit(TXN, 2000)),
    ("07 05 TXN a01f", varint(7) + withdraw(TXN, 2000)),
    ("07 06 TXN ea07 a01f", varint(7) + transfer(TXN, 1002, 2000)),
    ("07 07 e907 TXN", varint(7) + reverse(1001, TXN)),
    ("07 08 e907 TXN", varint(7) + resolve(1001, TXN)),
    ("07 09 e907 TXN a01f", varint(7) + advice(1001, TXN, 2000)),
    ("07 0a 0a", varint(7) + statement(10)),
    ("07 0b 04 32343638 04 31333537", varint(7) + change_pin("2468", "1357")),
    ("ac02 9f1f", varint(300) + zigzag(-2000)),
]
RECEIPT = Receipt(TXN, THEN, -2000, 10_050, "USD")
LINE = Line(300, THEN, 2, 0, -2000, 10_050, -1, "ATM-1", TXN)
GOLDEN_RECEIVED: list[tuple[str, Callable[[bytes], object], object]] = [
    ("00 01 e0e693aee45f 8008 808001", read_welcome, Welcome(1, THEN, 1024, 16_384)),
    ("01 66 01 01 03 4e6f2e", read_welcome, Refused(102, 1, 1, "No.")),
    ("07 00 00 e0e693aee45f", read_reply, Reply(7, 0, Pong(THEN))),
    ("07 00 01 e907 555344 03 4b656e", read_reply, Reply(7, 0, LoggedIn(1001, "USD", "Ken"))),
    ("07 00 02", read_reply, Reply(7, 0, LoggedOut())),
    ("07 ac02 03 849d01 555344", read_reply, Reply(7, 300, Balance(10_050, "USD"))),
    ("07 ac02 04 TXN e0e693aee45f 9f1f 849d01 555344", read_reply, Reply(7, 300, Approved(RECEIPT))),
    ("07 ac02 05 04 TXN e0e693aee45f 9f1f 849d01 555344 13 496e73756666696369656e742066756e64732e",
     read_reply, Reply(7, 300, Declined(4, RECEIPT, "Insufficient funds."))),
    ("07 ac02 06 849d01 555344 01 ac02 e0e693aee45f 02 00 9f1f 849d01 01 05 41544d2d31 01 TXN",
     read_reply, Reply(7, 300, Statement(10_050, "USD", [LINE]))),
    ("07 00 07", read_reply, Reply(7, 0, PinChanged())),
    ("07 00 08 70 05 427573792e", read_reply, Reply(7, 0, Error(112, "Busy."))),
]


class Mismatch(Exception):
    """An answer is not the expected one."""


class Script:
    """The conversation, which ends at the first answer that is not the expected one."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.checks, self.doing = 0, "connecting"
        self.lines: list[Line] = []  # what the statement of account 1006 should be, the newest first

    def same(self, what: str, found: object, expected: object) -> None:
        """Compares as `repr` does, which tells types apart: LoggedOut() == PinChanged(), for both are empty tuples."""
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

    def booked(self, what: str, reply: Reply, line: Line) -> None:
        """Checks the reply to a transaction against the statement's line that it should lead to."""
        if isinstance(reply.body, Declined):
            self.same(f"{what}, code", reply.body.code, line.outcome)
        elif not isinstance(reply.body, Approved) or line.outcome:
            raise Mismatch(f"{what}: expected outcome {line.outcome}, found {reply.body!r}")
        receipt = reply.body.receipt
        self.same(what, receipt, Receipt(line.txn or b"", receipt.time, line.amount, line.balance, "USD"))
        self.same(f"{what}, has a newer row", reply.row > self.lines[0].row, True)
        self.lines.insert(0, line._replace(row=reply.row, time=receipt.time))

    def conversation(self) -> None:
        self.golden()
        with Connection(self.host, self.port) as ken, Connection(self.host, self.port) as jack:
            self.first_words(ken)
            jack.hello("PY-2")
            self.transactions(ken, jack)
            self.refused_requests(ken)
            self.pipelined(ken)
            self.another_card(ken)
            self.new_pin(jack)
        self.other_accounts()
        self.broken_rules()

    def golden(self) -> None:
        def golden(spaced: str) -> bytes:
            return bytes.fromhex(spaced.replace("TXN", TXN.hex()))

        for spaced, found in GOLDEN_SENT:
            self.same("a golden message", found.hex(), golden(spaced).hex())
        for spaced, read, expected in GOLDEN_RECEIVED:
            body = golden(spaced)
            self.same(f"golden {spaced}", read(body), expected)
            for wrong in [body + b"\0", *(body[:n] for n in range(len(body)))]:
                self.raises(f"{wrong.hex()}, cut or lengthened", Malformed, lambda: read(wrong))
