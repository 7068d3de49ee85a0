"""Home's part of a verification: tells the stream what rows a table has, chunk by chunk, while the load goes on.

A chunk is read in a snapshot of its own, in one short transaction that only reads, and told in the next. Whoever
changed rows of it in between makes them impossible to judge; so the chunk is read again, and the rows that are no
longer what they were are told once more, until none is, or often enough.

Nothing is waited for but, when a table begins, those who were writing to it just then: a few seconds at most.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from embassy.model import large_objects as compared_objects
from embassy.model.verification import Message, RunBegin, RunEnd, TableBegin, TableEnd, TableName
from embassy.pg import large_objects, verify_source
from embassy.pg.digested_table import digested_table
from producers.object_teller import ObjectTeller
from producers.row_teller import RowTeller

_WRITERS_POLL_SECONDS = 0.02


class Progress(Protocol):
    """Who is told how far it is."""

    def table(self, table: TableName, rows: int, done: int, of: int) -> None:
        """Rows of a table have been told; it is the ``done``-th of so many."""


class Wish(NamedTuple):
    """What is to be compared."""

    tables: Sequence[TableName]
    whole: bool
    """Whether these are all published tables."""
    share: float = 1.0
    """Of each table's chunks."""
    patience_seconds: float = 5.0
    """How long those who write as a table begins are waited for."""
    by_digest: bool = False
    """Whether rows whose key is ordered by a collation are told apart by their digests, as those without a key: the
    replica may order such keys otherwise."""


class Told(NamedTuple):
    """What was told of one table."""

    table: TableName
    rows: int
    skipped: str


class Verification:
    """One run over the tables of one database."""

    def __init__(
        self,
        connection: Any,
        run: UUID,
        *,
        stream: bytes,
        progress: Progress,
        chance: random.Random,
        clock: Callable[[], float] = time.monotonic,
        chunk_rows: int = 1_000,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._run = run
        self._progress = progress
        self._chance = chance
        self._clock = clock
        self._first_chunk_rows = chunk_rows
        self._ordinal = 0

    def run(self, wish: Wish) -> Iterator[Told]:
        """Tell of each table in turn; the run ends when the last has been taken."""
        self._say(RunBegin(wish.whole and wish.share >= 1))
        for number, table in enumerate(wish.tables, 1):
            yield self._table(table, wish, number)
        self._say(RunEnd(len(wish.tables)))

    def _say(self, message: Message) -> int:
        self._ordinal += 1
        return verify_source.say(self._connection, self._run, self._ordinal, message)

    def _table(self, name: TableName, wish: Wish, number: int) -> Told:
        table = digested_table(self._connection, name)
        if table is None:
            return self._skipped(name, "it is gone")
        copies = verify_source.copies(self._connection, name)
        if copies.unfinished:
            return self._skipped(name, "its rows are being copied")
        if name in compared_objects.TABLES and (reason := large_objects.why_not_compared(self._connection)):
            return self._skipped(name, reason)
        if wish.by_digest and any(column.collation for column in table.key):
            table = table._replace(key=())
        self._say(TableBegin(name, table.columns, table.key_names, tuple(c.collation for c in table.key)))
        told: RowTeller
        if name in compared_objects.TABLES:
            doubtful = self._doubtful(compared_objects.CHANGES, wish.patience_seconds)
            told = ObjectTeller(self._connection, self._say, table, doubtful, self._stream)
        else:
            doubtful = self._doubtful(name, wish.patience_seconds)
            told = RowTeller(self._connection, self._say, table, doubtful)
        rows = 0
        for rows in told.chunks(wish.share, self._chance, self._clock, self._first_chunk_rows):
            self._progress.table(name, rows, number, len(wish.tables))
        again = verify_source.copies(self._connection, name) != copies  # the replica may have been without rows
        why = "its rows were copied meanwhile" if again else ""
        self._say(TableEnd(name, told.number, why, sampled=wish.share < 1 and bool(table.key)))
        return Told(name, rows, why)

    def _skipped(self, name: TableName, why: str) -> Told:
        self._say(TableEnd(name, 0, why))
        return Told(name, 0, why)

    def _doubtful(self, name: TableName, patience_seconds: float) -> tuple[int, ...]:
        """Transactions that may have committed before the table began and do not show yet: they hold their locks."""
        first = verify_source.writers(self._connection, name)
        left = first
        deadline = self._clock() + patience_seconds
        while left and self._clock() < deadline:
            time.sleep(_WRITERS_POLL_SECONDS)
            now = verify_source.writers(self._connection, name)
            left = {transaction: xids for transaction, xids in left.items() if transaction in now}
        return tuple(xid for xids in left.values() for xid in xids)
