"""From records as they were fetched to batches that count, in order and whole. Pure: records in, events out.

What does not count is passed over (`embassy.model.chain`). What counts and cannot be opened, or does not continue what
came before it, halts the stream: it is signed, so it is not the carrier's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from embassy.model.batch import Batch
from embassy.model.chain import Follower, Standing
from embassy.model.errors import IntegrityError
from embassy.model.record import Head, RecordKind, SealedRecord
from embassy.wire.batch_codec import decode_batch
from embassy.wire.judging import Judge
from embassy.wire.kafka_reader import Fetched
from embassy.wire.opening import Decompressor, decompress
from embassy.wire.record_codec import decode_record


class Opener(Protocol):
    """What turns records into bytes, with the recipient's key."""

    def take_key(self, record: SealedRecord) -> None:
        """Take the data key of a KEY record."""

    def open(self, record: SealedRecord) -> bytes:
        """The plaintext of a DATA record."""


class Gauges(Protocol):
    """What the inbox tells of itself."""

    def received(self, head: Head, timestamp_ms: int) -> None:
        """Everything up to this head has come and links; the time is when the embassy's cluster appended it."""

    def ignored(self, standing: Standing) -> None:
        """A record did not count."""

    def missing(self, sequence: int | None) -> None:
        """The next record is missing, although later ones have come; None: it is not."""


class KeyTaken(NamedTuple):
    """A new incarnation of the producer has begun."""

    head: Head
    """After it."""
    next_offset: int
    key_record: bytes
    """Its Kafka value."""
    rolls_back: bool
    """The parts of a transaction that came so far will not go on: the transaction comes again, whole."""


class BatchOpened(NamedTuple):
    """A batch, or a part of a transaction larger than a batch, to be applied now."""

    head: Head
    """After its last record."""
    next_offset: int
    batch: Batch
    encoded_bytes: int


Event = KeyTaken | BatchOpened


class Inbox:
    """Follows one stream from a head on."""

    def __init__(self, follower: Follower, opener: Opener, gauges: Gauges) -> None:
        """Take up the stream.

        Args:
            follower: stands at the head of what the replica has.
            opener: has the data key of the head's incarnation; see `resume`.
            gauges: told what comes.
        """
        self._follower = follower
        self._judge = Judge(follower, gauges.ignored, gauges.missing)
        self._opener = opener
        self._gauges = gauges
        self._records = 0
        self._gathered: Decompressor | None = None
        self._parts_open = False
        self._xid = 0
        self._part = 0

    @property
    def head(self) -> Head:
        """The last record that counted."""
        return self._follower.head

    def receive(self, fetched: Iterable[Fetched]) -> Iterator[Event]:
        """Judge records and open those that count; each event before the next record is opened.

        Raises:
            IntegrityError: the stream cannot be followed.
        """
        for (offset, timestamp_ms, value), record in self._judge.counting(fetched):
            self._gauges.received(self._follower.head, timestamp_ms)
            try:
                event = self._take(record, offset, value)
            except IntegrityError as error:
                raise _placed(error, f"{self._follower.topic}@{offset}") from error
            if event is not None:
                yield event

    def _take(self, record: SealedRecord, offset: int, value: bytes) -> Event | None:
        header = record.header
        if header.kind is RecordKind.KEY:
            self._opener.take_key(record)
            rolls_back, self._parts_open = self._parts_open, False
            self._records, self._gathered = 0, None
            return KeyTaken(self._follower.head, offset + 1, value, rolls_back)
        encoded = self._gather(record)
        if encoded is None:
            return None
        batch = decode_batch(encoded)
        self._check_part(batch)
        return BatchOpened(self._follower.head, offset + 1, batch, len(encoded))

    def _gather(self, record: SealedRecord) -> bytes | None:
        """The encoded batch, once its last record has come."""
        header = record.header
        if header.part != self._records:
            raise IntegrityError(
                f"part {header.part} of a batch came where part {self._records} is due",
                hint="the producer is at fault; it has signed this",
            )
        content = self._opener.open(record)
        if header.last and header.part == 0:
            return decompress((content,))
        gathered = self._gathered = self._gathered or Decompressor()
        gathered.add(content)
        if not header.last:
            self._records += 1
            return None
        self._records, self._gathered = 0, None
        return gathered.finish()

    def _check_part(self, batch: Batch) -> None:
        """Make sure that a part continues the transaction that is open, and that nothing interrupts one."""
        due = self._part + 1 if self._parts_open else 0
        of_one = batch.part > 0 or not batch.complete
        xid = batch.transactions[0].xid if batch.transactions else 0
        if batch.part != due or (of_one and len(batch.transactions) != 1) or (due and xid != self._xid):
            raise IntegrityError(
                f"part {batch.part} of a transaction came where part {due} is due",
                hint="the producer is at fault; it has signed this",
            )
        self._parts_open, self._part, self._xid = not batch.complete, batch.part, xid


def resume(
    opener: Opener, head: Head, key_record: bytes, verified: Callable[[SealedRecord], int], place: str
) -> Head:
    """Give an opener the data key of the incarnation that a replica's progress stands in.

    Returns:
        The head with the generation of the producer that signed the key record: the replica does not keep it apart.

    Raises:
        IntegrityError: the key record kept with the progress is not the incarnation's.
    """
    if head.sequence == 0:
        return head
    try:
        kept = _kept_key(head, key_record, verified)
        opener.take_key(kept)
    except IntegrityError as error:
        raise IntegrityError(
            f"the key record that the replica keeps cannot be used: {error.args[0]}",
            place=place,
            hint=error.hint or "embassy.progress was altered; restore it from the replica's backup, or resync",
        ) from error
    return head._replace(generation=verified(kept))


def _kept_key(head: Head, key_record: bytes, verified: Callable[[SealedRecord], int]) -> SealedRecord:
    record = decode_record(key_record)
    if not verified(record) or record.header.kind is not RecordKind.KEY:
        raise IntegrityError("it is not a KEY record that the enrolled producer has signed")
    if record.header.incarnation != head.incarnation:
        raise IntegrityError("it is of another incarnation")
    return record


def _placed(error: IntegrityError, place: str) -> IntegrityError:
    """The same, with the record's place unless it has one of its own."""
    return error if error.place else IntegrityError(error.args[0], hint=error.hint, place=place)
