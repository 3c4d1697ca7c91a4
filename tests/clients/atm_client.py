#!/usr/bin/env python3
"""A client for the bank's native protocol, version 2, written from docs/PROTOCOL.md alone: the proof that it suffices.

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
def totals() -> bytes: return varint(12)


def hello(terminal: str, version: int = 2, secret: bytes | None = None) -> bytes:
    return b"ATMB" + varint(version) + text(terminal) + (varint(0) if secret is None else varint(1) + blob(secret))


def uuid7(ahead: int = 0) -> bytes:
    """A new transaction id: 48 bits of milliseconds, then random ones but for the version (7) and the variant (2).
    The script makes some from a clock that is so many milliseconds `ahead`."""
    n = time.time_ns() // 1_000_000 + ahead << 80 | secrets.randbits(80)
    return (n & ~(0xF << 76 | 3 << 62) | 7 << 76 | 2 << 62).to_bytes(16)


Receipt = NamedTuple("Receipt", [("txn", bytes), ("time", int), ("amount", int), ("balance", int), ("currency", str),
                                 ("head", bytes)])
Line = NamedTuple("Line", [("row", int), ("time", int), ("kind", int), ("outcome", int), ("amount", int),
                           ("balance", int), ("contra", int), ("terminal", str), ("txn", bytes | None)])
Welcome = NamedTuple("Welcome", [("version", int), ("time", int), ("max_request", int), ("max_reply", int)])
Pong = NamedTuple("Pong", [("time", int)])
LoggedIn = NamedTuple("LoggedIn", [("account", int), ("currency", str), ("holder", str)])
LoggedOut = NamedTuple("LoggedOut", [])
Balance = NamedTuple("Balance", [("balance", int), ("currency", str)])
Approved = NamedTuple("Approved", [("receipt", Receipt)])
Declined = NamedTuple("Declined", [("code", int), ("message", str), ("receipt", Receipt)])
Statement = NamedTuple("Statement", [("balance", int), ("currency", str), ("lines", list[Line])])
PinChanged = NamedTuple("PinChanged", [])
Reversed = NamedTuple("Reversed", [("receipt", Receipt)])
Never = NamedTuple("Never", [])
StaleId = NamedTuple("StaleId", [("forgotten", int)])
Totals = NamedTuple("Totals", [("cash", dict[str, int])])
Notice = NamedTuple("Notice", [("message", str)])
Body = (Pong | LoggedIn | LoggedOut | Balance | Approved | Declined | Statement | PinChanged | Error | Reversed | Never
        | StaleId | Totals | Notice)
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
        return Receipt(self.take(16), self.i64(), self.i64(), self.i64(), self.currency(), self.take(32))

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
            case 5: return Declined(self.uint(16), self.text(), self.receipt())
            case 6: return Statement(self.i64(), self.currency(), [self.line() for _ in range(self.uint(32))])
            case 7: return PinChanged()
            case 8: return Error(self.uint(16), self.text())
            case 9: return Reversed(self.receipt())
            case 10: return Never()
            case 11: return StaleId(self.i64())
            case 12: return Totals({self.currency(): self.i64() for _ in range(self.uint(32))})
            case 13: return Notice(self.text())
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
        self.max_reply, self.last_id, self.terminal = 16_384, 0, ""

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

    def hello(self, terminal: str, secret: bytes | None = None) -> Welcome:
        self.send(hello(terminal, secret=secret))
        answer = read_handshake(self.receive())
        if isinstance(answer, Error):
            raise answer
        self.max_reply, self.terminal = answer.max_reply, terminal
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

HEAD = b"\xab" * 32
TXN, THEN = bytes.fromhex("017f22e279b07cc398c4dc0c0c07398f"), 1_645_557_742_000
RECEIPT = Receipt(TXN, THEN, -2000, 10_050, "USD", HEAD)
LINE = Line(300, THEN, 2, 0, -2000, 10_050, -1, "ATM-1", TXN)
GOLDEN_SENT = {
    "41544d42 02 05 41544d2d31 00": hello("ATM-1"),
    "41544d42 02 05 41544d2d31 01 02 cafe": hello("ATM-1", 2, b"\xca\xfe"),
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
    "07 0c": b"\7" + totals(),
    "ac02 a01f 9f1f": varint(300) + zigzag(2000) + zigzag(-2000),
}
GOLDEN_RECEIVED = {
    "00 02 e0e693aee45f 8008 808001": Welcome(2, THEN, 1024, 16_384),
    "01 66 02 02 03 4e6f2e": Error(102, "No.", (2, 2)),
    "07 00 00 e0e693aee45f": Reply(7, 0, Pong(THEN)),
    "07 00 01 e907 555344 03 4b656e": Reply(7, 0, LoggedIn(1001, "USD", "Ken")),
    "07 00 02": Reply(7, 0, LoggedOut()),
    "07 ac02 03 849d01 555344": Reply(7, 300, Balance(10_050, "USD")),
    "07 ac02 04 TXN e0e693aee45f 9f1f 849d01 555344 HEAD": Reply(7, 300, Approved(RECEIPT)),
    "07 ac02 05 04 13 496e73756666696369656e742066756e64732e TXN e0e693aee45f 9f1f 849d01 555344 HEAD":
        Reply(7, 300, Declined(4, "Insufficient funds.", RECEIPT)),
    "07 ac02 06 849d01 555344 01 ac02 e0e693aee45f 02 00 9f1f 849d01 01 05 41544d2d31 01 TXN":
        Reply(7, 300, Statement(10_050, "USD", [LINE])),
    "07 00 07": Reply(7, 0, PinChanged()),
    "07 00 08 70 05 427573792e": Reply(7, 0, Error(112, "Busy.")),
    "07 ac02 09 TXN e0e693aee45f a01f 849d01 555344 HEAD":
        Reply(7, 300, Reversed(RECEIPT._replace(amount=2000))),
    "07 00 0a": Reply(7, 0, Never()),
    "07 00 0b e0e693aee45f": Reply(7, 0, StaleId(THEN)),
    "07 ac02 0c 01 555344 9f1f": Reply(7, 300, Totals({"USD": -2000})),
    "07 00 0d 06 48656c6c6f2e": Reply(7, 0, Notice("Hello.")),
}


MOST, MINUTE, HOUR = 2**63 - 1, 60_000, 3_600_000


def unseen(terminal: str, txn: bytes, kind: int, outcome: int, amount: int, after: int, contra: int = -1) -> Line:
    """A line of the statement whose row and time are yet to be learned."""
    return Line(0, 0, kind, outcome, amount, after, contra, terminal, txn)


def id_of(line: Line) -> bytes:
    assert line.txn is not None, "an opening has no id"
    return line.txn


def original(txn: bytes, kind: int, amount: int, contra: int) -> bytes:
    """The request whose line has these."""
    if kind == 3:
        return transfer(txn, contra, -amount)
    return withdraw(txn, -amount) if kind == 2 else deposit(txn, amount)


def undone(line: Line, after: int) -> Line:
    """The line that the reversal of `line` will have."""
    return line._replace(row=0, time=0, kind=5, amount=-line.amount, balance=after)


class Mismatch(Exception):
    """An answer is not the expected one."""


class Script:
    """The conversation, which ends at the first answer that is not the expected one."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port, self.checks, self.doing = host, port, 0, "connect"
        self.heads: dict[int, bytes] = {}  # of each row that a receipt has told of, by row: it never changes
        self.cash: dict[str, dict[str, int]] = {}  # what `Totals` has to say, by terminal and currency

    def enter(self, terminal: str, card: str = "", pin: str = "") -> Connection:
        self.doing = f"enter {terminal} {card}"
        bank = Connection(self.host, self.port)
        bank.hello(terminal)
        if card:
            bank.ask(login(card, pin))
        return bank

    def same(self, what: str, found: object, expected: object) -> None:
        """Compares by `repr`, which tells LoggedOut() from PinChanged(): as tuples they are equal."""
        self.checks += 1
        if repr(found) != repr(expected):
            raise Mismatch(f"{what}: expected {expected!r}, found {found!r}")

    def ask(self, what: str, bank: Connection, request: bytes, expected: Body | int) -> None:
        """Expects a body, or the `Error` of a code; what has no receipt has no row either, balances and such apart."""
        self.doing = what
        [reply] = bank.ask_all([request])
        self.same(f"{what}, row {reply.row}", reply.row > 0, isinstance(reply.body, Balance | Statement | Totals))
        self.same(what, reply.body.code if isinstance(reply.body, Error) else reply.body, expected)

    def ends(self, what: str, bank: Connection) -> None:
        try:
            self.same(f"{what}, then the end of the stream", bank.read(1), None)
        except EOFError:
            self.checks += 1

    def agree(self, what: str, reply: Reply, line: Line, currency: str = "USD") -> Line:
        """Expects the outcome, receipt and row that a line of the statement tells. An unseen line learns its row and
        time from the reply, and its cash is counted; gives the line as it is then."""
        if not isinstance(body := reply.body, Approved | Declined | Reversed):
            raise Mismatch(f"{what}: expected {line}, found {body!r}")
        if line.row == 0:
            line = line._replace(row=reply.row, time=body.receipt.time)
            if line.outcome == 0 and line.contra == -1:
                cash = self.cash.setdefault(line.terminal, {})
                cash[currency] = cash.get(currency, 0) + line.amount
        form = Declined if line.outcome else Reversed if line.kind == 5 else Approved
        self.same(f"{what}, form", type(body), form)
        self.same(f"{what}, outcome", body.code if isinstance(body, Declined) else 0, line.outcome)
        head = self.heads.setdefault(reply.row, body.receipt.head)
        self.same(f"{what}, whether there is a head", any(head), True)
        receipt = Receipt(id_of(line), line.time, line.amount, line.balance, currency, head)
        self.same(f"{what}, receipt", body.receipt, receipt)
        self.same(f"{what}, row", reply.row, line.row)
        return line

    def tell(self, what: str, bank: Connection, request: bytes, line: Line, currency: str = "USD") -> Line:
        self.doing = what
        [reply] = bank.ask_all([request])
        return self.agree(what, reply, line, currency)

    def book(self, what: str, bank: Connection, *moves: tuple[int, int, int, int, int]) -> list[Line]:
        """Asks in one send for all the moves, each told by the kind, outcome, amount, balance afterwards and contra
        that its line of the statement has to have; gives these lines, the newest first."""
        self.doing, txns, row = what, [uuid7() for _ in moves], 0
        lines: list[Line] = []
        requests = [original(txn, kind, amount, contra) for txn, (kind, _, amount, _, contra) in zip(txns, moves)]
        for reply, txn, move in zip(bank.ask_all(requests), txns, moves):
            lines.insert(0, self.agree(what, reply, unseen(bank.terminal, txn, *move)))
            self.same(f"{what}, row {reply.row} after {row}", reply.row > row, True)
            row = reply.row
        return lines

    def account(self, what: str, bank: Connection, lines: list[Line]) -> None:
        """Expects these lines as the account's newest, and a balance that agrees with the first."""
        self.ask(what, bank, statement(len(lines)), Statement(lines[0].balance, "USD", lines))
        self.same(f"{what}, newest row", bank.ask(balance()).row, lines[0].row)

    def totals(self, bank: Connection) -> None:
        """Expects what the script has moved at the terminal, of which each currency may come anywhere in the list."""
        self.doing = what = f"totals of {bank.terminal}"
        body = bank.ask(totals()).body
        found = dict(sorted(body.cash.items())) if isinstance(body, Totals) else body
        self.same(what, found, dict(sorted(self.cash.get(bank.terminal, {}).items())))

    def run(self) -> None:
        self.golden()
        with Connection(self.host, self.port) as ken, Connection(self.host, self.port) as jack:
            self.greet(ken, jack)
            self.move_money(ken, jack)
            self.be_refused(ken)
            self.change_cards(ken, jack)
        self.ask_again()
        self.settle()
        self.advise()
        self.fill_up()
        self.forget()
        self.break_the_rules()

    def golden(self) -> None:
        for golden, frame in GOLDEN_SENT.items():
            self.same("golden bytes", frame.hex(), golden.replace("TXN", TXN.hex()).replace(" ", ""))
        for golden, answer in GOLDEN_RECEIVED.items():
            frame = bytes.fromhex(golden.replace("TXN", TXN.hex()).replace("HEAD", HEAD.hex()))
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
        self.same("welcome", welcome, Welcome(2, welcome.time, 1024, 16_384))
        self.same("clocks agree to an hour", abs(welcome.time - time.time_ns() // 1_000_000) < 3_600_000, True)
        self.doing = "ping"
        pong = ken.ask(ping())
        self.same("ping", (type(pong.body), pong.row), (Pong, 0))
        for request in (balance(), logout(), deposit(uuid7(), 1), statement(1), change_pin("2468", "1111")):
            self.ask("a request before the login", ken, request, 104)
        self.totals(ken)
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
        self.refuse_in_order(ken)
        self.ask("balance after the errors", ken, balance(), Balance(6710, "USD"))

    def refuse_in_order(self, ken: Connection) -> None:
        four, ahead = uuid.uuid4().bytes, uuid7(6 * MINUTE)
        for account in (0, MOST + 1):
            for request in (transfer(four, account, 0), advice(account, four, 0), resolve(account, four),
                            reverse(account, four)):
                self.ask(f"account {account} before all else", ken, request, 110)
        for request in (deposit(four, 0), withdraw(four, 0), transfer(four, 1007, 0), advice(999, four, 0),
                        resolve(999, four), reverse(999, four)):
            self.ask("a UUID of version 4 before the rest", ken, request, 109)
        for request in (deposit(ahead, 0), withdraw(ahead, 0), transfer(ahead, 1007, 0), advice(999, ahead, 0)):
            self.ask("an amount before the rest", ken, request, 108)
        for request in (advice(999, ahead, 1), resolve(999, ahead), reverse(MOST, ahead)):
            self.ask("an unknown account before the id's time", ken, request, 120)
        for request in (deposit(ahead, 1), withdraw(ahead, 1), transfer(ahead, 999, 1), advice(1006, ahead, 1),
                        resolve(1006, ahead), reverse(1006, ahead)):
            self.ask("an id of six minutes ahead", ken, request, 119)
        with self.enter("PY-1") as till:
            self.ask("nobody's UUID of version 4", till, deposit(four, 0), 109)
            self.ask("nobody's amount of 0", till, deposit(ahead, 0), 108)
            self.ask("nobody's id of six minutes ahead", till, deposit(ahead, 1), 104)
            till.send(b"\0" + ping())
            reply = read_reply(till.receive())
            self.same("a request's id of 0", (reply.id, getattr(reply.body, "code", reply.body)), (0, 110))
            self.ask("another after it", till, deposit(uuid7(), 1), 104)

    def change_cards(self, ken: Connection, jack: Connection) -> None:
        self.ask("log out Ken", ken, logout(), LoggedOut())
        self.ask("balance after the logout", ken, balance(), 104)
        self.ask("log in as Jill", ken, login("Jill", "1357"), LoggedIn(1006, "USD", "Jill"))
        self.ask("Jill's balance", ken, balance(), Balance(6710, "USD"))
        self.ask("change from a wrong PIN", jack, change_pin("8643", "97531"), 106)
        self.ask("change to a PIN too short", jack, change_pin("8642", "975"), 117)
        self.ask("change to a PIN that is guessed first", jack, change_pin("8643", "1122"), 121)
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

    def ask_again(self) -> None:
        with self.enter("PY-1", "Ken", "2468") as ken, self.enter("PY-2", "Ken", "2468") as other:
            lines = self.book("first", ken, (1, 0, 290, 7000, -1), (2, 4, -7001, 7000, -1), (3, 0, -1000, 6000, 1007),
                              (2, 0, -500, 5500, -1), (1, 0, 4500, 10_000, -1))
            _, wd, pay, no, dep = lines
            early = uuid7(4 * MINUTE)
            self.ask("an error uses no id", ken, deposit(early, 0), 108)
            lines.insert(0, self.tell("an id of four minutes ahead", ken, deposit(early, 1),
                                      unseen("PY-1", early, 1, 0, 1, 10_001)))
            repeats = [(original(id_of(line), line.kind, line.amount, line.contra), line) for line in lines]
            with self.enter("PY-1", "Jill", "1357") as jill:
                for bank in (ken, jill):
                    for request, line in repeats:
                        self.tell("again", bank, request, line)
            with self.enter("PY-1", "Ken", "2468") as ken_again:
                for request, line in repeats:
                    self.tell("again after a reconnection", ken_again, request, line)
            for request, _ in repeats:
                self.ask("at another terminal", other, request, 118)
            for txn in (id_of(dep), id_of(no), id_of(pay), id_of(wd)):
                for request in (deposit(txn, 291), withdraw(txn, 7002), transfer(txn, 1007, 1001),
                                transfer(txn, 1002, 1000)):
                    self.ask("another body", ken, request, 118)
            twice = uuid7()
            self.doing = "the same twice in one send"
            one, two = ken.ask_all([deposit(twice, 99)] * 2)
            lines.insert(0, self.agree(self.doing, one, unseen("PY-1", twice, 1, 0, 99, 10_100)))
            self.agree(self.doing, two, lines[0])
            lost = uuid7()
            with self.enter("PY-1", "Ken", "2468") as breaks:
                breaks.send(varint(9) + withdraw(lost, 100))
            lines.insert(0, self.tell("a lost answer", ken, withdraw(lost, 100),
                                      unseen("PY-1", lost, 2, 0, -100, 10_000)))
            self.account("each of them once", ken, lines)

    def settle(self) -> None:
        with (self.enter("PY-1", "Ken", "2468") as ken, self.enter("PY-1") as till, self.enter("PY-2") as other,
              self.enter("PY-1", "Jack", "97531") as jack):
            lines = self.book("originals", ken, (1, 0, 2000, 12_000, -1), (2, 4, -12_001, 12_000, -1),
                              (3, 0, -3000, 9000, 1007), (2, 0, -1000, 8000, -1))
            wd, pay, no, dep = lines
            paid = Line(pay.row, pay.time, 3, 0, 3000, 6500, 1006, "PY-1", id_of(pay))
            self.account("the payee was paid", jack, [paid])
            self.ask("nobody is logged in", till, balance(), 104)
            for line in lines:
                self.ask("resolve another terminal's", other, resolve(1006, id_of(line)), Never())
                self.ask("reverse another terminal's", other, reverse(1006, id_of(line)), Never())
                self.tell("resolve", till, resolve(1006, id_of(line)), line)
            self.tell("resolve in a session of another account", jack, resolve(1006, id_of(dep)), dep)
            self.tell("reverse a declined one", till, reverse(1006, id_of(no)), no)
            self.tell("resolve it afterwards", till, resolve(1006, id_of(no)), no)

            self.ask("resolve at the payee's account", till, resolve(1007, id_of(pay)), Never())
            fence = self.tell("its fence", jack, deposit(id_of(pay), 1), unseen("PY-1", id_of(pay), 7, 11, 0, 6500))
            self.account("the fence on the payee's account", jack, [fence, paid])

            after = 8000
            for line in (dep, pay, wd):
                after -= line.amount
                txn = id_of(line)
                back = self.tell("reverse", till, reverse(1006, txn), undone(line, after))
                lines.insert(0, back)
                self.tell("reverse again", till, reverse(1006, txn), back)
                self.tell("resolve a reversed one", till, resolve(1006, txn), back)
                self.ask("another terminal resolves a reversed one", other, resolve(1006, txn), Never())
                repeat = original(txn, line.kind, line.amount, line.contra)
                self.tell("ask again for a reversed one", ken, repeat, line)
                self.ask("another body for a reversed one", ken, deposit(txn, 1), 118)
                if line.kind == 3:
                    taken = back._replace(amount=line.amount, balance=3500, contra=1006)
                    self.account("the payee gives it back", jack, [taken, fence, paid])

            for first, what in ((resolve, "resolve"), (reverse, "reverse")):
                txn = uuid7()
                for settles in (first, resolve, reverse, resolve):
                    self.ask(f"{what} before the original", till, settles(1006, txn), Never())
                fence = unseen("PY-1", txn, 7, 11, 0, 10_000)
                for request in (deposit(txn, 5), deposit(txn, 5), withdraw(txn, 6), transfer(txn, 999, 7)):
                    fence = self.tell(f"{what}, then a late copy", ken, request, fence)
                self.tell(f"{what}, then an advice", till, advice(1006, txn, 5), fence)
                self.ask(f"{what}, still", till, first(1006, txn), Never())
                self.ask(f"{what}, at another terminal", other, first(1006, txn), Never())
                lines.insert(0, fence)
            txn = uuid7()
            self.ask("another terminal's fence", other, resolve(1006, txn), Never())
            self.ask("an original at its fence", ken, deposit(txn, 5), 118)
            self.ask("resolve at its fence", till, resolve(1006, txn), Never())
            self.ask("advice at its fence", till, advice(1006, txn, 5), 118)
            with self.enter("PY-2", "Ken", "2468") as ken_there:
                lines.insert(0, self.tell("a late copy at the other terminal", ken_there, deposit(txn, 5),
                                          unseen("PY-2", txn, 7, 11, 0, 10_000)))

            txn = uuid7()
            self.doing = "all of it in one send"
            asked = [deposit(txn, 7), resolve(1006, txn), reverse(1006, txn), resolve(1006, txn), deposit(txn, 7)]
            replies = ken.ask_all(asked)
            done = self.agree(self.doing, replies[0], unseen("PY-1", txn, 1, 0, 7, 10_007))
            back = self.agree(self.doing, replies[2], undone(done, 10_000))
            for reply, line in zip(replies, (done, done, back, back, done)):
                self.agree(self.doing, reply, line)
            lines[:0] = [back, done]
            self.account("Ken's account, settled", ken, lines)

            lines = self.book("what is spent", jack, (1, 0, 100, 3600, -1), (2, 0, -3600, 0, -1))
            lines.insert(0, self.tell("reverse it", till, reverse(1007, id_of(lines[1])), undone(lines[1], -100)))
            self.account("below the limit", jack, lines)
            self.book("make it up", jack, (2, 4, -1, -100, -1), (1, 0, 100, 0, -1))
        with self.enter("PY-1", "Molly", "4321") as molly:
            [wd] = self.book("up to the daily limit", molly, (2, 0, -50_000, 70_000, -1))
            self.book("past the daily limit", molly, (2, 3, -1, 70_000, -1))
            self.tell("reverse it", molly, reverse(1002, id_of(wd)), undone(wd, 120_000))
            [wd] = self.book("up to the daily limit again", molly, (2, 0, -50_000, 70_000, -1))
            self.tell("reverse it too", molly, reverse(1002, id_of(wd)), undone(wd, 120_000))
            same = self.tell("another account's id", molly, deposit(txn, 1), unseen("PY-1", txn, 1, 0, 1, 120_001))
            self.tell("resolve it there", molly, resolve(1002, txn), same)
            self.tell("resolve it here", molly, resolve(1006, txn), back)

    def advise(self) -> None:
        with (self.enter("PY-1", "Ken", "2468") as ken, self.enter("PY-1") as till, self.enter("PY-2") as other,
              self.enter("PY-1", "Elena", "2580") as elena):
            new = uuid7()
            line = self.tell("advice", till, advice(1006, new, 300), unseen("PY-1", new, 6, 0, 300, 10_300))
            lines = [line]
            self.tell("advice again", till, advice(1006, new, 300), line)
            self.tell("its deposit arrives late", ken, deposit(new, 300), line)
            self.tell("resolve it", till, resolve(1006, new), line)
            for request in (advice(1006, new, 301), deposit(new, 301), withdraw(new, 300), transfer(new, 1007, 300)):
                self.ask("another body than the advice's", ken, request, 118)
            self.ask("another terminal's advice", other, advice(1006, new, 300), 118)
            self.ask("resolve another terminal's advice", other, resolve(1006, new), Never())
            lines.insert(0, self.tell("reverse it", till, reverse(1006, new), undone(line, 10_000)))
            self.tell("advice of a reversed one", till, advice(1006, new, 300), line)
            lines = self.book("originals of advices", ken, (1, 0, 400, 10_400, -1), (2, 4, -10_401, 10_400, -1),
                              (3, 0, -400, 10_000, 1007)) + lines
            pay, no, dep = lines[:3]
            self.tell("advice of an arrived deposit", till, advice(1006, id_of(dep), 400), dep)
            self.ask("with another amount", till, advice(1006, id_of(dep), 401), 118)
            self.ask("at another terminal", other, advice(1006, id_of(dep), 400), 118)
            self.ask("advice of a withdrawal", till, advice(1006, id_of(no), 10_401), 118)
            self.ask("advice of a transfer", till, advice(1006, id_of(pay), 400), 118)
            self.account("Ken's account, advised", ken, lines)
            self.doing, euros = "euros", uuid7()
            self.tell("a deposit of euros", elena, deposit(euros, 60), unseen("PY-1", euros, 1, 0, 60, 87_610), "EUR")
            euros = uuid7()
            self.tell("advice of euros", till, advice(1003, euros, 40), unseen("PY-1", euros, 6, 0, 40, 87_650), "EUR")
            self.doing = "Elena's statement"
            body = elena.ask(statement(100)).body
            found = [line[2:7] for line in body.lines] if isinstance(body, Statement) else body
            self.same("no line of the declined transfer to Elena", found, [
                (6, 0, 40, 87_650, -1), (1, 0, 60, 87_610, -1), (4, 0, 87_550, 87_550, -2)])
            for bank in (ken, till, other):
                self.totals(bank)

    def fill_up(self) -> None:
        """What an account cannot hold, at a terminal of its own, since the amounts are large."""
        with (self.enter("PY-3", "Brandon", "1234") as full, self.enter("PY-3") as till,
              self.enter("PY-3", "Jack", "97531") as jack):
            lines = self.book("fill it up", full, (1, 0, MOST - 25_000, MOST, -1), (1, 5, 1, MOST, -1),
                              (2, 0, -100, MOST - 100, -1), (3, 0, -50, MOST - 150, 1007), (1, 0, 150, MOST, -1))
            _, pay, wd, no, _ = lines
            self.tell("advice of a declined deposit", till, advice(1001, id_of(no), 1), no)
            new = uuid7()
            over = self.tell("advice of too much", till, advice(1001, new, 1), unseen("PY-3", new, 6, 5, 1, MOST))
            lines.insert(0, over)
            for line in (pay, wd):
                stuck = undone(line, MOST)._replace(outcome=12)
                stuck = self.tell("reverse what cannot be", till, reverse(1001, id_of(line)), stuck)
                self.tell("resolve it", till, resolve(1001, id_of(line)), line)
                lines.insert(0, stuck)
            self.account("a full account", full, lines)
            self.account("its payee", jack, [pay._replace(amount=50, balance=450, contra=1001)])
            self.totals(till)
            self.book("make room", full, (2, 0, 25_000 - MOST, 25_000, -1))
            self.tell("reverse it again", till, reverse(1001, id_of(wd)), stuck)
            self.tell("advice of too much again", till, advice(1001, new, 1), over)
            self.tell("ask for it again", full, withdraw(id_of(wd), 100), wd)
            self.totals(till)

    def forget(self) -> None:
        """So many transactions that the account forgets ids: the journal knows what was, `StaleId` is for the rest."""
        with self.enter("PY-3", "Molly", "4321") as molly, self.enter("PY-3") as till:
            oldest, after = uuid7(-2 * HOUR), 120_002
            first = self.tell("an old id", molly, deposit(oldest, 1), unseen("PY-3", oldest, 1, 0, 1, after))
            body: Body = LoggedOut()
            while not isinstance(body, StaleId) and after < 200_000:
                self.doing, txns = f"many deposits, from {after}", [uuid7() for _ in range(500)]
                for reply, txn in zip(molly.ask_all([deposit(txn, 1) for txn in txns]), txns):
                    after += 1
                    self.agree(self.doing, reply, unseen("PY-3", txn, 1, 0, 1, after))
                body = molly.ask_all([withdraw(uuid7(-HOUR), MOST)])[0].body
            self.same("a stale id", type(body), StaleId)
            new, late, noted = uuid7(), uuid7(-HOUR), uuid7(-HOUR)
            for request in (deposit(late, 1), withdraw(late, 1), transfer(late, 1006, 1)):
                self.ask("a stale id", molly, request, body)
            self.tell("a new id", molly, deposit(new, 1), unseen("PY-3", new, 1, 0, 1, after + 1))
            self.tell("ask again for what is forgotten", molly, deposit(oldest, 1), first)
            self.tell("resolve what is forgotten", till, resolve(1002, oldest), first)
            self.tell("advice of what is forgotten", till, advice(1002, oldest, 1), first)
            self.ask("another body for what is forgotten", molly, deposit(oldest, 2), 118)
            self.ask("resolve a stale id", till, resolve(1002, late), Never())
            self.tell("the late copy", molly, deposit(late, 1), unseen("PY-3", late, 7, 11, 0, after + 1))
            line = self.tell("advice of a stale id", till, advice(1002, noted, 1),
                             unseen("PY-3", noted, 6, 0, 1, after + 2))
            self.tell("its deposit", molly, deposit(noted, 1), line)
            self.tell("reverse what is forgotten", till, reverse(1002, oldest), undone(first, after + 1))
            self.totals(till)

    def break_the_rules(self) -> None:
        self.doing = "a frame too long"
        with Connection(self.host, self.port) as bank:
            bank.hello("PY-1")
            bank.send(bytes(1025))
            reply = read_reply(bank.receive())
            code = reply.body.code if isinstance(reply.body, Error) else reply.body
            self.same(self.doing, (reply.id, code), (0, 101))
            self.ends(self.doing, bank)
        for terminal, secret in (("PY-1", bytes(32)), ("PY-1", b""), ("PY-9", bytes(32)), ("py-1", None), ("", None)):
            self.doing = f"terminal {terminal!r} with the proof {secret!r}"
            with Connection(self.host, self.port) as bank:
                try:
                    self.same(self.doing, bank.hello(terminal, secret), "Refused")
                except Error as refused:
                    self.same(self.doing, (refused.code, refused.versions), (103, (2, 2)))
                self.ends(self.doing, bank)
        for version in (1, 3):
            self.doing = f"a hello of version {version}"
            with Connection(self.host, self.port) as bank:
                bank.send(hello("PY-1", version=version))
                answer = read_handshake(bank.receive())
                found = (answer.code, answer.versions) if isinstance(answer, Error) else answer
                self.same(self.doing, found, (102, (2, 2)))
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
