"""The producer's loop: from one slot's messages to one topic's records.

Order of the loop, each turn: take acknowledgements, confirm to the slot, receive, assemble, ship, wait. What is
confirmed is only ever what the cluster has acknowledged.

Shipping follows Nagle: while something is unacknowledged, what is whole gathers until the acknowledgement or a full
batch. Idle, a transaction ships at once. What is late already waits a little longer for company, unless the source says
that it has sent everything; see `producers.patience`. So batches fill under load, with no knob.
"""

from __future__ import annotations

from collections.abc import Callable

from embassy.model.batch import Batch
from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.runtime import failpoints
from embassy.runtime.config import ProducerTuning
from embassy.runtime.failpoints import failpoint
from embassy.runtime.stop import IDLE_WAIT_SECONDS, Stop
from embassy.wire.kafka_writer import Appender
from producers import patience
from producers.batch_builder import PART_MESSAGES, BatchBuilder
from producers.beats_seen import BeatsSeen
from producers.confirming import Confirming
from producers.copy_lane import CopyLane
from producers.heartbeat import Stages
from producers.pgoutput_decoder import Begin, decode_begin, decode_commit
from producers.renewal import Renewal
from producers.resting import wait
from producers.shipping import Shipping
from producers.slot_reader import SlotReader

_BEGIN, _COMMIT, _RELATION, _TYPE = b"BCRY"
_RECEIVE_MESSAGES = 20_000
_RECEIVE_BYTES = 8 << 20
_TICK_SECONDS = 0.0002
_DRAIN_SECONDS = 3.0

EMPTY = Batch((), (), b"", (), 0, complete=True)


class Tail:
    """One stream's producer, once it has the slot and stands at the head."""

    def __init__(
        self,
        *,
        reader: SlotReader,
        appender: Appender,
        shipping: Shipping,
        confirming: Confirming,
        renewal: Renewal,
        tuning: ProducerTuning,
        copies: CopyLane,
        renewed: Callable[[Head, Head], None],
        clock: Callable[[], float],
        pulse: Callable[[], None],
        rouse: Callable[[], None],
        beats: BeatsSeen,
    ) -> None:
        """Take what the loop turns around.

        Args:
            reader: of the slot.
            appender: of the topic, to wait for its acknowledgements.
            shipping: appends to the topic.
            confirming: takes acknowledgements and confirms to the slot.
            renewal: says when a data key has had its time.
            tuning: limits.
            copies: asks for places between transactions.
            renewed: told of the heads before and behind each new KEY but the first.
            clock: monotonic.
            pulse: called with each turn.
            rouse: called when the registry has committed something after a pause.
            beats: told of each beat that is delivered.
        """
        self._reader = reader
        self._appender = appender
        self._shipping = shipping
        self._confirming = confirming
        self._renewal = renewal
        self._tuning = tuning
        self._copies = copies
        self._renewed = renewed
        self._clock = clock
        self._pulse = pulse
        self._rouse = rouse
        self._beats = beats
        self._builder = BatchBuilder()
        self._held = False
        self._carried = False
        self._resume_lsn = shipping.head.resume_lsn
        # the transaction being received
        self._early: list[bytes] = []
        """Received and not looked at yet."""
        self._begin: Begin | None = None
        self._skipping = False
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._part = 0
        self._newest_at = 0
        self._beaten = False  # the newest transaction was a beat, or its like
        self._small = 0
        self._ripe_at = 0.0
        self._captured_at = 0

    @property
    def stages(self) -> Stages:
        """How far this producer has come; read by the heartbeat's thread."""
        return Stages(self._captured_at, self._confirming.published_at)

    def begin(self) -> None:
        """Append a KEY that counts; from then on the topic is this producer's."""
        self._shipping.begin()
        # A predecessor's last records may have counted since the head was found: they are not sent again.
        self._resume_lsn = self.head.resume_lsn

    def renews_in(self, seconds: float) -> bool:
        """Whether the data key will have had its time so soon; from any thread."""
        return self._renewal.due_in(seconds)

    @property
    def head(self) -> Head:
        """The last record that was appended."""
        return self._shipping.head

    def run(self, stop: Stop) -> None:
        """Tail until told to stop, then let what is in flight be acknowledged and confirm it."""
        with stop.waking(self._appender.wake):
            while not stop.is_set():
                self._pulse()
                self._confirming.take_acks()
                self._advance_if_asked()
                self._confirming.send_status()
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
        if self._confirming.crowded:
            return True
        messages, self._early = self._early, []
        most = 1 if self._copies.careful(self._reached) else _RECEIVE_MESSAGES
        dry = len(messages) < most and self._reader.drain(messages.append, most - len(messages), _RECEIVE_BYTES)
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
        self._reader.delivered(self._small, self._age_seconds())
        self._small = 0
        return dry

    def _choose_source(self) -> None:
        """Between parts of transactions only: what was shipped of one cannot come again."""
        if self._part or not self._reader.due:
            return
        self._settle()  # the slot is let go for a moment: what counts by then is what was acknowledged
        if self._reader.turn(self._resume_lsn, self._shipping.source):
            self._begin = None
            self._skipping = False
            self._early, self._open, self._open_bytes = [], [], 0
            self._renew()  # who had the slot meanwhile may have become the writer

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
        self._beaten = not self._part and len(messages) <= 1 and self._is_housekeeping(messages)
        if self._beaten and messages and messages[0][1:5] == self._builder.relations.heart:
            self._beats.note(begin.xid, commit.end_lsn)
        if not self._carried and not self._beaten:
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

    def _is_housekeeping(self, messages: list[bytes]) -> bool:
        """Whether all of a transaction's messages, of which there is at most one, only say that time has passed."""
        return all(message[1:5] in self._builder.relations.housekeeping for message in messages)

    def has_carried(self) -> bool:
        """Whether anything but a beat or its like was committed since the last call; asked by the heart's thread."""
        carried, self._carried = self._carried, False
        return carried

    # ------------------------------------------------------------------ shipping

    def _ship_whole(self, *, must: bool = False) -> None:
        """Ship the whole transactions gathered, if it is time."""
        if not self._builder.transactions:
            return
        if must or (self._shipping.idle and (self._level or self._clock() >= self._ripe_at)):
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
        self._ship(self._builder.build_part(begin, self._part, None), self.head.resume_lsn)
        self._part += 1
        failpoint(failpoints.PRODUCER_BETWEEN_PARTS)

    def _ship(self, batch: Batch, resume_lsn: Lsn) -> None:
        self._copies.before_ship(batch, self._builder.relations.oids_of)
        self._shipping.ship(batch, resume_lsn)

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
        self._ship(batch, self._resume_lsn if batch.complete else self.head.resume_lsn)
        return self._confirming.newest, self.head.sequence

    def breathe(self) -> None:
        """Take acknowledgements and keep the source's session alive."""
        self._confirming.breathe()

    # ------------------------------------------------------------------ waiting

    def _advance_if_asked(self) -> None:
        """Ship an empty batch for log that holds nothing of ours, so that it too can be confirmed.

        Only between receives: a keepalive speaks of the log behind every message that has been received, and while
        some are still to be assembled, its position is ahead of the stream's.
        """
        keepalive = self._reader.keepalive
        idle = self._begin is None and not self._builder.transactions and self._shipping.idle
        if keepalive.reply_requested and idle and keepalive.wal_end > self._resume_lsn:
            self._resume_lsn = keepalive.wal_end
            self._ship(EMPTY, keepalive.wal_end)

    @property
    def _level(self) -> bool:
        """Whether the source has sent everything that it had a moment ago, or a beat, which is worth no company."""
        return self._begin is None and (self._beaten or self._reader.keepalive.wal_end >= self._resume_lsn)

    def _age_seconds(self) -> float:
        """How long the newest transaction had been committed when it came, by the source's clock."""
        return (self._reader.sent_at - self._newest_at) / 1e6

    def _wait(self) -> None:
        readable = [self._appender.wake_fd]
        seconds = 0.0 if self._level else patience.to_receive(self._age_seconds())
        if seconds < _TICK_SECONDS:
            seconds = IDLE_WAIT_SECONDS
            if not self._confirming.crowded:
                readable.append(self._reader.fileno)
            if self._builder.transactions and self._shipping.idle:
                seconds = max(0.0, min(seconds, self._ripe_at - self._clock()))
            seconds = self._confirming.due_seconds(seconds)
        self._early = wait(
            readable,
            seconds,
            idle=self._is_idle,
            reader=self._reader,
            appender=self._appender,
            confirming=self._confirming,
        )

    @property
    def _is_idle(self) -> bool:
        """Whether there is nothing to do but to wait for the source, and nothing of interest on the way."""
        return (
            self._beaten
            and self._begin is None
            and not self._builder.transactions
            and not self._copies.busy
            and not self._confirming.crowded
        )

    def _rotate_if_due(self) -> None:
        """Begin a new incarnation between transactions; what is only being received has left no trace in the topic."""
        if self._part == 0 and self._renewal.due:
            self._settle()
            self._renew()

    def _settle(self) -> None:
        """Ship what is whole, and wait until the cluster has all of it."""
        self._ship_whole(must=True)
        self._shipping.settle()

    def _renew(self) -> None:
        """Begin a new incarnation, with nothing in flight."""
        before = self.head
        self._shipping.renew()
        self._resume_lsn = self.head.resume_lsn
        self._renewed(before, self.head)

    def _drain(self) -> None:
        """Before stopping: ship what is whole, wait a little for acknowledgements, confirm."""
        self._ship_whole(must=True)
        deadline = self._clock() + _DRAIN_SECONDS
        while not self._shipping.idle and self._clock() < deadline:
            self._confirming.await_acks()
        self._confirming.confirm_once_more()
