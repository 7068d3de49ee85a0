"""What can be said of a stretch of a topic that was not read from its start.

A record counts if it links to the head, and where reading begins in the middle the head is not known. What is known: of
two records that both name a third only the first can count; and a KEY that a DATA record names directly, in its own
incarnation, has counted (see `embassy.wire.head_search`). So the stretch is sorted into chains. Once a chain holds such a
KEY, or begins at the stream's genesis, all of it counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from embassy.model.record import Head, RecordKind, SealedRecord

_REMEMBERED = 8192


class Mark(Enum):
    """How a record stands to those before it in the stretch."""

    LINKS = "links"
    """It names the record before it in its chain."""
    BEGINS = "begins"
    """What it names is from before the stretch."""
    STRAY = "stray"
    """What it names was followed by another record first, or it does not follow by number, epoch or incarnation."""
    REPEATED = "repeated"
    """A copy of an earlier record."""
    UNSIGNED = "unsigned"
    """Not signed by the enrolled producer."""
    MALFORMED = "malformed"
    """No record at all."""


@dataclass(slots=True)
class Chain:
    """Records that link to each other without a gap."""

    head: Head
    first_sequence: int
    offset: int
    """Of the head."""
    timestamp_ms: int
    """Of the head."""
    length: int = 1
    proven: bool = False
    """Whether it is certain that its records count."""
    _ends_in_key: bool = False

    def add(self, record: SealedRecord, generation: int, offset: int, timestamp_ms: int) -> bool:
        """Take the record as the new head, if it links."""
        head = self.head.link(record.header, record.hash, generation)
        if head is None:
            return False
        is_key = record.header.kind is RecordKind.KEY
        self.proven = self.proven or (self._ends_in_key and not is_key)
        self.head, self.offset, self.timestamp_ms = head, offset, timestamp_ms
        self.length += 1
        self._ends_in_key = is_key
        return True


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of the stretch, judged."""

    offset: int
    timestamp_ms: int
    value_bytes: int
    record: SealedRecord | None
    """Without its body; None if there is none."""
    mark: Mark
    chain: Chain | None

    @property
    def signed(self) -> bool:
        """Whether the enrolled producer signed it."""
        return self.mark not in (Mark.UNSIGNED, Mark.MALFORMED)


class Stretch:
    """Takes records in the order of the topic, without leaving any out, and remembers the last few thousand."""

    def __init__(self, verified: Callable[[SealedRecord], int], genesis: Head | None = None) -> None:
        """Begin.

        Args:
            verified: which of the enrolled producers signed a record, from 1; 0 is none.
            genesis: the head before the first record, where the stretch may begin with that.
        """
        self._verified = verified
        self._ends: dict[bytes, Chain] = {}
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._chains: list[Chain] = []
        if genesis is not None:
            self._ends[genesis.hash] = Chain(genesis, 1, -1, 0, length=0, proven=True)

    def take(self, offset: int, timestamp_ms: int, value_bytes: int, record: SealedRecord | None) -> Entry:
        """Judge the next record; None is a value that is no record."""
        mark, chain = self._judge(offset, timestamp_ms, record)
        kept = record._replace(body=b"") if record is not None else None
        return Entry(offset, timestamp_ms, value_bytes, kept, mark, chain)

    def newest(self) -> Chain | None:
        """The chain that goes on, by all that is known: a proven one, else the longest, else the highest number."""
        return max(
            self._chains,
            key=lambda chain: (chain.head.generation if chain.proven else 0, chain.length, chain.head.sequence),
            default=None,
        )

    def counts(self, entry: Entry) -> bool | None:
        """Whether a record counts; None: this stretch does not tell."""
        if entry.mark not in (Mark.LINKS, Mark.BEGINS):
            return False
        assert entry.chain is not None, "what links or begins is of a chain"
        assert entry.record is not None, "and is a record"
        if entry.chain.proven:
            return True
        sequence = entry.record.header.sequence
        outdone = any(
            chain.proven and chain.first_sequence <= sequence <= chain.head.sequence for chain in self._chains
        )
        return False if outdone else None

    def _judge(self, offset: int, timestamp_ms: int, record: SealedRecord | None) -> tuple[Mark, Chain | None]:
        if record is None:
            return Mark.MALFORMED, None
        generation = self._verified(record)
        if not generation:
            return Mark.UNSIGNED, None
        if record.hash in self._seen:
            return Mark.REPEATED, None
        previous = record.header.previous
        known = previous in self._seen
        self._remember(record.hash)
        chain = self._ends.get(previous)
        if chain is not None and chain.add(record, generation, offset, timestamp_ms):
            del self._ends[previous]
            self._ends[record.hash] = chain
            if chain.length == 1:  # the first behind genesis
                self._chains.append(chain)
            return Mark.LINKS, chain
        if known or chain is not None:
            return Mark.STRAY, None
        return Mark.BEGINS, self._begin(record, generation, offset, timestamp_ms)

    def _begin(self, record: SealedRecord, generation: int, offset: int, timestamp_ms: int) -> Chain:
        header = record.header
        head = Head.at(record, generation)
        is_key = header.kind is RecordKind.KEY
        chain = Chain(head, header.sequence, offset, timestamp_ms, _ends_in_key=is_key)
        self._ends[record.hash] = chain
        self._chains.append(chain)
        return chain

    def _remember(self, record_hash: bytes) -> None:
        self._seen[record_hash] = None
        if len(self._seen) > _REMEMBERED:
            forgotten, _ = self._seen.popitem(last=False)
            ended = self._ends.pop(forgotten, None)
            if ended is not None and not ended.proven and ended in self._chains:
                self._chains.remove(ended)
