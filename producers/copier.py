"""Copies tables beside a stream: which copies are wanted, who reads them, and what is written down about them.

The clerk, a thread that is there while there is work and has a session of its own, asks the source for unfinished copies,
lets a few readers work at a time, and notes at the source what the topic has acknowledged. A session that breaks is
opened again; a copy that cannot be read is told once and tried again. Neither ends the stream.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, Self

import psycopg
import structlog

from embassy.model.errors import EmbassyError, TransientError
from embassy.model.record import Head
from embassy.pg import table_copies
from embassy.pg.connection import connect
from embassy.pg.lost_session import passing
from embassy.pg.table_copies import WantedCopy
from embassy.runtime import failpoints
from embassy.runtime.failpoints import failpoint
from producers.copy_desk import CopyDesk, InTopic, Noted, Renewed, Unfinished
from producers.table_reader import TableAlteredError, TableReader

_POLL_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_JOIN_SECONDS = 10.0
_ROWS_AT_ONCE = 500
_APPLICATION = "embassy-copy"

_Table = int
"""A table's oid: its name may change while it is copied, and two readers at once would be at odds about it."""
_Round = tuple[int, int]
"""A copy's number, and which of its beginnings."""


class Gauges(Protocol):
    """What the copies tell of themselves."""

    def copied(self, table: str, rows: int) -> None:
        """So many more rows of a table are in the topic."""


class CopyTuning(NamedTuple):
    """How much at once."""

    tables: int
    chunk_bytes: int


class Copier:
    """Works while entered."""

    def __init__(
        self,
        name: str,
        *,
        dsn: str,
        desk: CopyDesk,
        tuning: CopyTuning,
        beat: Callable[[psycopg.Connection[Any]], None],
        known: Callable[[psycopg.Connection[Any]], None],
        gauges: Gauges,
    ) -> None:
        """Take a stream.

        Args:
            name: the stream's, for messages.
            dsn: the source.
            desk: where the stream's loop is met.
            tuning: how much at once.
            beat: makes a commit that travels in the stream.
            known: raises if a session is with a database that must not be written to.
            gauges: told of progress.
        """
        self._name = name
        self._dsn = dsn
        self._desk = desk
        self._tuning = tuning
        self._beat = beat
        self._known = known
        self._gauges = gauges
        self._incarnation = b""
        self._look_at = 0.0
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._at_work = False
        self._clerk: threading.Thread | None = None
        self._noted: InTopic | Renewed | None = None
        self._running: dict[_Table, threading.Thread] = {}
        self._read: set[_Round] = set()
        self._rest_until: dict[_Table, float] = {}
        self._told: dict[_Table, str] = {}
        self._log = structlog.get_logger(component="producer", stream=name)

    def adopt(self, before: Head, after: Head) -> None:
        """Go on in the name of the incarnation that has begun, and look what is unfinished.

        Args:
            before: the head that it continues.
            after: the head with its KEY.

        Raises:
            TransientError: the source does not answer.
        """
        with self._connected("copies") as connection:
            self._renew(connection, before, after)
            self._look(connection)

    @contextmanager
    def _connected(self, place: str) -> Iterator[psycopg.Connection[Any]]:
        with passing(place), connect(self._dsn, application_name=_APPLICATION, autocommit=True) as connection:
            self._known(connection)
            yield connection

    def noticed(self, *, wanted: bool) -> None:
        """Set the clerk to work if a copy is wanted; told again and again, by any one thread."""
        if wanted and not self._at_work:
            self._desk.tell(None)

    def __enter__(self) -> Self:
        self._desk.summon = self._summon
        if not self._desk.notes.empty():
            self._summon()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._desk.close()
        self._desk.notes.put(None)  # for a clerk that waits for the next note
        with self._lock:
            clerk = self._clerk
        if clerk is not None:
            clerk.join(timeout=_JOIN_SECONDS)
        for thread in self._running.values():
            thread.join(timeout=_JOIN_SECONDS)

    # ------------------------------------------------------------------ the clerk

    def _summon(self) -> None:
        with self._lock:
            if self._at_work or self._done.is_set():
                return
            self._at_work = True
            self._clerk = threading.Thread(target=self._run, name=f"{self._name}-clerk", daemon=True)
            self._clerk.start()

    def _may_go(self) -> bool:
        """Whether nothing was told meanwhile; whatever is told from then on summons the clerk anew."""
        with self._lock:
            self._at_work = not self._desk.notes.empty()
            return not self._at_work

    def _run(self) -> None:
        failing = False
        while not self._done.is_set():
            if self._noted is None and not self._desk.notes.empty():
                self._noted = self._desk.notes.get()
            try:
                with self._connected("copies") as connection:
                    self._work(connection)
            except EmbassyError as error:
                if not failing:
                    self._log.warning("copies of tables are not written down; trying again", error=str(error))
                failing = True
                self._done.wait(_POLL_SECONDS)
            else:
                failing = False
                if self._may_go():
                    return

    def _work(self, connection: psycopg.Connection[Any]) -> None:
        """Work until there is nothing to do; what was noted and not yet written down, a next session writes."""
        self._look_at = 0.0
        wanted: list[WantedCopy] = []
        while not self._done.is_set():
            if isinstance(self._noted, Renewed):
                self._renew(connection, self._noted.before, self._noted.after)
            elif self._noted is not None:
                self._note(connection, self._noted)
            self._noted = None
            if time.monotonic() >= self._look_at:
                wanted = self._look(connection)
                self._assign(wanted)
                self._look_at = time.monotonic() + _POLL_SECONDS
            if not wanted and not any(thread.is_alive() for thread in self._running.values()):
                try:
                    self._noted = self._desk.notes.get_nowait()
                except queue.Empty:
                    return
                continue
            try:
                self._noted = self._desk.notes.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                self._look_at = 0.0

    def _look(self, connection: psycopg.Connection[Any]) -> list[WantedCopy]:
        row = connection.execute("SELECT pg_catalog.to_regclass('embassy.ddl')::oid::bigint").fetchone()
        self._desk.ddl_oid = row[0].to_bytes(4, "big") if row and row[0] else b""
        table_copies.follow(connection)
        wanted = table_copies.unfinished(connection)
        self._desk.unfinished = _unfinished(wanted)
        self._read &= {(copy.copy, copy.round) for copy in wanted}
        return wanted

    def _renew(self, connection: psycopg.Connection[Any], before: Head, after: Head) -> None:
        table_copies.adopt(connection, after.incarnation, before.incarnation, after.sequence - 1)
        self._incarnation = after.incarnation

    def _note(self, connection: psycopg.Connection[Any], noted: InTopic) -> None:
        _, offer, sequence = noted
        if noted.how is Noted.ACKNOWLEDGED:
            note = offer.note._replace(ahead_sequence=sequence)
            answers = [table_copies.note(connection, self._incarnation, copy, note) for copy in offer.copies]
            failpoint(failpoints.PRODUCER_AFTER_COPY_NOTED)
            self._desk.commits += answers.count(True)
            offer.noted.set()
            self._gauges.copied(str(offer.relation), offer.chunk.rows)
            self._look_at = 0.0 if offer.note.done else self._look_at
            if offer.note.done and answers == [True] and not offer.single_rows:
                self._log.info("a table is copied", table=str(offer.relation), rows=offer.note.rows)
        else:
            answers = [
                table_copies.make_sure(connection, self._incarnation, copy, offer.note) for copy in offer.copies
            ]
        if False in answers:
            self._desk.failure = TransientError(
                "another producer works on this stream's copies", place=str(offer.relation)
            )

    def _assign(self, wanted: list[WantedCopy]) -> None:
        """Give work to readers: one a table, whole copies and ranges first, then all rows that have moved at once."""
        self._running = {table: thread for table, thread in self._running.items() if thread.is_alive()}
        jobs: dict[_Table, list[WantedCopy]] = {}
        for copy in sorted(wanted, key=lambda copy: copy.moved):
            if (copy.copy, copy.round) not in self._read:
                job = jobs.setdefault(copy.oid, [])
                if not job or (copy.moved and job[0].moved and len(job) < _ROWS_AT_ONCE):
                    job.append(copy)
        for table, job in jobs.items():
            if len(self._running) >= self._tuning.tables:
                return
            if table not in self._running and time.monotonic() >= self._rest_until.get(table, 0):
                name = f"copy-{job[0].copy}"
                thread = threading.Thread(target=self._copy, args=(table, job), name=name, daemon=True)
                self._running[table] = thread
                thread.start()

    # ------------------------------------------------------------------ a reader's thread

    def _copy(self, table: _Table, job: list[WantedCopy]) -> None:
        place = f"{job[0].schema}.{job[0].name}"
        try:
            with self._connected(place) as connection:
                if not (job[0].moved or job[0].keys):
                    self._log.info(
                        "a table is being copied", table=place, copy=job[0].copy, rows_before=job[0].rows
                    )
                TableReader(connection, self._desk, job, self._tuning.chunk_bytes, self._beat).run()
            self._read |= {(copy.copy, copy.round) for copy in job}
        except TableAlteredError:
            self._log.info("a table was altered while it is copied", table=place, copy=job[0].copy)
        except EmbassyError as error:
            self._rest_until[table] = time.monotonic() + _RETRY_SECONDS
            said = str(error)
            if not self._desk.closed and self._told.get(table) != said:
                self._told[table] = said
                self._log.warning("a table cannot be copied; trying again", table=place, error=said)


def _unfinished(wanted: list[WantedCopy]) -> Unfinished:
    found: dict[int, frozenset[tuple[str, ...]] | None] = {}
    for copy in wanted:
        known = found.get(copy.oid, frozenset())
        if copy.from_key and copy.from_key == copy.to_key and known is not None:
            found[copy.oid] = known | {tuple(sorted(copy.from_key))}
        else:
            found[copy.oid] = None
    return found
