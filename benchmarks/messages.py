"""The workloads as pgoutput would send them, made without a server, for timing the stages alone.

Row for row of the shape of `benchmarks/registry.sql`; values differ as they do there, so that compression is not
flattered.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from embassy.model.lsn import Lsn
from embassy.model.relation import ReplicaIdentity
from producers.pgoutput_decoder import Begin, Commit, decode_begin, decode_commit
from tests.harness import pgoutput

_PERSON, _PROPERTY, _LOG = 16_401, 16_402, 16_403
_TABLES = {
    _PERSON: pgoutput.table(
        "person", "personal_code given_name surname born sex residence documents balance updated_at photo_hash"
    ),
    _PROPERTY: pgoutput.table("property", "id cadastral_code owner area geom_wkt attrs registered_at"),
    _LOG: pgoutput.table("log", "at actor action detail", identity=ReplicaIdentity.FULL),
}
_TRANSACTION_BYTES = 512


class Transaction(NamedTuple):
    """One source transaction."""

    begin: Begin
    commit: Commit
    messages: list[bytes]


class Workload(NamedTuple):
    """Transactions of one kind."""

    name: str
    about: str
    transactions: Callable[[int], list[Transaction]]
    """Called with about how many changes there are to be."""
    alone: bool = False
    """Each transaction ships in a batch of its own, as when the stream is level."""


def relations() -> list[bytes]:
    """What pgoutput says of the tables before their first row."""
    return [pgoutput.relation(oid, table) for oid, table in _TABLES.items()]


def _numbered(transactions: Iterator[list[bytes]]) -> list[Transaction]:
    made = []
    for number, messages in enumerate(transactions, 1):
        lsn = Lsn(number * _TRANSACTION_BYTES)
        begin = decode_begin(pgoutput.begin(lsn, xid=number))
        commit = decode_commit(pgoutput.commit(lsn, Lsn(lsn + 48)))
        made.append(Transaction(begin, commit, messages))
    return made


def _property(number: int, rng: random.Random, code: str) -> list[bytes]:
    x, y = 600_000 + rng.randrange(5000), 6_500_000 + rng.randrange(7000)
    corners = ",".join(f"{x + right} {y + up}" for right, up in ((0, 0), (40, 0), (40, 60), (0, 60), (0, 0)))
    attrs = (
        f'{{"ref": "{rng.getrandbits(128):032x}", "use": "forest", "floors": {number % 9}, "encumbered": false}}'
    )
    fields = (
        str(number), f"{code}:{number:09d}", str(30_000_000_001 + rng.randrange(100_000)),
        f"{rng.randrange(10**7) / 100:.2f}", f"POLYGON(({corners}))", attrs,
        f"2025-01-{1 + number // 86400 % 28:02d} {number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}+00",
    )  # fmt: skip
    return [field.encode() for field in fields]


def _person(number: int, rng: random.Random) -> list[bytes]:
    documents = (
        f'[{{"no": "AA{number:07d}", "type": "id-card", "valid_to": "2031-05-01"}}, '
        f'{{"no": "KB{number * 3:08d}", "type": "passport", "valid_to": "2030-01-15"}}]'
    )
    fields = (
        str(30_000_000_000 + number), f"Given{number % 4999}", f"Surname{number % 9973}",
        f"19{30 + number % 70}-0{1 + number % 9}-1{number % 9}", "FM"[number % 2],
        f"Street {rng.randrange(5000)}, house {rng.randrange(7000)}, Tartu", documents,
        f"{rng.randrange(10**9) / 100:.2f}", f"2025-01-01 00:{number // 60 % 60:02d}:{number % 60:02d}+00",
        "\\x" + rng.randbytes(32).hex(),
    )  # fmt: skip
    return [field.encode() for field in fields]


def small_transactions(changes: int) -> list[Transaction]:
    """An update, an insert and an update each, and a delete in every fiftieth, as in W1."""
    rng = random.Random(1)

    def make() -> Iterator[list[bytes]]:
        for number in range(1, changes // 3 + 1):
            inserted = 200_000 + number
            messages = [
                pgoutput.update(_PERSON, _person(rng.randrange(1, 100_001), rng)),
                pgoutput.insert(_PROPERTY, _property(inserted, rng, "W1")),
                pgoutput.update(_PROPERTY, _property(rng.randrange(1, 200_001), rng, "S")),
            ]
            if number % 50 == 0:
                messages.append(pgoutput.delete(_PROPERTY, key=[str(inserted - 25).encode(), *[None] * 6]))
            yield messages

    return _numbered(make())


def one_of_inserts(changes: int) -> list[Transaction]:
    """One transaction that inserts, as in W2."""
    rng = random.Random(2)
    return _numbered(iter([[pgoutput.insert(_PROPERTY, _property(n, rng, "W2")) for n in range(changes)]]))


def one_of_updates(changes: int) -> list[Transaction]:
    """One transaction that updates, as in W3."""
    rng = random.Random(3)
    return _numbered(iter([[pgoutput.update(_PROPERTY, _property(n, rng, "S")) for n in range(changes)]]))


def hot_rows(changes: int) -> list[Transaction]:
    """Small transactions that update the same few rows, as at scale 1 of pgbench."""
    rng = random.Random(4)

    def make() -> Iterator[list[bytes]]:
        for number in range(changes // 3):
            yield [
                pgoutput.update(_PERSON, _person(1 + rng.randrange(1000), rng)),
                pgoutput.update(_PROPERTY, _property(1 + number % 10, rng, "S")),
                pgoutput.update(_PROPERTY, _property(1, rng, "S")),
            ]

    return _numbered(make())


def keyless(changes: int) -> list[Transaction]:
    """Inserts and updates of a table without a key: the old row comes whole."""
    rng = random.Random(5)

    def row(number: int) -> list[bytes]:
        detail = f"looked at {rng.getrandbits(64):016x}".encode()
        return [b"2025-01-01 00:00:%02d+00" % (number % 60), b"clerk %d" % (number % 97), b"read", detail]

    def make() -> Iterator[list[bytes]]:
        for number in range(changes // 2):
            old = row(number)
            yield [
                pgoutput.insert(_LOG, old),
                pgoutput.update(_LOG, [*old[:3], b"corrected"], old=old),
            ]

    return _numbered(make())


WORKLOADS = (
    Workload("w1", "small transactions, under backlog", small_transactions),
    Workload("w1-alone", "small transactions, each in a batch of its own", small_transactions, alone=True),
    Workload("w2", "one transaction of inserts", one_of_inserts),
    Workload("w3", "one transaction of updates", one_of_updates),
    Workload("hot", "small transactions on few rows", hot_rows),
    Workload("keyless", "inserts and updates without a key", keyless),
)
