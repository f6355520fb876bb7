#!/usr/bin/python3
"""A steady writer to SQLite, and the check of what became of its data.

    writer.py write wal|delete DB [--files DIR] [--pause SECONDS] [--megabytes N]
    writer.py check DB [--files DIR]

Every transaction moves an amount between two accounts, rewrites one row that fills a page and adds a row to `ledger` that says
what it did; its number is printed once it is committed. With --files, a file of that number is written and synced in DIR before its transaction: each row
of the ledger has its file, and there is at most one file more. It goes on where it left off; what a crash left of the last
file is overwritten.

`check` prints one JSON object: `problems`, `last` (the number of the last transaction) and `files`. It opens the database as
the application does, so a journal is rolled back and a log is recovered.
"""

import argparse
import hashlib
import json
import os
import random
import sqlite3
import sys
import time
from pathlib import Path

ACCOUNTS = 1000
PAGE = 4000


def main() -> int:
    parser = argparse.ArgumentParser(prog="writer.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    write = verbs.add_parser("write")
    write.add_argument("mode", choices=["wal", "delete"])
    write.add_argument("--pause", type=float, default=0.002, help="between transactions (default %(default)s s)")
    write.add_argument("--megabytes", type=int, default=16, help="of rows that are rewritten (default %(default)s)")
    check = verbs.add_parser("check")
    for verb in (write, check):
        verb.add_argument("db", type=Path)
        verb.add_argument("--files", type=Path)
    options = parser.parse_args()
    if options.verb == "check":
        print(json.dumps(examine(options.db, options.files)))
        return 0
    return run(options)


def run(options) -> int:
    connection = open_database(options.db, options.mode, max(options.megabytes * 250, 1))
    rows = connection.execute("SELECT count(*) FROM pages").fetchone()[0]
    number = last_number(connection)
    chance = random.Random(number)
    while True:
        number += 1
        if options.files is not None:
            write_file(options.files, number)
        source, target = chance.sample(range(ACCOUNTS), 2)
        amount, page = chance.randrange(1, 100), chance.randrange(rows)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", (amount, source))
        connection.execute("UPDATE pages SET number = ?, body = ? WHERE id = ?", (number, body(number), page))
        connection.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", (amount, target))
        connection.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", (number, source, target, amount, page))
        connection.execute("COMMIT")
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        time.sleep(options.pause)


def open_database(path: Path, mode: str, rows: int) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("PRAGMA synchronous = FULL")
    if connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'ledger'").fetchone()[0] == 0:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
        connection.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY, number INTEGER NOT NULL, body BLOB NOT NULL)")
        columns = "number INTEGER PRIMARY KEY, source INTEGER, target INTEGER, amount INTEGER, page INTEGER"
        connection.execute(f"CREATE TABLE ledger ({columns})")
        connection.executemany("INSERT INTO accounts VALUES (?, 0)", ((account,) for account in range(ACCOUNTS)))
        connection.executemany("INSERT INTO pages VALUES (?, 0, ?)", ((row, body(0)) for row in range(rows)))
        connection.execute("COMMIT")
    return connection


def last_number(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT coalesce(max(number), 0) FROM ledger").fetchone()[0]


def body(number: int) -> bytes:
    return hashlib.shake_128(str(number).encode()).digest(PAGE)


def content(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * 64


def write_file(folder: Path, number: int) -> None:
    path = file_path(folder, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        file.write(content(number))
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, path)


def file_path(folder: Path, number: int) -> Path:
    return folder / str(number // 1000) / f"{number}.bin"


def examine(path: Path, files) -> dict:
    problems = []
    last, found = 0, 0
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        problems += [f"integrity_check: {row[0]}" for row in connection.execute("PRAGMA integrity_check").fetchall() if row[0] != "ok"]
        last = last_number(connection)
        problems += ledger_problems(connection, last)
        connection.close()
    except sqlite3.Error as error:
        problems.append(f"{type(error).__name__}: {error}")
    if files is not None:
        found = file_problems(files, last, problems)
    return {"problems": problems[:20], "last": last, "files": found}


def ledger_problems(connection: sqlite3.Connection, last: int) -> list:
    one = lambda query: connection.execute(query).fetchone()[0]
    problems = []
    if one("SELECT count(*) FROM ledger") != last:
        problems.append(f"the ledger has {one('SELECT count(*) FROM ledger')} rows, its last number is {last}")
    if one("SELECT sum(balance) FROM accounts") != 0:
        problems.append(f"the balances add up to {one('SELECT sum(balance) FROM accounts')} instead of 0")
    stale = one(
        "SELECT count(*) FROM pages p LEFT JOIN (SELECT page, max(number) latest FROM ledger GROUP BY page) l ON l.page = p.id"
        " WHERE p.number != coalesce(l.latest, 0)"
    )
    if stale:
        problems.append(f"{stale} pages are not what the ledger says")
    torn = sum(found != body(number) for number, found in connection.execute("SELECT number, body FROM pages"))
    if torn:
        problems.append(f"{torn} pages are torn")
    wrong = one(
        "SELECT count(*) FROM accounts a WHERE balance != coalesce((SELECT sum(amount) FROM ledger WHERE target = a.id), 0)"
        " - coalesce((SELECT sum(amount) FROM ledger WHERE source = a.id), 0)"
    )
    if wrong:
        problems.append(f"{wrong} balances are not what the ledger says")
    return problems


def file_problems(folder: Path, last: int, problems: list) -> int:
    numbers = sorted(int(path.stem) for path in folder.glob("*/*.bin"))
    missing = sorted(set(range(1, last + 1)) - set(numbers))
    if missing:
        problems.append(f"{len(missing)} rows have no file, the first is {missing[0]}")
    beyond = [number for number in numbers if number > last]
    if len(beyond) > 1:
        problems.append(f"{len(beyond)} files are newer than the last row")
    damaged = [number for number in numbers if file_path(folder, number).read_bytes() != content(number)]
    if damaged:
        problems.append(f"{len(damaged)} files are damaged, the first is {damaged[0]}")
    return len(numbers)


sys.exit(main())
