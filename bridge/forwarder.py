"""The bridge's loop for one stream: what counts at home is appended in the embassy, byte for byte.

It holds no secret key. It proves signatures and links as it carries: a bridge that forwarded anything at all could
be made to resume from a forged head and pass over real records. It keeps no position of its own: the head of the
foreign topic is where it goes on. So a request that fails is not tried again by the client: what was on the way is given
up, and the stream goes on from that head. That lets it have many requests on the way, however long the line is. Only a
KEY waits until all that is in front of it is acknowledged: docs/adr/0015-the-bridge-sends-once-and-begins-again.md
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import structlog

from embassy.model.chain import Follower, Signers, Standing
from embassy.model.record import Head, RecordKind
from embassy.runtime import failpoints
from embassy.runtime.failpoints import failpoint
from embassy.runtime.stop import IDLE_WAIT_SECONDS, Stop
from embassy.wire.beginning import Beginning, beginning
from embassy.wire.enrolment import Enrolment
from embassy.wire.head_search import HeadLostError, find_head, locate
from embassy.wire.judging import Judge
from embassy.wire.kafka_reader import Fetched, StreamsReader, Subscription
from embassy.wire.kafka_writer import Appender, KafkaWriter
from embassy.wire.reader_pool import ReaderPool

_ACK_WAIT_SECONDS = 2.0
_DRAIN_SECONDS = 3.0


class Gauges(Protocol):
    """What the loop tells of itself, once a turn."""

    def carried(self, records: int, value_bytes: int) -> None:
        """Records were sent on."""

    def bridged(self, head: Head, timestamp_ms: int) -> None:
        """Everything up to this head is acknowledged in the embassy; the time is when home appended it."""

    def ignored(self, standing: Standing) -> None:
        """A record did not count."""

    def missing(self, sequence: int | None) -> None:
        """The next record is missing, although later ones have come; None: it is not."""


class Limits(NamedTuple):
    """Bounds of memory and patience."""

    inflight_bytes: int
    queue_bytes: int
    hold_seconds: float


class Forwarder:
    """Carries one stream."""

    def __init__(
        self,
        name: str,
        *,
        topic: str,
        enrolment: Enrolment,
        signers: Signers,
        home: ReaderPool,
        foreign: ReaderPool,
        reader: StreamsReader,
        writer: KafkaWriter,
        limits: Limits,
        gauges: Gauges,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self._topic = topic
        self._enrolment = enrolment
        self._signers = signers
        self._home = home
        self._foreign = foreign
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._gauges = gauges
        self._clock = clock
        self._log = structlog.get_logger(component="bridge", stream=name)

    def run(self, stop: Stop, pulse: Callable[[], None]) -> None:
        """Carry until told to stop.

        Raises:
            TransientError: a cluster is unreachable.
            IntegrityError: a record is missing at home, or the foreign topic holds what home does not.
        """
        head, offset = self._place()
        self._log.info("carrying", sequence=head.sequence, offset=offset)
        follower = Follower(
            head,
            topic=self._topic,
            signers=self._signers,
            clock=self._clock,
            hold_seconds=self._limits.hold_seconds,
        )
        subscription = self._reader.subscribe(self._topic, offset, self._limits.queue_bytes)
        appender = self._writer.appender(self._topic, subscription.wake)
        try:
            with stop.waking(appender.wake):
                Carriage(follower, appender, self._limits, self._gauges, pulse).run(
                    subscription, stop, self._clock
                )
        finally:
            self._reader.unsubscribe(self._topic)
            appender.close()

    def _place(self) -> Beginning:
        """Where the embassy's topic ends, or a little before: what is behind it is sent once more.

        Where it holds nothing to go on from (nothing was carried, it was made anew, or retention has taken all or the
        last KEY), all that home still holds is carried: the replica knows what of that is its next record.
        """
        genesis = self._enrolment.genesis()
        try:
            found = find_head(self._foreign.log(self._topic), self._signers, genesis, repeats=True)
        except HeadLostError:
            found = None
        home = self._home.log(self._topic)
        if found is None:
            return beginning(home, self._signers, genesis)
        return Beginning(found.head, locate(home, found.head, self._signers))


class _Sent(NamedTuple):
    number: int
    head: Head
    timestamp_ms: int


class Carriage:
    """The loop proper, between one subscription and one appender."""

    def __init__(
        self,
        follower: Follower,
        appender: Appender,
        limits: Limits,
        gauges: Gauges,
        pulse: Callable[[], None],
    ) -> None:
        """Take both ends.

        Args:
            follower: stands at the head of the appender's topic.
            appender: of the foreign topic.
            limits: bounds.
            gauges: told once a turn.
            pulse: called while it lives.
        """
        self._follower = follower
        self._judge = Judge(follower, gauges.ignored, gauges.missing)
        self._appender = appender
        self._limits = limits
        self._gauges = gauges
        self._pulse = pulse
        self._sent: deque[_Sent] = deque()

    def run(self, subscription: Subscription, stop: Stop, clock: Callable[[], float]) -> None:
        """Carry until told to stop, then let what is on the way be acknowledged.

        Raises:
            EmbassyError: what was on the way is given up, or the stream cannot be followed.
        """
        while not stop.is_set():
            self._pulse()
            fetched = subscription.take(IDLE_WAIT_SECONDS)
            if fetched:
                self._carry(fetched, stop)
            self._take_acks()
        deadline = clock() + _DRAIN_SECONDS
        while self._appender.inflight and clock() < deadline:
            self._await_acks()

    def _carry(self, fetched: list[Fetched], stop: Stop) -> None:
        records = value_bytes = 0
        for (_, timestamp_ms, value), record in self._judge.counting(fetched):
            # A KEY that is there stands behind all that it names: `find_head` goes by that when something was lost.
            most_bytes = 0 if record.header.kind is RecordKind.KEY else self._limits.inflight_bytes
            while self._appender.inflight_bytes > most_bytes:
                if stop.is_set():
                    return
                self._await_acks()
            failpoint(failpoints.BRIDGE_BEFORE_APPEND)
            number = self._appender.append(value)
            failpoint(failpoints.BRIDGE_AFTER_APPEND)
            if not record.header.last:
                failpoint(failpoints.BRIDGE_BETWEEN_PARTS)
            self._sent.append(_Sent(number, self._follower.head, timestamp_ms))
            records += 1
            value_bytes += len(value)
        self._gauges.carried(records, value_bytes)

    def _await_acks(self) -> None:
        select.select([self._appender.wake_fd], [], [], _ACK_WAIT_SECONDS)
        self._pulse()
        self._take_acks()

    def _take_acks(self) -> None:
        last: _Sent | None = None
        for ack in self._appender.acks():
            while self._sent and self._sent[0].number <= ack.number:
                last = self._sent.popleft()
        if last is not None:
            self._gauges.bridged(last.head, last.timestamp_ms)
