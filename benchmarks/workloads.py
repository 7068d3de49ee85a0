"""What the source does while it is measured: W1 to W3 as backlogs; W4 is in `benchmarks.latency`.

Everything but times is a function of the run's number: two runs with one number, on tables filled alike, write the same.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]
Statement = tuple[LiteralString, tuple[object, ...]]

_DELETE_EVERY = 50
_PIPELINED = 1000
_FIRST_PERSON = 30_000_000_000


class Sizes(NamedTuple):
    """How large everything is."""

    persons: int = 100_000
    properties: int = 200_000
    transactions: int = 20_000
    inserts: int = 500_000
    branches: int = 50
    files: int = 20_000
    updates: int = 200_000
    warm_up_seconds: float = 10
    latency_seconds: float = 30
    latency_tps: int = 100

    def scaled(self, share: float) -> Sizes:
        """A share of the rows and transactions; W4 is as long as before."""
        kept = ("warm_up_seconds", "latency_seconds", "latency_tps")
        return Sizes(
            **{name: of if name in kept else max(1, int(of * share)) for name, of in self._asdict().items()}
        )


FULL = Sizes()
QUICK = Sizes(
    persons=2000,
    properties=2000,
    transactions=400,
    inserts=5000,
    branches=2,
    files=200,
    updates=2000,
    warm_up_seconds=0.5,
    latency_seconds=1.5,
)


class Backlog(NamedTuple):
    """What a workload has written."""

    transactions: int
    changes: int
    seconds: float


# Expressions over a number i; a prefix keeps the codes of different runs apart.
_PROPERTIES = """
    INSERT INTO property (cadastral_code, owner, area, geom_wkt, attrs, registered_at)
    SELECT {prefix} || ':' || lpad(i::text, 9, '0'),
           (30000000000 + (i::bigint * 7919) % {persons} + 1)::text,
           ((i * 37) % 1000000) / 100.0,
           format('POLYGON((%s %s,%s %s,%s %s,%s %s,%s %s))',
                  600000 + i % 5000, 6500000 + i % 7000, 600040 + i % 5000, 6500000 + i % 7000,
                  600040 + i % 5000, 6500060 + i % 7000, 600000 + i % 5000, 6500060 + i % 7000,
                  600000 + i % 5000, 6500000 + i % 7000),
           jsonb_build_object('use', (ARRAY['residential', 'forest', 'arable', 'commercial'])[1 + i % 4],
                              'floors', i % 9, 'encumbered', i % 17 = 0, 'ref', md5(i::text)),
           timestamptz '2020-01-01 00:00:00+00' + i * interval '1 second'
    FROM generate_series(1, {rows}) AS g(i)"""
_PERSONS = """
    INSERT INTO person
    SELECT (30000000000 + i)::text, 'Given' || (i % 4999), 'Surname' || (i % 9973),
           date '1930-01-01' + (i % 32000), CASE WHEN i % 2 = 0 THEN 'F' ELSE 'M' END,
           'Street ' || (i % 3001) || ', house ' || (i % 251) || ', Tallinn',
           jsonb_build_array(
             jsonb_build_object('type', 'id-card', 'no', 'AA' || lpad(i::text, 7, '0'), 'valid_to', '2031-05-01'),
             jsonb_build_object('type', 'passport', 'no', 'KB' || lpad((i * 3)::text, 8, '0'), 'valid_to', '2030-01-15')),
           (i % 1000000) / 7.0, timestamptz '2024-01-01 00:00:00+00' + i * interval '1 second', sha256(int4send(i))
    FROM generate_series(1, {rows}) AS g(i)"""

_MOVE: LiteralString = """
    UPDATE person SET residence = %s, balance = %s::numeric, updated_at = %s::timestamptz WHERE personal_code = %s"""
_REGISTER: LiteralString = """
    INSERT INTO property (cadastral_code, owner, area, geom_wkt, attrs, registered_at)
    VALUES (%s, %s, %s::numeric, %s, %s::jsonb, %s::timestamptz)"""
_SELL: LiteralString = "UPDATE property SET owner = %s WHERE id = %s::bigint"
_STRIKE: LiteralString = "DELETE FROM property WHERE cadastral_code = %s"


def fill(connection: Connection, sizes: Sizes) -> None:
    """Empty the tables and fill them anew; needs autocommit."""
    with connection.transaction():
        connection.execute("TRUNCATE person, property, mark RESTART IDENTITY")
        connection.execute(sql.SQL(_PERSONS).format(rows=sql.Literal(sizes.persons)))
        connection.execute(_insert_properties("S", sizes, sizes.properties))


@contextmanager
def pipelined(connection: Connection) -> Iterator[Callable[[LiteralString, tuple[object, ...]], None]]:
    """What executes statements inside does not wait for each answer; needs autocommit."""
    with connection.pipeline() as pipeline:
        executed = 0

        def execute(statement: LiteralString, values: tuple[object, ...]) -> None:
            nonlocal executed
            connection.execute(statement, values, prepare=True)
            executed += 1
            if executed % _PIPELINED == 0:
                pipeline.sync()

        yield execute


def small_transactions(connection: Connection, sizes: Sizes, run: int) -> Backlog:
    """W1: transactions of three changes, every fiftieth of four. The client pipelines; each commits by itself."""
    rng = random.Random(1000 + run)
    changes = 0
    begun = time.perf_counter()
    with pipelined(connection) as execute:
        for number in range(1, sizes.transactions + 1):
            execute("BEGIN", ())
            for statement, values in statements(rng, f"W1.{run}", number, sizes):
                execute(statement, values)
                changes += 1
            execute("COMMIT", ())
    return Backlog(sizes.transactions, changes, time.perf_counter() - begun)


def many_inserts(connection: Connection, sizes: Sizes, run: int) -> Backlog:
    """W2: one transaction that inserts."""
    begun = time.perf_counter()
    cursor = connection.execute(_insert_properties(f"W2.{run}", sizes, sizes.inserts))
    return Backlog(1, cursor.rowcount, time.perf_counter() - begun)


def many_updates(connection: Connection, sizes: Sizes, run: int) -> Backlog:
    """W3: one transaction that updates."""
    begun = time.perf_counter()
    cursor = connection.execute(
        "UPDATE property SET owner = (30000000000 + (id * 104729 + %s) %% 100000 + 1)::text,"
        " attrs = attrs || jsonb_build_object('rev', %s::int) WHERE id <= %s",
        (run, run, sizes.updates),
    )
    return Backlog(1, cursor.rowcount, time.perf_counter() - begun)


BACKLOGS: dict[str, Callable[[Connection, Sizes, int], Backlog]] = {
    "w1": small_transactions,
    "w2": many_inserts,
    "w3": many_updates,
}


def statements(rng: random.Random, tag: str, number: int, sizes: Sizes) -> Iterator[Statement]:
    """The changes of one small transaction; numbers begin at 1."""
    person = str(_FIRST_PERSON + rng.randrange(1, sizes.persons + 1))
    owner = str(_FIRST_PERSON + rng.randrange(1, sizes.persons + 1))
    x, y = 600_000 + rng.randrange(5000), 6_500_000 + rng.randrange(7000)
    corners = ",".join(f"{x + right} {y + up}" for right, up in ((0, 0), (40, 0), (40, 60), (0, 60), (0, 0)))
    day, hour, minute, second = number // 86400 % 28, number // 3600 % 24, number // 60 % 60, number % 60
    at = f"2025-01-{1 + day:02d} {hour:02d}:{minute:02d}:{second:02d}+00"
    attrs = (
        f'{{"use": "forest", "floors": {number % 9}, "encumbered": false, "ref": "{rng.getrandbits(128):032x}"}}'
    )
    yield _MOVE, (f"Street {x}, house {y}, Tartu", f"{rng.randrange(10**9) / 100:.2f}", at, person)
    area = f"{rng.randrange(10**7) / 100:.2f}"
    yield _REGISTER, (f"{tag}:{number:09d}", owner, area, f"POLYGON(({corners}))", attrs, at)
    yield _SELL, (owner, rng.randrange(1, sizes.properties + 1))
    if number % _DELETE_EVERY == 0:
        yield _STRIKE, (f"{tag}:{number - _DELETE_EVERY // 2:09d}",)


def _insert_properties(prefix: str, sizes: Sizes, rows: int) -> sql.Composed:
    return sql.SQL(_PROPERTIES).format(
        prefix=sql.Literal(prefix), persons=sql.Literal(sizes.persons), rows=sql.Literal(rows)
    )
