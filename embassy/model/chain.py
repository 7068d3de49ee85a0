"""Following a stream: which records count, and when to stop waiting for one that is missing.

The rule has one line, `Head.link`. What stands around it is for the reader who sees records that do not link.
Most are scenery (a re-copy, a fenced predecessor's last words, a forgery) and are passed over. Two are not:

* a record beyond the next sequence number means that one is missing; if such records keep coming and none links
  for the hold time, the stream halts;
* two different signed records of one incarnation with one sequence number mean that the producer was cloned.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto

from embassy.model.errors import IntegrityError
from embassy.model.record import Head, SealedRecord

_REMEMBERED = 4096


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


class Follower:
    """Holds the head of one stream and judges each record read, in the order of the topic."""

    __slots__ = ("_clock", "_counted", "_hold_seconds", "_missing_since", "_verified", "head", "topic")

    def __init__(
        self,
        head: Head,
        *,
        topic: str,
        verified: Callable[[SealedRecord], int],
        clock: Callable[[], float],
        hold_seconds: float,
    ) -> None:
        self.head = head
        self.topic = topic
        self._verified = verified
        self._clock = clock
        self._hold_seconds = hold_seconds
        self._missing_since: float | None = None
        self._counted: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()

    def judge(self, record: SealedRecord, offset: int) -> Standing:
        """Take the record as the new head if it counts.

        Raises:
            IntegrityError: the hold ran out, or the producer was cloned. The head is unchanged.
        """
        header = record.header
        generation = self._verified(record)
        if not generation:
            return Standing.UNSIGNED if header.epoch == self.head.epoch else Standing.OTHER_EPOCH
        head = self.head.link(header, record.hash, generation)
        if head is not None:
            self.head = head
            self._missing_since = None
            self._counted[header.sequence] = (header.incarnation, record.hash)
            if len(self._counted) > _REMEMBERED:
                self._counted.popitem(last=False)
            return Standing.COUNTS
        incarnation, known = self._counted.get(header.sequence, (b"", b""))
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
                hint="a carrier or broker lost or altered records; copy them again from the home topic, or resync",
            )
