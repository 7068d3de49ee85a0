"""What was shipped, what of it the home cluster has acknowledged, and what of that is confirmed to the slot.

Confirmed is what was acknowledged a while ago, and no sooner: an acknowledged record is in every in-sync replica's memory
and may not be on a disk yet. docs/adr/0003-confirmation-trails-the-acknowledgement.md
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from embassy.model.errors import TransientError
from embassy.model.lsn import Lsn
from embassy.runtime import failpoints
from embassy.runtime.config import ProducerTuning
from embassy.runtime.failpoints import failpoint
from embassy.wire.kafka_writer import Appender
from producers.copy_lane import CopyLane
from producers.slot_reader import SlotReader

_STATUS_SECONDS = 10.0
"""As PostgreSQL's own receivers do; a walsender with less patience asks."""
_ACK_WAIT_SECONDS = 0.25
_CONFIRM_SECONDS = 0.25
_COMPANY_SHARE = 0.25
"""Of the delay of a confirmation: so much may lie between two, and so much longer does one wait for a turn that is made
anyway."""
_ASKED_AGAIN_SECONDS = 5.0


class Gauges(Protocol):
    """What is told of it, once a batch."""

    def published(self, resume_lsn: Lsn, committed_at: int, value_bytes: int) -> None:
        """Everything up to here is acknowledged.

        Args:
            resume_lsn: where a successor would go on.
            committed_at: of the newest whole transaction, microseconds since 1970 UTC; 0 if unknown.
            value_bytes: of the records acknowledged since the last call.
        """


class _Shipped(NamedTuple):
    number: int
    resume_lsn: Lsn
    committed_at: int


class Confirming:
    """One stream's way from an append to the slot's position; used by the producer's loop only."""

    def __init__(
        self,
        *,
        appender: Appender,
        reader: SlotReader,
        tuning: ProducerTuning,
        copies: CopyLane,
        gauges: Gauges,
        clock: Callable[[], float],
        pulse: Callable[[], None],
        next_offset: int,
    ) -> None:
        self._appender = appender
        self._reader = reader
        self._tuning = tuning
        self._copies = copies
        self._gauges = gauges
        self._clock = clock
        self._pulse = pulse
        self.next_offset = next_offset
        """Just behind the newest record that is known to be in the topic."""
        self.published_at = 0
        """Commit time of the newest transaction acknowledged, microseconds since 1970 UTC; 0: none yet."""
        self._unacknowledged: deque[_Shipped] = deque()
        self._acknowledged: deque[tuple[float, Lsn]] = deque()
        self._acked_bytes = 0
        self._confirmed = Lsn(0)
        self._status_due = self._company_due = 0.0
        self._asked_first = self._asked_last = float("-inf")

    @property
    def newest(self) -> int:
        """The number of the last append of what was shipped last."""
        return self._unacknowledged[-1].number

    @property
    def crowded(self) -> bool:
        """Whether so much is on the way that nothing may be added."""
        return self._appender.inflight_bytes > self._tuning.inflight_bytes

    def shipped(self, number: int, resume_lsn: Lsn, committed_at: int) -> None:
        """A batch was appended.

        Args:
            number: of its last append.
            resume_lsn: where a successor goes on that finds it in the topic.
            committed_at: of its last transaction if that is whole, microseconds since 1970 UTC; else 0.
        """
        self._unacknowledged.append(_Shipped(number, resume_lsn, committed_at))

    def take_acks(self) -> None:
        """Note what the cluster has acknowledged."""
        for ack in self._appender.acks():
            self.next_offset = ack.offset + 1
            self._acked_bytes += ack.value_bytes
            self._copies.acknowledged(ack.number)
            waiting = self._unacknowledged
            while waiting and waiting[0].number <= ack.number:
                _, resume_lsn, committed_at = waiting.popleft()
                self._acknowledged.append((self._clock(), resume_lsn))
                if committed_at:
                    self.published_at = committed_at
                self._gauges.published(resume_lsn, committed_at, self._acked_bytes)
                self._acked_bytes = 0
                failpoint(failpoints.PRODUCER_AFTER_ACK)

    def send_status(self) -> None:
        """Confirm what has been durable long enough; else answer when asked, and tell of life as a standby does.

        Raises:
            TransientError: the session ended, or its server has waited long enough for what the cluster does not take.
        """
        now = self._clock()
        asked = self._reader.keepalive.reply_requested
        if asked:
            self._release_the_server(now)
        # A server that asks for an answer is shutting down, or lost patience: it must not wait out the delay.
        trail_seconds = 0.0 if asked else self._tuning.confirm_delay_seconds
        self._copies.confirmed(now - trail_seconds)
        if not asked and now < min(self._company_due, self._status_due):
            return
        confirmed = self._confirmed
        while self._acknowledged and self._acknowledged[0][0] + trail_seconds <= now:
            confirmed = self._acknowledged.popleft()[1]
        if confirmed > self._confirmed or asked or now >= self._status_due:
            self._reader.confirm(confirmed)
            self._confirmed = confirmed
            self._status_due = now + _STATUS_SECONDS
            self._company_due = now + self._tuning.confirm_delay_seconds * _COMPANY_SHARE
            failpoint(failpoints.PRODUCER_AFTER_CONFIRM)

    def confirm_once_more(self) -> None:
        """Before the session ends: say again what was confirmed."""
        self._reader.confirm(self._confirmed)

    def due_seconds(self, at_most: float) -> float:
        """In how many seconds there is something to confirm, and so much of it that it is worth a turn.

        Other turns confirm what is due by then: those of an idle stream that come with its beats do for all.
        """
        if not self._acknowledged:
            return at_most
        delay = self._tuning.confirm_delay_seconds
        due = max(self._acknowledged[0][0] + delay, self._company_due) + delay * _COMPANY_SHARE
        return min(at_most, max(_CONFIRM_SECONDS, due - self._clock()))

    def breathe(self) -> None:
        """Take acknowledgements and keep the source's session alive."""
        self._pulse()
        self.take_acks()
        self.send_status()

    def await_acks(self) -> None:
        """Wait a little for acknowledgements, and take them."""
        select.select([self._appender.wake_fd], [], [], _ACK_WAIT_SECONDS)
        self.breathe()

    def append_and_wait(self, value: bytes) -> int:
        """Append a record while nothing else is on the way; returns its offset."""
        number = self._appender.append(value)
        while True:
            for ack in self._appender.acks():
                if ack.number == number:
                    return ack.offset
            select.select([self._appender.wake_fd], [], [], _ACK_WAIT_SECONDS)
            self._pulse()
            self.send_status()

    def _release_the_server(self, now: float) -> None:
        """End the session of a server that asks again and again while the cluster acknowledges nothing.

        A server that shuts down does so until the slot has confirmed all of its log. It must not wait for Kafka: what
        is not confirmed, it sends again to the next session.
        """
        if now - self._asked_last > _ASKED_AGAIN_SECONDS or not self._unacknowledged:
            self._asked_first = now
        self._asked_last = now
        if now - self._asked_first > self._tuning.release_seconds:
            raise TransientError(
                "the source's server asks for what the home cluster has not acknowledged; it is let go",
                place="kafka.home",
                hint="is the home cluster up? Nothing is lost: the slot keeps what is unconfirmed",
            )
