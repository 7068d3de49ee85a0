"""The producer's loop: from one slot's messages to one topic's records.

Order of the loop, each turn: take acknowledgements, confirm to the slot, receive, assemble, ship, wait. What is
confirmed is only ever what the cluster has acknowledged.

Shipping follows Nagle: while something is unacknowledged, what is whole gathers until the acknowledgement or a full
batch. Idle, a transaction ships at once. What is late already waits a little longer for company, unless the source says
that it has sent everything; see `producers.patience`. So batches fill under load, with no knob.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from embassy.model.batch import Batch
from embassy.model.errors import TransientError
from embassy.model.lsn import Lsn
from embassy.model.record import Head, SealedRecord
from embassy.pg.replication_session import SourceIdentity
from embassy.runtime import failpoints
from embassy.runtime.config import ProducerTuning
from embassy.runtime.failpoints import failpoint
from embassy.runtime.stop import Stop
from embassy.wire.batch_codec import BatchEncoder
from embassy.wire.head_search import Log
from embassy.wire.kafka_writer import Appender
from embassy.wire.sealing import Sealer
from producers import patience
from producers.batch_builder import PART_MESSAGES, BatchBuilder
from producers.copy_lane import CopyLane
from producers.heartbeat import Stages
from producers.incarnation import Standing, begin_incarnation
from producers.pgoutput_decoder import Begin, decode_begin, decode_commit
from producers.slot_reader import LATE_SECONDS, SMALL_TRANSACTIONS, SlotReader

_BEGIN, _COMMIT, _RELATION, _TYPE = b"BCRY"
_RECEIVE_MESSAGES = 20_000
_RECEIVE_BYTES = 8 << 20
_STATUS_SECONDS = 5.0
_WAIT_SECONDS = 2.0
_ACK_WAIT_SECONDS = 0.25
_CONFIRM_SECONDS = 0.25
_TICK_SECONDS = 0.0002
_DRAIN_SECONDS = 3.0
_ASKED_AGAIN_SECONDS = 5.0

EMPTY = Batch((), (), b"", (), 0, complete=True)


class Gauges(Protocol):
    """What the loop tells of itself, once a batch."""

    def captured(self, batch: Batch, encoded_bytes: int) -> None:
        """A batch was built."""

    def published(self, resume_lsn: Lsn, committed_at: int, value_bytes: int) -> None:
        """Everything up to here is acknowledged.

        Args:
            resume_lsn: where a successor would go on.
            committed_at: of the newest whole transaction, microseconds since 1970 UTC; 0 if unknown.
            value_bytes: of the records acknowledged since the last call.
        """


class _Unacknowledged(NamedTuple):
    number: int
    resume_lsn: Lsn
    committed_at: int


class Tail:
    """One stream's producer, once it has the slot and stands at the head."""

    def __init__(
        self,
        *,
        reader: SlotReader,
        source: SourceIdentity,
        appender: Appender,
        log: Log,
        verified: Callable[[SealedRecord], int],
        sealer: Sealer,
        builder: BatchBuilder,
        encoder: BatchEncoder,
        standing: Standing,
        tuning: ProducerTuning,
        copies: CopyLane,
        gauges: Gauges,
        renewed: Callable[[Head, Head], None],
        clock: Callable[[], float],
        pulse: Callable[[], None],
        rotate: threading.Event,
        rouse: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._source = source
        self._appender = appender
        self._log = log
        self._verified = verified
        self._sealer = sealer
        self._builder = builder
        self._encoder = encoder
        self._head = standing.head
        self._next_offset = standing.next_offset
        self._tuning = tuning
        self._copies = copies
        self._renewed = renewed
        self._held = False
        self._gauges = gauges
        self._clock = clock
        self._pulse = pulse
        self._rotate = rotate
        self._rouse = rouse
        self._carried = False
        self._resume_lsn = standing.head.resume_lsn
        # the transaction being received
        self._begin: Begin | None = None
        self._skipping = False
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._part = 0
        self._newest_at = 0
        self._small = 0
        self._ripe_at = 0.0
        # shipped, acknowledged, confirmed
        self._unacknowledged: deque[_Unacknowledged] = deque()
        self._acknowledged: deque[tuple[float, Lsn]] = deque()
        self._acked_bytes = 0
        self._confirmed = Lsn(0)
        self._status_due = 0.0
        self._asked_first = self._asked_last = float("-inf")
        self._rotate_at = 0.0
        self._sealed_bytes = 0
        self._captured_at = self._published_at = 0

    @property
    def stages(self) -> Stages:
        """How far this producer has come; read by the heartbeat's thread."""
        return Stages(self._captured_at, self._published_at)

    def begin(self) -> None:
        """Append a KEY that counts; from then on the topic is this producer's."""
        self._rotate.clear()
        self._head, self._next_offset = begin_incarnation(
            Standing(self._head, self._next_offset),
            sealer=self._sealer,
            source=self._source,
            append_and_wait=self._append_and_wait,
            log=self._log,
            verified=self._verified,
        )
        # A predecessor's last records may have counted since the head was found: they are not sent again.
        self._resume_lsn = self._head.resume_lsn
        failpoint(failpoints.PRODUCER_AFTER_KEY_COUNTED)
        self._rotate_at = self._clock() + self._tuning.rotate_seconds
        self._sealed_bytes = 0

    @property
    def head(self) -> Head:
        """The last record that was appended."""
        return self._head

    def run(self, stop: Stop) -> None:
        """Tail until told to stop, then let what is in flight be acknowledged and confirm it."""
        with stop.waking(self._appender.wake):
            while not stop.is_set():
                self._pulse()
                self._take_acks()
                self._advance_if_asked()
                self._send_status()
                self._choose_source()
                dry = self._held or self._receive()
                self._ship_whole()
                self._held = self._place_copies()
                self._rotate_if_due()
                if dry:
                    self._wait()
        self._drain()

    # ------------------------------------------------------------------ receiving

    def _receive(self) -> bool:
        """Take in what has arrived; returns whether that is all."""
        if self._appender.inflight_bytes > self._tuning.inflight_bytes:
            return True
        messages: list[bytes] = []
        most = 1 if self._copies.careful(self._reached) else _RECEIVE_MESSAGES
        dry = self._reader.drain(messages.append, most, _RECEIVE_BYTES)
        for message in messages:
            kind = message[0]
            if kind == _BEGIN:
                self._begin = decode_begin(message)
                self._newest_at = self._begin.committed_at
                self._skipping = self._begin.final_lsn < self._resume_lsn
            elif kind == _COMMIT:
                self._commit(message)
            elif self._skipping:
                if kind in (_RELATION, _TYPE):  # sent once a session: needed by what follows
                    self._builder.relations.take(message)
            else:
                self._open.append(message)
                self._open_bytes += len(message)
                if self._open_bytes >= self._tuning.batch_bytes or len(self._open) >= PART_MESSAGES:
                    self._ship_part()
        self._notice_a_backlog()
        return dry

    def _notice_a_backlog(self) -> None:
        """Many small transactions that are late: it is worth a look how many more there are."""
        if self._age_seconds() < LATE_SECONDS:
            self._small = 0
        elif self._small >= SMALL_TRANSACTIONS:
            self._small = 0
            self._reader.late()

    def _choose_source(self) -> None:
        """Between parts of transactions only: what was shipped of one cannot come again."""
        if self._part == 0 and self._reader.turn(self._resume_lsn, self._source):
            self._begin = None
            self._skipping = False
            self._open, self._open_bytes = [], 0

    def _commit(self, message: bytes) -> None:
        commit = decode_commit(message)
        begin = self._begin
        assert begin is not None, "pgoutput sends Begin before Commit"
        self._begin = None
        if self._skipping:
            self._skipping = False
            return
        messages, self._open, self._open_bytes = self._open, [], 0
        if self._copies.watching:
            self._copies.delivered(begin.xid, messages)
        self._resume_lsn = commit.end_lsn
        self._captured_at = begin.committed_at
        if not self._carried and (len(messages) > 1 or self._part or not self._is_beat(messages)):
            self._carried = True
            self._rouse()
        if self._part == 0:
            self._small += 1
            if not self._builder.transactions:
                self._ripe_at = self._clock() + patience.to_ship(self._age_seconds())
            self._builder.add_transaction(begin, commit, messages)
            if self._builder.value_bytes >= self._tuning.batch_bytes or self._builder.full:
                self._ship_whole(must=True)
        else:
            self._builder.add_part(begin, messages)
            self._ship(self._builder.build_part(begin, self._part, commit), commit.end_lsn)
            self._part = 0

    def _is_beat(self, messages: list[bytes]) -> bool:
        """Whether all of a transaction's messages, of which there is at most one, are the heart's."""
        return all(message[1:5] == self._builder.relations.heart for message in messages)

    def has_carried(self) -> bool:
        """Whether anything but the heart was committed since the last call; asked by the heartbeat's thread."""
        carried, self._carried = self._carried, False
        return carried

    # ------------------------------------------------------------------ shipping

    def _ship_whole(self, *, must: bool = False) -> None:
        """Ship the whole transactions gathered, if it is time."""
        if not self._builder.transactions:
            return
        if must or (self._appender.inflight == 0 and (self._level or self._clock() >= self._ripe_at)):
            batch = self._builder.build_whole()
            self._ship(batch, batch.transactions[-1].end_lsn)

    def _ship_part(self) -> None:
        """Ship what has come of a transaction that is larger than a batch; whole ones before it go first."""
        self._ship_whole(must=True)
        begin = self._begin
        assert begin is not None, "changes come inside a transaction"
        messages, self._open, self._open_bytes = self._open, [], 0
        if self._copies.watching:
            self._copies.delivered(begin.xid, messages)
        self._builder.add_part(begin, messages)
        self._ship(self._builder.build_part(begin, self._part, None), self._head.resume_lsn)
        self._part += 1
        failpoint(failpoints.PRODUCER_BETWEEN_PARTS)

    def _ship(self, batch: Batch, resume_lsn: Lsn) -> None:
        self._copies.before_ship(batch, self._builder.relations.oids_of)
        encoded = self._encoder.encode(batch)
        self._gauges.captured(batch, len(encoded))
        number = -1
        for sealed in self._sealer.data_records(self._head, encoded, resume_lsn, self._tuning.record_bytes):
            self._await_room()
            failpoint(failpoints.PRODUCER_BEFORE_APPEND)
            number = self._appender.append(sealed.value)
            failpoint(failpoints.PRODUCER_AFTER_APPEND)
            self._head = sealed.head
            self._sealed_bytes += len(sealed.value)
        committed_at = batch.transactions[-1].committed_at if batch.transactions and batch.complete else 0
        self._unacknowledged.append(_Unacknowledged(number, resume_lsn, committed_at))

    # ------------------------------------------------------------------ copies

    @property
    def _reached(self) -> Lsn:
        """Every transaction committed before here was delivered, and none behind it."""
        return self._resume_lsn if self._begin is None else max(self._resume_lsn, self._begin.final_lsn)

    @property
    def captured_at(self) -> int:
        """Commit time of the newest transaction delivered, microseconds since 1970 UTC."""
        return self.stages.captured

    def _place_copies(self) -> bool:
        """Between two transactions, as far as the topic is concerned; returns whether nothing may be received now."""
        return self._part == 0 and self._copies.turn(self, self._reached)

    def ship_chunk(self, batch: Batch) -> tuple[int, int]:
        """Ship a batch behind all that was gathered; returns its last append's number, and its record's sequence."""
        self._ship_whole(must=True)
        self._ship(batch, self._resume_lsn if batch.complete else self._head.resume_lsn)
        return self._unacknowledged[-1].number, self._head.sequence

    def breathe(self) -> None:
        """Take acknowledgements and keep the source's session alive."""
        self._pulse()
        self._take_acks()
        self._send_status()

    def _await_room(self) -> None:
        while self._appender.inflight_bytes > self._tuning.inflight_bytes:
            self._wait_for_acks()

    # ------------------------------------------------------------------ acknowledged, confirmed

    def _take_acks(self) -> None:
        for ack in self._appender.acks():
            self._next_offset = ack.offset + 1
            self._acked_bytes += ack.value_bytes
            self._copies.acknowledged(ack.number)
            waiting = self._unacknowledged
            while waiting and waiting[0].number <= ack.number:
                _, resume_lsn, committed_at = waiting.popleft()
                self._acknowledged.append((self._clock(), resume_lsn))
                if committed_at:
                    self._published_at = committed_at
                self._gauges.published(resume_lsn, committed_at, self._acked_bytes)
                self._acked_bytes = 0
                failpoint(failpoints.PRODUCER_AFTER_ACK)

    def _send_status(self) -> None:
        """Confirm what has been durable long enough; else answer when asked, and tell of life as a standby does."""
        now = self._clock()
        asked = self._reader.keepalive.reply_requested
        if asked:
            self._release_the_server(now)
        # A server that asks for an answer is shutting down, or lost patience: it must not wait out the delay.
        trail_seconds = 0.0 if asked else self._tuning.confirm_delay_seconds
        self._copies.confirmed(now - trail_seconds)
        confirmed = self._confirmed
        while self._acknowledged and self._acknowledged[0][0] + trail_seconds <= now:
            confirmed = self._acknowledged.popleft()[1]
        if confirmed > self._confirmed or asked or now >= self._status_due:
            self._reader.confirm(confirmed)
            self._confirmed = confirmed
            self._status_due = now + _STATUS_SECONDS
            failpoint(failpoints.PRODUCER_AFTER_CONFIRM)

    def _release_the_server(self, now: float) -> None:
        """End the session of a server that asks again and again while the cluster acknowledges nothing.

        A server that shuts down does so until the slot has confirmed all of its log. It must not wait for Kafka: what
        is not confirmed, it sends again to the next session.

        Raises:
            TransientError: it has waited long enough.
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

    def _advance_if_asked(self) -> None:
        """Ship an empty batch for log that holds nothing of ours, so that it too can be confirmed.

        Only between receives: a keepalive speaks of the log behind every message that has been received, and while
        some are still to be assembled, its position is ahead of the stream's.
        """
        keepalive = self._reader.keepalive
        idle = self._begin is None and not self._builder.transactions and self._appender.inflight == 0
        if keepalive.reply_requested and idle and keepalive.wal_end > self._resume_lsn:
            self._resume_lsn = keepalive.wal_end
            self._ship(EMPTY, keepalive.wal_end)

    # ------------------------------------------------------------------ waiting

    @property
    def _level(self) -> bool:
        """Whether the source has sent everything that it had a moment ago."""
        return self._begin is None and self._reader.keepalive.wal_end >= self._resume_lsn

    def _age_seconds(self) -> float:
        """How long the newest transaction had been committed when it came, by the source's clock."""
        return (self._reader.sent_at - self._newest_at) / 1e6

    def _wait(self) -> None:
        readable = [self._appender.wake_fd]
        seconds = 0.0 if self._level else patience.to_receive(self._age_seconds())
        if seconds < _TICK_SECONDS:
            seconds = _WAIT_SECONDS
            if self._appender.inflight_bytes <= self._tuning.inflight_bytes:
                readable.append(self._reader.fileno)
            if self._builder.transactions and self._appender.inflight == 0:
                seconds = max(0.0, min(seconds, self._ripe_at - self._clock()))
            if self._acknowledged:
                due = self._acknowledged[0][0] + self._tuning.confirm_delay_seconds
                seconds = min(seconds, max(_CONFIRM_SECONDS, due - self._clock()))
        select.select(readable, [], [], seconds)

    def _wait_for_acks(self) -> None:
        select.select([self._appender.wake_fd], [], [], _ACK_WAIT_SECONDS)
        self.breathe()

    def _append_and_wait(self, value: bytes) -> int:
        number = self._appender.append(value)
        while True:
            for ack in self._appender.acks():
                if ack.number == number:
                    return ack.offset
            select.select([self._appender.wake_fd], [], [], _ACK_WAIT_SECONDS)
            self._pulse()
            self._send_status()

    def _rotate_if_due(self) -> None:
        """Begin a new incarnation between transactions: a fresh data key, and a near anchor for head searches."""
        due = (
            self._clock() >= self._rotate_at
            or self._sealed_bytes >= self._tuning.rotate_bytes
            or self._rotate.is_set()
        )
        if not due or self._part:  # what is only being received has left no trace in the topic
            return
        self._ship_whole(must=True)
        while self._appender.inflight:
            self._wait_for_acks()
        before = self._head
        self.begin()
        self._renewed(before, self._head)

    def _drain(self) -> None:
        """Before stopping: ship what is whole, wait a little for acknowledgements, confirm."""
        self._ship_whole(must=True)
        deadline = self._clock() + _DRAIN_SECONDS
        while self._appender.inflight and self._clock() < deadline:
            self._wait_for_acks()
        self._reader.confirm(self._confirmed)
