"""What of a stream has reached the embassy's log, and whether its replica has all of it.

The chain is followed from the replica's own head to the log's end. The resume LSN of the last record that links tells
what whole transactions are there: a replica with the same one lacks nothing but the beginning of a transaction whose end
never came.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple, Protocol

from embassy.model.chain import Signers
from embassy.model.errors import EmbassyError, IntegrityError, RefusedError, TransientError
from embassy.model.lsn import Lsn
from embassy.model.record import Head, RecordKind, SealedRecord
from embassy.pg.progress_store import Progress
from embassy.wire.head_search import Log, locate, skeletons, with_generation
from failover.waiting import Waiting

_POLL_SECONDS = 0.02
_RETRY_SECONDS = 1.0
PATIENCE_SECONDS = 2.0
"""Longer than a record is under way between two sites."""
_NEARER_SECONDS = 1.0
"""By so much must what is applied come nearer to the present meanwhile, for what still arrives to be a backlog."""
_READ_AT_ONCE = 1000
_UNREADABLE = (TransientError, IntegrityError)
"""What a log is that cannot be read: its cluster does not answer, or somebody there has taken the topic away."""


class Arrived(NamedTuple):
    """What stands in the log behind the replica's head."""

    resume_lsn: Lsn
    """The end of the last whole transaction."""
    records: int
    """That link."""
    transactions_open: int
    """1 if a transaction has begun whose end has not come, else 0."""
    missing: int | None
    """The number of a record that is missing, although later ones are there; None: nothing is."""
    cut: bool
    """The log does not reach back to the replica's head: what came behind that may be gone, and nothing tells of it."""


class LogEnd:
    """Follows one stream's log from a replica's head on, as far as it goes whenever asked."""

    def __init__(self, log: Log, head: Head, next_offset: int, signers: Signers) -> None:
        self._log = log
        self._signers = signers
        self._head = head
        self._first = head
        self._offset = locate(log, head, signers, next_offset)
        self._cut = _is_cut(log, head, self._offset, next_offset)
        self._beyond = False
        self._records = 0
        self._open = False

    def look(self) -> Arrived:
        """Read to the end that the log has now.

        Raises:
            TransientError: the cluster is unreachable.
            IntegrityError: the topic is gone.
        """
        _, high = self._log.bounds()
        for start in range(self._offset, high, _READ_AT_ONCE):
            # One more than are judged: it may have to prove the one before it.
            read = list(skeletons(self._log, start, min(start + _READ_AT_ONCE + 1, high)))
            generations = self._signers.of_run([record for _, record in read])
            for (offset, record), generation in zip(read, generations, strict=True):
                if generation and offset < start + _READ_AT_ONCE:
                    self._judge(record, generation)
        self._offset = max(self._offset, high)
        return Arrived(
            self._head.resume_lsn,
            self._records,
            int(self._open),
            self._head.sequence + 1 if self._beyond else None,
            self._cut and not self._records,
        )

    def _judge(self, record: SealedRecord, generation: int) -> None:
        before = self._head
        linked = before.link(record.header, record.hash, generation)
        if linked is None:
            ahead = record.header.sequence > before.sequence + 1 and generation >= before.generation
            self._beyond = self._beyond or ahead
            return
        self._head, self._beyond = linked, False
        self._records += 1
        if record.header.kind is RecordKind.KEY:
            self._open = False
        else:
            self._open = linked.resume_lsn == before.resume_lsn


def _is_cut(log: Log, head: Head, offset: int, next_offset: int) -> bool:
    """Whether a log has lost the place behind a head, where it is not at the offset that the replica has noted."""
    low, high = log.bounds()
    if low == high:
        return high != next_offset  # else it was read to its end, and then retention passed
    return head.sequence > 0 and offset <= low and not low <= next_offset <= high


class Applying(Protocol):
    """A consumer that applies the stream in this process while its context is entered, if none other does."""

    def failure(self) -> EmbassyError | None:
        """Why it can apply no more; None while it can."""


class Left(NamedTuple):
    """What the replica lacks of what has reached the log."""

    level: bool
    records: int | None
    """None: the log cannot be read, or does not hold the place any more."""
    transactions_open: int
    missing: int | None


class Drained(NamedTuple):
    """How draining ended."""

    records: int
    """That were applied meanwhile."""
    words: str


class _Line(NamedTuple):
    """How far the log reached at one moment."""

    resume_lsn: Lsn
    age: float
    """Of the newest commit applied then, in seconds; from an arbitrary beginning, for comparison only."""
    drawn_at: float


class _Refused(NamedTuple):
    """The log could not be read, and nothing was applied since."""

    sequence: int
    at: float


class Reach:
    """One stream's log and its replica."""

    def __init__(
        self,
        name: str,
        *,
        log: Log,
        signers: Signers,
        progress: Callable[[], Progress],
        applying: Callable[[], AbstractContextManager[Applying]],
        stall_seconds: float,
        accept_undrained: bool,
        clock: Callable[[], float],
        pause: Callable[[float], None],
        tell: Callable[[str], None],
    ) -> None:
        self._name = name
        self._log = log
        self._signers = signers
        self._progress = progress
        self._applying = applying
        self._stall_seconds = stall_seconds
        self._accept_undrained = accept_undrained
        self._clock = clock
        self._pause = pause
        self._tell = tell

    def drain(self) -> Drained:
        """Wait until the replica has every whole transaction that reached the log.

        From a home that is not lost records may come without end: then all that had arrived when this began is there in
        the end. They are told by time from what was under way, which comes within `PATIENCE_SECONDS`, and from a backlog
        that is still carried: what is applied of that comes nearer and nearer to the present.

        A cluster that is lost with its log, or a topic that whoever runs the cluster has deleted, keeps no promotion from
        being made that accepts to leave behind what cannot be applied: it is waited for as long as a stream that stalls.

        Raises:
            RefusedError: it cannot get there, and the plan does not accept that.
            TransientError: the cluster is unreachable, and the plan does not accept that.
            IntegrityError: the topic is gone, and the plan does not accept that; or the replica's own key is in doubt.
        """
        first, refused = self._progress(), None
        head = self._head_of(first)
        waiting = Waiting(self._clock, self._tell)
        while True:
            try:
                return self._drain(first, head)
            except _UNREADABLE as error:
                if not self._accept_undrained:
                    raise self._unread(error) from error
                progress, now = self._progress(), self._clock()
                if refused is None or refused.sequence != progress.head.sequence:
                    refused = _Refused(progress.head.sequence, now)
                elif now - refused.at > self._stall_seconds:
                    return self._stuck(first, progress, f"the embassy's log cannot be read: {error.args[0]}")
                waiting.on(lambda: "waiting for the embassy's log to be there")
                self._pause(_RETRY_SECONDS)

    def _drain(self, first: Progress, head: Head) -> Drained:
        before = first
        end = LogEnd(self._log, head, first.next_offset, self._signers)
        moved_at = self._clock()
        waiting = Waiting(self._clock, self._tell)
        line: _Line | None = None
        with self._applying() as applying:
            while True:
                arrived = end.look()
                progress = self._progress()
                if progress.head.resume_lsn >= arrived.resume_lsn:
                    return self._reached(first, progress, arrived)
                now = self._clock()
                age = now - progress.committed_at / 1e6
                if line is None or age < line.age - _NEARER_SECONDS:
                    line = _Line(arrived.resume_lsn, age, now)
                elif progress.head.resume_lsn >= line.resume_lsn and now > line.drawn_at + PATIENCE_SECONDS:
                    return self._reached(first, progress, arrived, endless=True)
                if progress.head.sequence != before.head.sequence:
                    before, moved_at = progress, self._clock()
                failure = applying.failure()
                if failure is not None:
                    return self._stuck(first, progress, f"the stream cannot be applied on: {failure}")
                if self._clock() - moved_at > self._stall_seconds:
                    return self._stuck(
                        first, progress, f"nothing was applied for {self._stall_seconds:g} s, and records are left"
                    )
                waiting.on(partial(self._words, first, arrived))
                self._pause(_POLL_SECONDS)

    def _words(self, first: Progress, arrived: Arrived) -> str:
        done = self._progress().head.sequence - first.head.sequence
        return f"{done} records are applied so far, of {arrived.records} that were left"

    def left(self, progress: Progress) -> Left:
        """What stands in the log now that a replica at this progress does not have.

        Raises:
            TransientError, IntegrityError: as `drain`.
        """
        head = self._head_of(progress)
        try:
            arrived = LogEnd(self._log, head, progress.next_offset, self._signers).look()
        except _UNREADABLE as error:
            if not self._accept_undrained:
                raise self._unread(error) from error
            return Left(level=False, records=None, transactions_open=0, missing=None)
        level = progress.head.resume_lsn >= arrived.resume_lsn and not arrived.cut
        records = None if arrived.cut else arrived.records
        return Left(level, records, arrived.transactions_open, arrived.missing)

    def _head_of(self, progress: Progress) -> Head:
        return with_generation(progress.head, progress.key_record, self._signers)

    def _reached(self, first: Progress, progress: Progress, arrived: Arrived, *, endless: bool = False) -> Drained:
        if arrived.missing is not None:
            return self._stuck(first, progress, f"record {arrived.missing} is missing, and later ones are there")
        if arrived.cut:
            why = (
                "the embassy's topic no longer holds what the replica has applied, and so perhaps not what came behind "
                "that: it was emptied or made anew"
            )
            return self._stuck(first, progress, why)
        records = progress.head.sequence - first.head.sequence
        words = f"all {records} records that were left are applied" if records else "nothing was left"
        return Drained(records, words + ("; more keeps coming" if endless else ""))

    @staticmethod
    def _unread(error: TransientError | IntegrityError) -> EmbassyError:
        waits = f"{error.hint}; " if isinstance(error, TransientError) else ""
        return type(error)(
            str(error.args[0]),
            place=error.place,
            hint=f"{waits}if the embassy's log is lost for good, a new plan with --accept-undrained promotes without "
            "what only that has",
        )

    def _stuck(self, first: Progress, progress: Progress, why: str) -> Drained:
        if not self._accept_undrained:
            raise RefusedError(
                why,
                place=self._name,
                hint="mend it; or promote without what is left: a new plan with --accept-undrained. Where no consumer "
                "runs, keys.recipient lets this command apply the rest itself",
            )
        return Drained(progress.head.sequence - first.head.sequence, f"{why}; the plan accepts that")
