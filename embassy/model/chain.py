"""Following a stream: which records count, and when to stop waiting for one that is missing.

The rule has one line, `Head.link`. What stands around it is for the reader who sees records that do not link.
Most are scenery (a re-copy, a fenced predecessor's last words, a forgery) and are passed over. Two are not:

* a record beyond the next sequence number means that one is missing; if such records keep coming and none links
  for the hold time, the stream halts;
* two different signed records of one incarnation with one sequence number mean that the producer was cloned.

Signatures are the dearest part of reading, and records are chained: so one signature proves a run of them (`proven`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Protocol

from embassy.model.errors import IntegrityError
from embassy.model.record import HASH_BYTES, ID_BYTES, Head, RecordKind, SealedRecord

_REMEMBERED = 4096
_ENTRY_BYTES = ID_BYTES + HASH_BYTES


class Standing(Enum):
    """What a record is to this reader."""

    COUNTS = auto()
    """It named the head and is the head now."""
    REPEATED = auto()
    """A copy of one that counted."""
    UNSIGNED = auto()
    """Not signed by the enrolled producer: as good as absent."""
    OTHER_EPOCH = auto()
    """Of another epoch, whoever signed it: from before a promotion, or from one who has not heard of it."""
    STRAY = auto()
    """Signed, but it does not name the head, or by a producer that was succeeded."""


class Signers(Protocol):
    """Whose records are these? A generation of the stream's producers, from 1; 0 is nobody's that is enrolled."""

    def __call__(self, record: SealedRecord) -> int:
        """Whose a record is, by its own signature."""

    def of_run(self, records: Sequence[SealedRecord]) -> list[int]:
        """Whose each of some records is that were read one after another; see `proven`."""


def proven(records: Sequence[SealedRecord], verified: Callable[[SealedRecord], int], newest: int) -> list[int]:
    """Whose each of some records is, with few signatures looked at.

    A DATA record is the newest producer's if a record of that producer, of the same incarnation, names it: within an
    incarnation a producer names only what it has made itself. Whatever is not proven like that is looked at by itself.
    The hash by which a record is named covers header and body, not the signature: nobody may rely on the signature's
    bytes of a record that is proven by a later one.

    Args:
        records: in the order of the topic; others may stand between those of the stream.
        verified: whose a record is by its own signature.
        newest: the newest producer's generation. What an earlier one's key has signed proves only itself: whoever has
            that key could name the records of its successor, and make them look like its own.
    """
    generations = [0] * len(records)
    behind: SealedRecord | None = None
    for index in range(len(records) - 1, -1, -1):
        record = records[index]
        named = behind is not None and _names(behind, record)
        generations[index] = newest if named else verified(record)
        if generations[index] == newest and record.header.kind is RecordKind.DATA:
            behind = record
    return generations


def _names(behind: SealedRecord, record: SealedRecord) -> bool:
    later, header = behind.header, record.header
    return (
        later.previous == record.hash
        and header.kind is RecordKind.DATA
        and (header.stream, header.epoch, header.incarnation, header.sequence + 1)
        == (later.stream, later.epoch, later.incarnation, later.sequence)
        and len(record.signature) == len(behind.signature)
    )


class _Counted:
    """The last records that counted, 48 bytes each: a process has many streams, and idle ones fill it within hours."""

    __slots__ = ("_first", "_last", "_ring")

    def __init__(self) -> None:
        self._ring = bytearray()  # it grows to its size, and goes round then
        self._first, self._last = 0, -1

    def add(self, sequence: int, incarnation: bytes, digest: bytes) -> None:
        """Remember one; what does not follow the last one begins anew."""
        assert len(incarnation) + len(digest) == _ENTRY_BYTES
        if sequence != self._last + 1:
            self._first = sequence
            self._ring.clear()
        self._last = sequence
        at = (sequence - self._first) % _REMEMBERED * _ENTRY_BYTES
        self._ring[at : at + _ENTRY_BYTES] = incarnation + digest

    def of(self, sequence: int) -> tuple[bytes, bytes]:
        """Incarnation and hash of the one with this sequence; empty if it is not remembered."""
        if not max(self._first, self._last - _REMEMBERED + 1) <= sequence <= self._last:
            return b"", b""
        at = (sequence - self._first) % _REMEMBERED * _ENTRY_BYTES
        entry = bytes(self._ring[at : at + _ENTRY_BYTES])
        return entry[:ID_BYTES], entry[ID_BYTES:]


class Follower:
    """Holds the head of one stream and judges the records read, in the order of the topic."""

    __slots__ = ("_clock", "_counted", "_hold_seconds", "_missing_since", "head", "signers", "topic")

    def __init__(
        self,
        head: Head,
        *,
        topic: str,
        signers: Signers,
        clock: Callable[[], float],
        hold_seconds: float,
    ) -> None:
        self.head = head
        self.topic = topic
        self.signers = signers
        self._clock = clock
        self._hold_seconds = hold_seconds
        self._missing_since: float | None = None
        self._counted = _Counted()

    @property
    def missing(self) -> int | None:
        """The number of the next record, if later ones have come without it; None: it is not missing."""
        return None if self._missing_since is None else self.head.sequence + 1

    def judge(self, record: SealedRecord, generation: int, offset: int) -> Standing:
        """Take the record as the new head if it counts; whose it is has been told by `signers`.

        Raises:
            IntegrityError: the hold ran out, or the producer was cloned. The head is unchanged.
        """
        header = record.header
        if not generation:
            return Standing.UNSIGNED if header.epoch == self.head.epoch else Standing.OTHER_EPOCH
        head = self.head.link(header, record.hash, generation)
        if head is not None:
            self.head = head
            self._missing_since = None
            self._counted.add(header.sequence, header.incarnation, record.hash)
            return Standing.COUNTS
        incarnation, known = self._counted.of(header.sequence)
        if known == record.hash:
            return Standing.REPEATED
        if generation < self.head.generation:
            return Standing.STRAY  # of a producer that was succeeded: whoever has its key can do no harm with it
        if incarnation == header.incarnation:
            raise IntegrityError(
                f"two different signed records of one incarnation have sequence {header.sequence}: "
                "the producer was cloned or its key is in other hands",
                place=f"{self.topic}@{offset}",
                hint="freeze the stream; find the second producer before anything else",
            )
        if header.sequence > self.head.sequence + 1 and header.epoch == self.head.epoch:
            self._note_missing(header.sequence, offset)
        return Standing.STRAY

    def _note_missing(self, sequence: int, offset: int) -> None:
        now = self._clock()
        if self._missing_since is None:
            self._missing_since = now
        elif now - self._missing_since >= self._hold_seconds:
            raise IntegrityError(
                f"record {self.head.sequence + 1} is missing: the last that counted is {self.head.sequence}, "
                f"records up to {sequence} came and none linked for {self._hold_seconds:g} s",
                place=f"{self.topic}@{offset}",
                hint="records were lost, altered or put in another order on the way; if this is the embassy's topic, and "
                "home's still has them: stop bridge and consumer, delete this topic, embassy provision apply, start both",
            )
