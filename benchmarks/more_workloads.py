"""What the source does in the workloads beyond W4, which run only where they are asked for.

Each has tables of its own, which are filled just before it, by its entry in `FILLS`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from benchmarks.workloads import Backlog, Sizes, pipelined

Connection = psycopg.Connection[Any]

_TELLERS, _ACCOUNTS = 10, 100_000
"""Of each branch, as in pgbench."""
_LARGE_EVERY = 10
_TRANSACTIONS_A_HUNDRED = 3
_PIECES = 256
"""Of 32 characters each: 8 kB of text and 4 kB of bytes that do not compress, both out of line."""

_FILL_BANK: tuple[LiteralString, ...] = (
    "TRUNCATE branch, teller, account, history",
    "INSERT INTO branch SELECT b, 0, repeat(' ', 84) FROM generate_series(1, {branches}) b",
    """INSERT INTO teller SELECT t, 1 + (t - 1) / {tellers}, 0, repeat(' ', 80)
       FROM generate_series(1, {branches} * {tellers}) t""",
    """INSERT INTO account SELECT a, 1 + (a - 1) / {accounts}, 0, repeat(' ', 80)
       FROM generate_series(1, {branches}::bigint * {accounts}) a""",
)
_HISTORY: LiteralString = (
    "INSERT INTO history (tid, bid, aid, delta, at) VALUES (%s::int, %s::int, %s::bigint, %s::int, now())"
)
_FILL_FILES: LiteralString = """
    INSERT INTO court_file
    SELECT i, 0, text, decode(text, 'hex'), md5(i::text), 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j',
           i, i, i, i, i, i / 7.0, i / 9.0, date '2000-01-01' + i % 9000, now(), jsonb_build_object('no', i)
    FROM generate_series(1, {files}) i,
         LATERAL (SELECT string_agg(md5(i || ':' || n), '') AS text FROM generate_series(1, {pieces}) n) AS long"""
_READ: LiteralString = (
    "INSERT INTO reading SELECT i, i %% 50, i / 10.0, md5(i::text) FROM generate_series(%s::int, %s::int) i"
)


def hot_rows(connection: Connection, sizes: Sizes, run: int) -> Backlog:
    """W5: pgbench's default script at scale 1: every transaction updates the same row of one table."""
    return _tpc_b(connection, sizes, run, branches=1)


def many_rows(connection: Connection, sizes: Sizes, run: int) -> Backlog:
    """W6: the same at scale 50, with five million accounts."""
    return _tpc_b(connection, sizes, run, branches=sizes.branches)


def wide_rows(connection: Connection, sizes: Sizes, run: int) -> Backlog:
    """W7: updates of wide rows with values out of line, which nine of ten leave as they are."""
    rng = random.Random(5000 + run)
    begun = time.perf_counter()
    with pipelined(connection) as execute:
        for number in range(sizes.transactions):
            changed: LiteralString = "state = state + 1" if number % _LARGE_EVERY else "ruling = reverse(ruling)"
            execute("UPDATE court_file SET " + changed + " WHERE id = %s", (rng.randrange(1, sizes.files + 1),))
    return Backlog(sizes.transactions, sizes.transactions, time.perf_counter() - begun)


def keyless_rows(connection: Connection, sizes: Sizes, run: int) -> Backlog:
    """W8: a table without a key: a hundred rows come, one of them is corrected and one struck, each by itself."""
    begun = time.perf_counter()
    hundreds = sizes.transactions // _TRANSACTIONS_A_HUNDRED // 10
    with pipelined(connection) as execute:
        for number in range(hundreds):
            first = (run * hundreds + number) * 100
            execute(_READ, (first, first + 99))
            execute("UPDATE reading SET value = value + 1 WHERE id = %s", (first,))
            execute("DELETE FROM reading WHERE id = %s", (first + 1,))
    return Backlog(_TRANSACTIONS_A_HUNDRED * hundreds, 102 * hundreds, time.perf_counter() - begun)


def _tpc_b(connection: Connection, sizes: Sizes, run: int, *, branches: int) -> Backlog:
    rng = random.Random(3000 + run)
    begun = time.perf_counter()
    with pipelined(connection) as execute:
        for _ in range(sizes.transactions):
            aid = rng.randrange(1, branches * _ACCOUNTS + 1)
            tid = rng.randrange(1, branches * _TELLERS + 1)
            bid = rng.randrange(1, branches + 1)
            delta = rng.randrange(-5000, 5001)
            execute("BEGIN", ())
            execute("UPDATE account SET balance = balance + %s WHERE aid = %s", (delta, aid))
            execute("UPDATE teller SET balance = balance + %s WHERE tid = %s", (delta, tid))
            execute("UPDATE branch SET balance = balance + %s WHERE bid = %s", (delta, bid))
            execute(_HISTORY, (tid, bid, aid, delta))
            execute("COMMIT", ())
    return Backlog(sizes.transactions, 4 * sizes.transactions, time.perf_counter() - begun)


def _fill_bank(connection: Connection, branches: int) -> None:
    for statement in _FILL_BANK:
        connection.execute(
            sql.SQL(statement).format(
                branches=sql.Literal(branches), tellers=sql.Literal(_TELLERS), accounts=sql.Literal(_ACCOUNTS)
            )
        )


def _fill_files(connection: Connection, sizes: Sizes) -> None:
    connection.execute("TRUNCATE court_file")
    connection.execute(sql.SQL(_FILL_FILES).format(files=sql.Literal(sizes.files), pieces=sql.Literal(_PIECES)))


def _empty_readings(connection: Connection, _: Sizes) -> None:
    connection.execute("TRUNCATE reading")


FILLS: dict[str, Callable[[Connection, Sizes], None]] = {
    "w5": lambda connection, _: _fill_bank(connection, 1),
    "w6": lambda connection, sizes: _fill_bank(connection, sizes.branches),
    "w7": _fill_files,
    "w8": _empty_readings,
}
"""What is done at the source, and carried, before the clock starts."""

MORE_BACKLOGS: dict[str, Callable[[Connection, Sizes, int], Backlog]] = {
    "w5": hot_rows,
    "w6": many_rows,
    "w7": wide_rows,
    "w8": keyless_rows,
}
