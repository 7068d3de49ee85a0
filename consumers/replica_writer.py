"""Batches into target transactions, and the stream's progress with them.

Many source transactions may share a target transaction: what has come already is applied together, bounded by size and
time. The parts of a large transaction stay in one that is open until the last part. The progress row moves by
compare-and-set in the transaction that applies what it speaks of; so whether an answer to COMMIT arrives or not, the
row tells. For the same reason no commit waits for the replica's disk but one at which applying stops:
docs/adr/0016-the-replica-does-not-wait-for-its-disk.md
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import psycopg

from consumers.applier import Applier
from consumers.ddl import holds_ddl
from consumers.inbox import BatchOpened, KeyTaken
from consumers.verifier import Verifier
from embassy.model.batch import Batch
from embassy.model.lsn import Lsn
from embassy.model.own_tables import HEARTBEAT
from embassy.model.record import Head
from embassy.pg import progress_store
from embassy.pg.apply_session import ApplySession, Call, Query, StatementFailed
from embassy.pg.progress_store import Progress
from embassy.runtime import failpoints
from embassy.runtime.failpoints import failpoint

_COMMIT = Call(Query("COMMIT"))
_ROLLBACK = Call(Query("ROLLBACK"))
_DURABLY = Call(Query("SET LOCAL synchronous_commit = on"))


class Gauges(Protocol):
    """What the writer tells of itself, once a target transaction."""

    def applied(self, transactions: int, changes: int, resume_lsn: Lsn, committed_at: int) -> None:
        """Committed in the replica; ``committed_at`` is the newest source time, microseconds since 1970, 0 if unknown."""


class Bounds(NamedTuple):
    """When a target transaction is committed although more is here."""

    bytes: int = 16 << 20
    chunk_bytes: int = 1 << 20
    """Of one that ends with a chunk of a copy: a kill is not to cost more than about a chunk."""
    seconds: float = 0.5
    batches: int = 50
    """Each is a subtransaction; above 64 of them readers' snapshots become slow."""


class ReplicaWriter:
    """Writes one stream's events to its replica."""

    def __init__(
        self,
        session: ApplySession,
        applier: Applier,
        *,
        stream: bytes,
        progress: Progress,
        gauges: Gauges,
        clock: Callable[[], float],
        bounds: Bounds | None = None,
        control_version: int = 0,
        verifier: Verifier | None = None,
    ) -> None:
        """Begin where the replica stands.

        Args:
            session: the replica's.
            applier: writes rows through it.
            stream: whose progress moves.
            progress: as it was read.
            gauges: told of what is committed.
            clock: monotonic.
            bounds: when to commit although more is here.
            control_version: of the `embassy.control` row that was read; nothing is committed under another.
            verifier: compares the replica where home tells of its rows; None: nobody does.
        """
        self.progress = progress
        """What is committed."""
        self._session = session
        self._applier = applier
        self._stream = stream
        self._gauges = gauges
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._control_version = control_version
        self._verifier = verifier
        self._next = progress
        self._beat: Batch | None = None
        self._open = False
        self.parts_open = False
        """Whether a transaction that has not come whole yet is open."""
        self._reset()

    @property
    def head(self) -> Head:
        """After the last whole batch that was applied, committed or not."""
        return self._next.head

    def take(self, event: KeyTaken | BatchOpened, done: int = 0) -> None:
        """Apply an event; what is whole may stay uncommitted until `commit`.

        Args:
            event: what the inbox gave.
            done: how many of a batch's transactions are in the replica already.

        Raises:
            IntegrityError: it cannot be applied, or something else has moved the progress row.
            ControlMoved: something new was said about applying; nothing since the last commit counts.
            TransientError: the session ended.
        """
        if isinstance(event, KeyTaken):
            self._take_key(event)
        else:
            self._take_batch(event, done)

    def commit(self) -> bool:
        """Commit what is whole, if anything is, and tell; a transaction that is not whole stays open.

        Raises:
            IntegrityError, ControlMoved, TransientError: as for `take`.
        """
        if self.parts_open or self._next is self.progress:
            return False
        self._commit()
        return True

    def stop(self, event: BatchOpened, some: range, word: Callable[[psycopg.Connection[Any]], None]) -> None:
        """Commit what is whole and only some transactions of the next batch, and a word about it, as one; take no more.

        Once it returns, all of it is on the replica's disk, and whatever was committed before.

        Args:
            event: the batch.
            some: which of its transactions.
            word: writes to `embassy.control` in the same transaction.

        Raises:
            IntegrityError, ControlMoved, TransientError: as for `take`.
        """
        if self.parts_open:
            self._roll_back()
        self._apply_beat()
        if some:
            self._begin()
            transactions = event.batch.transactions
            changes = [transaction.changes for transaction in transactions]
            first, last = sum(changes[: some.start]), sum(changes[: some.stop])
            self._applier.apply_exactly(event.batch, range(first, last))
            self._changes += last - first
            self._transactions += len(some)
            self._next = self._next._replace(committed_at=transactions[some.stop - 1].committed_at)
        self._commit(word)

    def _commit(self, word: Callable[[psycopg.Connection[Any]], None] | None = None) -> None:
        session, before = self._session, self.progress.head
        if self._beat is not None and self._commit_with_beat(self._beat):
            self._committed()
            return
        if not self._open:
            self._applier.begin()
        if word is None:
            failpoint(failpoints.CONSUMER_BEFORE_COMMIT)
            progress_store.advance(session, self._stream, before, self._next, self._control_version, commit=True)
        else:
            progress_store.advance(session, self._stream, before, self._next, self._control_version, commit=False)
            word(session.connection)
            failpoint(failpoints.CONSUMER_BEFORE_COMMIT)
            session.run([_DURABLY, _COMMIT])
        self._committed()

    def _commit_with_beat(self, beat: Batch) -> bool:
        """Apply a beat and commit it, all in one exchange; False if it must be applied as any other batch, and is now."""
        calls = self._applier.at_once(beat)
        if calls is not None:
            failpoint(failpoints.CONSUMER_BEFORE_COMMIT)
            with suppress(StatementFailed):
                progress_store.advance(
                    self._session,
                    self._stream,
                    self.progress.head,
                    self._next,
                    self._control_version,
                    commit=True,
                    ahead=calls,
                )
                return True
        self._apply_beat()
        return False

    def _apply_beat(self) -> None:
        """Apply the beat that was taken and has waited for company, if there is one."""
        beat, self._beat = self._beat, None
        if beat is not None:
            self._begin()
            self._applier.apply(beat)

    def _committed(self) -> None:
        failpoint(failpoints.CONSUMER_AFTER_COMMIT)
        self.progress = self._next
        transactions, changes = self._transactions, self._changes
        self._reset()
        self._gauges.applied(
            transactions, changes, self.progress.head.resume_lsn, self.progress.committed_at if transactions else 0
        )

    def _take_key(self, event: KeyTaken) -> None:
        if event.rolls_back:
            self._roll_back()
        self._next = Progress(event.head, event.key_record, event.next_offset, self._next.committed_at)

    def _take_batch(self, event: BatchOpened, done: int) -> None:
        batch = event.batch
        if (not batch.complete or holds_ddl(batch)) and not self.parts_open:
            self.commit()  # only the large transaction may be rolled back with its parts, or what goes with statements
        beats = not done and not self._open and self._beat is None and self._is_beat(batch)
        if not beats:
            self._apply_beat()
            self._begin()
        self.parts_open = not batch.complete
        failpoint(failpoints.CONSUMER_BEFORE_APPLY)
        changes = [transaction.changes for transaction in batch.transactions]
        if beats:
            self._beat = batch  # if nothing comes with it, it travels with the commit
            self._begun_at = self._clock()
        elif done:
            self._applier.apply_exactly(batch, range(sum(changes[:done]), sum(changes)))
        else:
            self._applier.apply(batch)
        if self._verifier is not None and not beats:
            self._verifier.applied(batch)
        failpoint(failpoints.CONSUMER_AFTER_APPLY)
        self._changes += sum(changes[done:])
        if self.parts_open:
            failpoint(failpoints.CONSUMER_BETWEEN_PARTS)
            return
        self._transactions += len(changes) - done
        committed_at = batch.transactions[-1].committed_at if batch.transactions else self._next.committed_at
        self._next = Progress(event.head, self._next.key_record, event.next_offset, committed_at)
        self._batches += 1
        self._bytes += event.encoded_bytes
        if (
            self._bytes >= (self._bounds.bytes if batch.chunk is None else self._bounds.chunk_bytes)
            or self._batches >= self._bounds.batches
            or self._clock() - self._begun_at >= self._bounds.seconds
            or holds_ddl(batch)
        ):
            self.commit()

    def _is_beat(self, batch: Batch) -> bool:
        """Whether all of a batch is a beat, of which nothing has to be looked at."""
        return (
            batch.complete
            and [(relation.schema, relation.name) for relation in batch.relations] == [HEARTBEAT]
            and not (self._verifier is not None and self._verifier.looks_at(batch))
        )

    def _begin(self) -> None:
        if not self._open:
            self._applier.begin()
            self._open = True
            self._begun_at = self._clock()

    def _roll_back(self) -> None:
        self._session.run([_ROLLBACK])
        self.parts_open = False
        self._reset()

    def _reset(self) -> None:
        self._open = False
        self._beat = None
        self._begun_at = 0.0
        self._bytes = self._batches = self._transactions = self._changes = 0
