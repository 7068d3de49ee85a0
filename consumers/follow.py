"""The consumer's loop under one word about the stream: take what has come, apply what may be, commit what is whole."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from typing import Any, NamedTuple

import psycopg

from consumers.admission import Violation
from consumers.gate import Gate, Passage
from consumers.inbox import BatchOpened, Event, Inbox, KeyTaken
from consumers.one_ahead import one_ahead
from consumers.replica_writer import ReplicaWriter
from embassy.model.control import Cut, Point
from embassy.model.errors import EmbassyError
from embassy.pg import control_store
from embassy.pg.progress_store import ControlMoved
from embassy.runtime.stop import IDLE_WAIT_SECONDS, Stop
from embassy.wire.kafka_reader import Fetched, Subscription

_DELAY_STEP_SECONDS = 0.5
_LOOK_SECONDS = 1.0
_IDLE_LOOK_SECONDS = 5.0
_LATE_LOOK_SECONDS = 25.0
"""Before something is applied: it is most often committed at once, and that is a look. So not before each beat of an idle
heart, however slow."""
_MUCH_BYTES = 128 << 10
"""So much at once is a backlog: what is behind it is opened while the replica takes what came before. For less, two
threads that wait for each other take longer than one."""

PROTECTION = "protection"
STOP_AT = "stop-at"
"""Who froze a stream, if it was no person."""


class Ended(NamedTuple):
    """Why the loop has ended by itself."""

    at: Violation | Point
    frozen: bool
    """Whether `embassy.control` says so."""


class _Arrived(NamedTuple):
    event: Event | EmbassyError
    first: bool
    """Whether what came before it may be committed: the first of those that were fetched together, and a failure."""


class Clocks(NamedTuple):
    """Time."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


class Following:
    """Follows one stream under one version of its control row."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        stream: bytes,
        *,
        control_version: int,
        subscription: Subscription,
        inbox: Inbox,
        gate: Gate,
        writer: ReplicaWriter,
        clocks: Clocks,
        freezes: bool,
        authority: Callable[[psycopg.Connection[Any]], None],
        ahead: Executor,
    ) -> None:
        """Take what belongs together.

        Args:
            connection: the replica's.
            stream: whose.
            control_version: under which the gate was opened.
            subscription: where records come from.
            inbox: opens them.
            gate: says what may be applied.
            writer: applies it.
            clocks: time.
            freezes: whether the point at which the gate ends was said in the control row, and so freezes the stream.
            authority: given the session where it is at rest.
            ahead: opens what comes next while the replica is busy.
        """
        self._connection = connection
        self._stream = stream
        self._version = control_version
        self._subscription = subscription
        self._inbox = inbox
        self._gate = gate
        self._writer = writer
        self._clocks = clocks
        self._freezes = freezes
        self._authority = authority
        self._ahead = ahead
        self._looked_at = clocks.monotonic()

    def run(self, stop: Stop, pulse: Callable[[], None]) -> Ended | None:
        """Follow until told to stop, or until the gate ends it.

        Raises:
            ControlMoved: something new was said; what is not committed does not count.
            IntegrityError: a record is missing, cannot be opened or cannot be applied.
            TransientError: the session ended.
        """
        while not stop.is_set():
            pulse()
            fetched = self._subscription.take(IDLE_WAIT_SECONDS)
            arriving = self._arriving(fetched)
            with closing(one_ahead(self._ahead, arriving) if _much(fetched) else arriving) as events:
                for event, first in events:
                    if first:
                        self._rest(_LATE_LOOK_SECONDS)
                    if isinstance(event, EmbassyError):
                        raise event
                    ended = self._take(event, stop, pulse)
                    if ended is not None:
                        return ended
                    pulse()
                    if stop.is_set():
                        break
            self._rest()
        return None

    def _arriving(self, fetched: Sequence[Fetched]) -> Generator[_Arrived]:
        """Open what was fetched, and then what has come meanwhile, for as long as that is much.

        Nothing comes behind a failure, and what came before it is committed: the replica may never get more.
        """
        try:
            while fetched:
                first = True
                for event in self._inbox.receive(fetched):
                    yield _Arrived(event, first)
                    first = False
                fetched = self._subscription.take(0) if _much(fetched) else ()
        except EmbassyError as failure:
            yield _Arrived(failure, first=True)

    def _rest(self, look_seconds: float = _IDLE_LOOK_SECONDS) -> None:
        """Commit what is whole, and look at what is looked at between two fetches."""
        if self._writer.commit():
            self._looked_at = self._clocks.monotonic()  # nothing is committed under another version
        self._look(look_seconds)
        if not self._writer.parts_open:
            self._authority(self._connection)

    def _take(self, event: KeyTaken | BatchOpened, stop: Stop, pulse: Callable[[], None]) -> Ended | None:
        writer = self._writer
        if isinstance(event, KeyTaken):
            if event.rolls_back:
                self._gate.forget_parts()
            writer.take(event)
            return None
        if writer.parts_open:
            self._look(_LOOK_SECONDS)
        passage = self._gate.judge(writer.head.hash, event.batch, event.head.hash)
        if passage.due > self._clocks.wall() and not self._wait(passage.due, stop, pulse):
            return None
        if passage.end is None:
            writer.take(event, passage.done)
            return None
        return self._end(event, passage, passage.end)

    def _wait(self, due: float, stop: Stop, pulse: Callable[[], None]) -> bool:
        """Wait until a commit is old enough; False if told to stop first."""
        self._writer.commit()
        while (left := due - self._clocks.wall()) > 0:
            pulse()
            if stop.wait(min(left, _DELAY_STEP_SECONDS)):
                return False
            self._look(_LOOK_SECONDS)
        return True

    def _look(self, seconds: float) -> None:
        """See whether something new was said, and whether the session lives, if that was not done for so long."""
        now = self._clocks.monotonic()
        if now - self._looked_at < seconds:
            return
        self._looked_at = now
        if control_store.version(self._connection, self._stream) != self._version:
            raise ControlMoved

    def _end(self, event: BatchOpened, passage: Passage, end: Violation | Point) -> Ended:
        """Apply what may be of the last batch, and say in the same transaction where and why that is all."""
        head, transactions = self._writer.head.hash, event.batch.transactions
        freezes = isinstance(end, Violation) or self._freezes

        def word(connection: psycopg.Connection[Any]) -> None:
            if passage.upto > passage.done:
                place = Cut(head, passage.upto, transactions[passage.upto - 1].commit_lsn)
                control_store.cut(connection, self._stream, place)
            if isinstance(end, Violation):
                reason = f"{end.suspect}: {end.reason}"
                control_store.freeze(connection, self._stream, by=PROTECTION, reason=reason, suspect=end.suspect)
            elif freezes:
                control_store.freeze(
                    connection, self._stream, by=STOP_AT, reason=f"everything up to {end} is applied"
                )

        self._writer.stop(event, range(passage.done, passage.upto), word)
        return Ended(end, freezes)


def _much(fetched: Sequence[Fetched]) -> bool:
    return sum(len(one.value) for one in fetched) >= _MUCH_BYTES
