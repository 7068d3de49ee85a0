"""Compares the replica with what home says of its rows, where that stands in the stream.

The messages of a verification are rows of ``embassy.verify_message``. They are looked at once the batch that brings them
is applied, in the transaction that it is applied in: so what is compared is the replica at one place of the stream,
and the result is committed with that place. What transactions touch while a table is compared is kept in mind
(`consumers.touched_rows`); where no verification runs, nothing is.

A verification never stops a stream. What it cannot do it says: the table remains undecided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import structlog

from consumers.comparison import Difference, TableTally, bag_differences, differences
from consumers.ddl import holds_ddl
from consumers.text_rows import segment_rows
from consumers.touched_keys import RowsOf, told_objects, touches
from consumers.touched_rows import InFlight, TouchedRows
from embassy.model.batch import Batch, Operation
from embassy.model.errors import IntegrityError
from embassy.model.large_objects import TABLES, in_doubt
from embassy.model.own_tables import VERIFY_MESSAGES
from embassy.model.verification import (
    DIGEST_BYTES,
    Chunk,
    Key,
    Message,
    RunBegin,
    RunEnd,
    TableBegin,
    TableEnd,
    TableName,
    decode,
)
from embassy.pg import verify_store
from embassy.pg.apply_session import ApplySession
from embassy.pg.replica_rows import ReplicaRows, Unreadable, aside
from embassy.pg.verify_store import Finding, TableResult

_SILENCE_SECONDS = 3600.0
"""A table without a key may take so long to be read."""


class Gauges(Protocol):
    """What is told of verifications."""

    def verified(self, rows: Mapping[str, int], succeeded_at: float | None) -> None:
        """How many rows of all tables were found how, and when everything was last found alike."""


@dataclass
class _Open:
    """A table that is being compared."""

    begin: TableBegin
    rows: ReplicaRows | None
    """None: it cannot be read."""
    touched: TouchedRows = field(default_factory=TouchedRows)
    tally: TableTally = field(default_factory=TableTally)
    unreadable: str = ""
    heard_at: float = 0.0
    """When something was said of it last."""


class Verifier:
    """Follows one stream's verifications."""

    def __init__(
        self,
        session: ApplySession,
        *,
        stream: bytes,
        gauges: Gauges,
        clock: Callable[[], float] = time.monotonic,
        silence_seconds: float = _SILENCE_SECONDS,
    ) -> None:
        """Follow whatever begins from now on.

        Args:
            session: the replica's.
            stream: whose replica it is.
            gauges: told what was found.
            clock: monotonic.
            silence_seconds: how long a verification may say nothing before it is taken for stopped.
        """
        self._session = session
        self._clock = clock
        self._silence_seconds = silence_seconds
        self._stream = stream
        self._gauges = gauges
        self._tables: dict[tuple[UUID, TableName], _Open] = {}
        self._log = structlog.get_logger(component="consumer")
        self._tell()

    def looks_at(self, batch: Batch) -> bool:
        """Whether `applied` will read the replica for it."""
        return bool(self._tables) or any(
            (relation.schema, relation.name) == VERIFY_MESSAGES for relation in batch.relations
        )

    def applied(self, batch: Batch) -> None:
        """Look at a batch that has been applied and is not committed.

        Raises:
            TransientError: the session ended.
        """
        if not self.looks_at(batch):
            return
        messages = self._messages(batch)
        for run, message in messages:
            if isinstance(message, TableBegin):
                self._open(run, message)
        self._touch(batch)
        for run, message in messages:
            if isinstance(message, Chunk):
                self._compare(run, message)
            elif isinstance(message, TableEnd):
                self._close(run, message)
            elif isinstance(message, RunBegin):
                with self._noting():
                    verify_store.begin_run(self._session.connection, self._stream, run, whole=message.whole)
            elif isinstance(message, RunEnd):
                self._tables = {place: table for place, table in self._tables.items() if place[0] != run}
                with self._noting():
                    verify_store.end_run(self._session.connection, self._stream, run, tables=message.tables)
                    self._tell()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            with aside(self._session):
                yield
        except Unreadable as reason:
            self._log.warning(
                "what a verification has found cannot be written",
                reason=str(reason),
                hint="embassy provision apply",
            )

    def _tell(self) -> None:
        self._gauges.verified(*verify_store.summary(self._session.connection, self._stream))

    def _messages(self, batch: Batch) -> list[tuple[UUID, Message]]:
        found = []
        for segment in batch.segments:
            relation = batch.relations[segment.relation]
            if (relation.schema, relation.name) != VERIFY_MESSAGES or segment.operation is not Operation.INSERT:
                continue
            names = [relation.columns[position].name for position in segment.columns]
            for row in segment_rows(segment):
                values = {name: (value or b"").decode() for name, value in zip(names, row, strict=True)}
                try:
                    run = UUID(values["run"])
                    found.append((int(values["ordinal"]), run, decode(values["body"])))
                except (ValueError, IntegrityError) as error:  # a table without all its chunks is undecided
                    self._log.warning("a verification is not understood", reason=str(error))
        return [(run, message) for _, run, message in sorted(found, key=lambda told: (told[1], told[0]))]

    def _open(self, run: UUID, begin: TableBegin) -> None:
        table = self._tables[run, begin.table] = _Open(begin, None, heard_at=self._clock())
        try:
            table.rows = ReplicaRows(self._session, begin)
        except Unreadable as reason:
            table.unreadable = str(reason)

    def _touch(self, batch: Batch) -> None:
        silent_since = self._clock() - self._silence_seconds
        for place in [place for place, table in self._tables.items() if table.heard_at < silent_since]:
            self._log.warning("a verification has stopped at home", run=str(place[0]), table=str(place[1]))
            del self._tables[place]
        if not self._tables:
            return
        alters = holds_ddl(batch)
        for table in self._tables.values():
            begin = table.begin
            of_objects = begin.table in TABLES
            for touch in (
                told_objects(batch, begin.table)
                if of_objects
                else touches(batch, RowsOf(begin.table, begin.columns, begin.key))
            ):
                table.touched.touch(touch.xid, touch.keys)
                if touch.everything:
                    table.touched.touch_everything(touch.xid, touch.everything)
            for transaction in batch.transactions if alters and not of_objects else ():
                table.touched.touch_everything(transaction.xid, "tables were altered meanwhile")

    def _compare(self, run: UUID, chunk: Chunk) -> None:
        table = self._tables.get((run, chunk.table))
        if table is None or table.rows is None:
            return
        table.heard_at = self._clock()
        in_flight = table.touched.in_flight(chunk.snapshot, chunk.doubtful)
        table.touched.forget(chunk.snapshot)
        try:
            if table.begin.key:
                differing, present = self._by_key(table.rows, chunk, quick=not in_flight.everything)
            else:
                differing, present = self._by_digest(table.rows, chunk)
        except Unreadable as reason:
            table.rows, table.unreadable = None, str(reason)
            return
        if chunk.table in TABLES:
            doubts = in_flight.keys.union(chunk.behind)
            in_flight = InFlight(in_flight.everything, in_doubt({*present, *differing}, doubts))
        table.tally.told(chunk.number, chunk.rows, differing, in_flight, present, listed=chunk.listed)

    def _by_key(self, rows: ReplicaRows, chunk: Chunk, *, quick: bool) -> tuple[dict[Key, Difference], list[Key]]:
        home = dict(zip(chunk.keys, chunk.digests, strict=True))
        if chunk.listed:
            return differences(home, rows.listed(chunk.keys)), list(chunk.keys)
        if not quick or rows.summed(chunk.after, chunk.until) == (chunk.rows, chunk.sum):
            return {}, list(chunk.keys)
        ours = rows.between(chunk.after, chunk.until)
        return differences(home, ours), list(home.keys() | ours.keys())

    def _by_digest(self, rows: ReplicaRows, chunk: Chunk) -> tuple[dict[Key, Difference], list[Key]]:
        there = chunk.digests
        if rows.bag_summed(chunk.first_byte) == (chunk.rows, chunk.sum):
            return {}, [(digest.hex(),) for digest in there]
        ours = [digest[:DIGEST_BYTES] for digest in rows.bag(chunk.first_byte)]
        return bag_differences(there, ours), [(digest.hex(),) for digest in {*there, *ours}]

    def _close(self, run: UUID, end: TableEnd) -> None:
        table = self._tables.pop((run, end.table), None)
        undecided = end.skipped
        tally = TableTally()
        if table is not None and not end.skipped:
            tally = table.tally
            undecided = table.unreadable or tally.undecided
        elif not undecided:
            undecided = "the consumer was started anew meanwhile"
        if not undecided and len(tally.chunks) != end.chunks:
            undecided = f"{end.chunks - len(tally.chunks)} of {end.chunks} chunks are missing"
        result = TableResult(
            end.table,
            tally.rows,
            tally.count(Difference.MISMATCHED),
            tally.count(Difference.MISSING),
            tally.count(Difference.EXTRA),
            tally.pending,
            undecided,
        )
        key = () if table is None else table.begin.key
        findings = [Finding(what.value, key, found) for found, what in sorted(tally.found.items())]
        with self._noting():
            verify_store.store_table(
                self._session.connection, self._stream, run, result, findings, sampled=end.sampled
            )
            self._tell()
        self._log.info(
            "a table was compared with home",
            table=str(end.table),
            rows=result.rows,
            mismatched=result.mismatched,
            missing=result.missing,
            extra=result.extra,
            in_flight=result.in_flight,
            **({"undecided": undecided} if undecided else {}),
        )
