#!/usr/bin/env python3
"""Computes a bank file's hash chain anew, from data/README.md alone, and compares every head: `chain.py BANK.db`.

Prints the newest row and head, or where the first head differs, and then ends with 1.
"""
import hashlib
import sqlite3
import sys


def uint(n: int) -> bytes: return bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80]) + uint(n >> 7)
def sint(n: int) -> bytes: return uint(2 * n if n >= 0 else -2 * n - 1)
def text(s: str | None) -> bytes: return uint(len((s or "").encode())) + (s or "").encode()
def option(value: bytes | None) -> bytes: return b"\0" if value is None else b"\1" + value
def option_uint(n: int | None) -> bytes: return option(None if n is None else uint(n))


def action(a: sqlite3.Row) -> bytes:
    return (b"\0" + uint(a["action"]) + sint(a["time"]) + text(a["operator"]) + text(a["command"]) + text(a["subject"])
            + text(a["details"]) + option(None if a["reason"] is None else text(a["reason"])) + a["request"])


def row(r: sqlite3.Row) -> bytes:
    side = None if r["contra_balance"] is None else sint(r["contra_balance"]) + uint(r["contra_prev_lsn"])
    return (b"\1" + uint(r["lsn"]) + sint(r["time"]) + sint(r["business_date"]) + bytes([r["kind"], r["outcome"]])
            + option(r["txn_id"]) + uint(r["account"]) + sint(r["contra"]) + text(r["terminal"]) + sint(r["amount"])
            + sint(r["balance"]) + uint(r["prev_lsn"]) + option(side) + option_uint(r["original_lsn"])
            + option_uint(r["card_id"]) + option_uint(r["action"]) + option_uint(r["period"]) + text(r["currency"]))


def main() -> None:
    bank = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
    bank.row_factory = sqlite3.Row
    rows = bank.execute("SELECT journal.*, currency FROM journal JOIN accounts USING (account) ORDER BY lsn")
    actions = bank.execute("SELECT * FROM actions ORDER BY action")
    head, lsn, number = bytes(32), 0, 0
    for commit in bank.execute("SELECT * FROM commits ORDER BY last_lsn, last_action"):
        link = hashlib.blake2b(head, digest_size=32)
        for number in range(number + 1, commit["last_action"] + 1):
            link.update(action(actions.fetchone()))
        for lsn in range(lsn + 1, commit["last_lsn"] + 1):
            link.update(row(rows.fetchone()))
        head = link.digest()
        if head != commit["head"]:
            sys.exit(print(f"the head of the commit up to row {commit['last_lsn']} differs") or 1)
    if rows.fetchone() or actions.fetchone():
        sys.exit(print("there is more than the commits have; it differs") or 1)
    print(f"head {lsn}:{head.hex()}")


if __name__ == "__main__":
    main()
