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

# fmt: off
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
# fmt: on


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
        self.oldest, self.newest = oldest, newest


Body = Pong | LoggedIn | LoggedOut | Balance | Approved | Declined | Statement | PinChanged | Error
Reply = NamedTuple("Reply", [("id", int), ("row", int), ("body", Body)])
T = TypeVar("T")


def read_welcome(body: bytes) -> Welcome | Refused:
    r = Reader(body)
    form, answer = r.uint(32), None
    if form == 0:
        answer = Welcome(r.uint(16), r.i64(), r.uint(32), r.uint(32))
    elif form == 1:
        answer = Refused(r.uint(16), r.uint(16), r.uint(16), r.text())
    else:
        raise Malformed(f"a handshake of form {form}")
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
