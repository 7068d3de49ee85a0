"""Where a writer goes on: the head of a topic, and the place of a known record in one.

*The head* is found backwards. A KEY that a later DATA record names directly, in its own incarnation, has counted:
its producer read it back before it sent more. (A KEY that merely looks old, or that shares an incarnation, may
never have counted.) From the last such KEY one walks forward, and what links counts. Producers begin a new
incarnation every few minutes, which bounds the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from embassy.model.chain import Signers
from embassy.model.errors import ConfigurationError, IntegrityError
from embassy.model.record import Head, RecordKind, SealedRecord
from embassy.wire.kafka_reader import Fetched
from embassy.wire.record_codec import decode_record, record_or_none

_FIRST_WINDOW = 256
_WINDOW_GROWTH = 2
_SLACK = 2_000


class Log(Protocol):
    """One topic, readable from any offset."""

    @property
    def topic(self) -> str:
        """Its name."""

    def bounds(self) -> tuple[int, int]:
        """First offset held, and the one after the last."""

    def read(self, start: int, stop: int) -> Iterator[Fetched]:
        """Records at start ≤ offset < stop."""


class HeadLostError(IntegrityError):
    """A topic holds records of the stream, and none is proven to have counted."""


class FoundHead(NamedTuple):
    """A topic's head."""

    head: Head
    next_offset: int
    """Just behind the record that is the head (or the topic's first offset at genesis)."""
    key_record: SealedRecord | None
    """The KEY record of the head's incarnation; None at genesis."""


class _Seen(NamedTuple):
    """What the search keeps of a proven record; never its body."""

    offset: int
    record: SealedRecord
    generation: int


def find_head(log: Log, signers: Signers, genesis: Head, *, repeats: bool = False) -> FoundHead | None:
    """The head of a topic, or None if it is the genesis.

    Args:
        log: the topic.
        signers: which of the enrolled producers each record is of.
        genesis: the head that the stream's enrolment defines.
        repeats: a record that counted before the head will do too, in a topic to which only what counts is carried, and
            no KEY before all in front of it. To the carrier, who repeats what comes behind it, it is as good: copies
            count nowhere. So it need not be explained what stands behind a gap, as its own broken connection leaves one.

    Raises:
        HeadLostError: there are records of the stream, but the head cannot be proven from them.
        TransientError: the cluster is unreachable.
    """
    low, high = log.bounds()
    seen: list[_Seen] = []
    start, window = high, _FIRST_WINDOW
    while start > low:
        # Each record is read once: near copies of rows they are a megabyte each.
        begin = max(low, start - window)
        seen = _signed(log, begin, start, signers, seen[:1]) + seen
        proven = _from_proven_key(seen) if begin > low else None
        if proven is not None and (found := proven.head(seen, repeats=repeats)) is not None:
            return found
        start, window = begin, window * _WINDOW_GROWTH
    if not seen:
        return None
    found = _from_all(seen, FoundHead(genesis, low, None), repeats=repeats)
    if repeats and found is not None and found.key_record is None:
        return None  # all that was ever carried stands behind a gap at the very beginning
    if found is None or found.key_record is None:
        raise HeadLostError(
            f"the head cannot be found: {len(seen)} records are left and none is proven to have counted",
            place=log.topic,
            hint="retention passed over the last data key; resync the stream under a new enrolment",
        )
    return found


def locate(log: Log, head: Head, verified: Callable[[SealedRecord], int], hint: int | None = None) -> int:
    """The offset from which reading on continues from a known head.

    ``hint`` is an offset just behind where the record counted, as the reader once noted it: one that points elsewhere is
    not used.

    If the record of the head is not in the topic, reading begins at the topic's start: the chain decides there
    whether what follows links.
    """
    low, high = log.bounds()
    if head.sequence == 0 or low == high:
        return low
    if hint is not None and low < hint <= high:
        found = _scan(log, head, verified, hint - 1, hint)
        if found is not None:
            return found
    near = about(log, lambda record: record.header.sequence >= head.sequence, low, high)
    found = _scan(log, head, verified, max(low, near - _SLACK), min(high, near + _SLACK))
    if found is None:
        found = _scan(log, head, verified, low, high)
    return low if found is None else found


def with_generation(head: Head, key_record: bytes, verified: Callable[[SealedRecord], int]) -> Head:
    """A replica's head with the generation of the producer whose KEY record the replica keeps beside it.

    Raises:
        IntegrityError: what it keeps is no record.
        ConfigurationError: it is nobody's that is enrolled: whatever follows it would be taken for nobody's too.
    """
    if not key_record:
        return head
    generation = verified(decode_record(key_record))
    if not generation:
        raise ConfigurationError(
            "what the replica follows is of a producer that the enrolment does not name",
            place=f"the replica's record {head.sequence}",
            hint="the enrolment's file is an older copy, or the successor in it lacks signatures of present operators: "
            "take the one that the consumer reads",
        )
    return head._replace(generation=generation)


def read_records(log: Log, start: int, stop: int) -> Iterator[tuple[int, SealedRecord]]:
    """The well-formed records of a range; what is not even a record is passed over, as it cannot count."""
    for fetched in log.read(start, stop):
        record = record_or_none(fetched.value)
        if record is not None:
            yield fetched.offset, record


def about(log: Log, beyond: Callable[[SealedRecord], bool], low: int, high: int) -> int:
    """About where the first record stands, at low ≤ offset < high, that is beyond something; ``high`` if none is.

    Exact where all behind that record is beyond too, as without strays and copies.
    """
    while low < high:
        middle = (low + high) // 2
        probe = next(read_records(log, middle, high), None)
        if probe is None or beyond(probe[1]):
            high = middle
        else:
            low = probe[0] + 1
    return low


def skeletons(log: Log, start: int, stop: int) -> Iterator[tuple[int, SealedRecord]]:
    """The same without the bodies of DATA records, which only their hashes depend on."""
    for offset, record in read_records(log, start, stop):
        keep = record if record.header.kind is RecordKind.KEY else record._replace(body=b"")
        yield offset, keep


def _signed(log: Log, start: int, stop: int, signers: Signers, behind: list[_Seen]) -> list[_Seen]:
    read = list(skeletons(log, start, stop))
    generations = signers.of_run([record for _, record in read] + [entry.record for entry in behind])
    seen = (
        _Seen(offset, record, generation) for (offset, record), generation in zip(read, generations, strict=False)
    )
    return [entry for entry in seen if entry.generation]


def _from_all(seen: list[_Seen], beginning: FoundHead, *, repeats: bool) -> FoundHead | None:
    """The head of a topic that was read as a whole; ``beginning`` is the genesis."""
    whole = _walk(seen, beginning).found if beginning.next_offset == 0 else None
    if whole is not None and (whole.key_record is not None or not repeats):
        return whole
    proven = _from_proven_key(seen)
    if proven is not None:
        return proven.head(seen, repeats=repeats)
    if whole is not None:
        return whole
    if any(entry.record.header.kind is RecordKind.DATA for entry in seen):
        return None  # retention has passed over the beginning, and what still names the genesis is a copy
    # It passed over earlier reigns only, and the first producer of this one ended before it sent anything.
    return _walk(seen, beginning).unless_outrun(seen)


def _from_proven_key(seen: list[_Seen]) -> _Walk | None:
    """Forward from the newest proven KEY; None if there is none. The range may be an older one's copy."""
    named = {
        (entry.record.header.previous, entry.record.header.incarnation, entry.generation)
        for entry in seen
        if entry.record.header.kind is RecordKind.DATA
    }
    anchor = -1
    for index, entry in enumerate(seen):
        header = entry.record.header
        # Generations and sequence numbers of what has counted only rise, the latter whatever a producer that was
        # succeeded still writes: of copies behind it, the first is where the KEY counted.
        newest = anchor < 0 or _rank(entry) > _rank(seen[anchor])
        proof = (entry.record.hash, header.incarnation, entry.generation)
        if newest and header.kind is RecordKind.KEY and proof in named:
            anchor = index
    if anchor < 0:
        return None
    offset, record, generation = seen[anchor]
    return _walk(seen[anchor + 1 :], FoundHead(Head.at(record, generation), offset + 1, record))


def _rank(entry: _Seen) -> tuple[int, int]:
    return entry.generation, entry.record.header.sequence


class _Walk(NamedTuple):
    """A head that was reached by walking forward."""

    found: FoundHead
    counted: frozenset[bytes]
    """The hashes of what counted on the way, the beginning included."""
    begun: int
    """The sequence number where the walk began."""
    start: int
    """The offset where it began: a KEY's own, which is among what counted."""
    root: bytes | None
    """The genesis, if it began there: of no record in the topic, so whatever names it branches off."""

    def head(self, seen: list[_Seen], *, repeats: bool) -> FoundHead | None:
        """What was found, if that is enough: to whoever repeats what comes behind it, it always is; see `find_head`."""
        return self.found if repeats else self.unless_outrun(seen)

    def unless_outrun(self, seen: list[_Seen]) -> FoundHead | None:
        """What was found; None if a higher record is not explained by the walk.

        A carrier that starts over repeats records from some older one on; a range of such copies leads to an older
        head. It shows by higher sequence numbers, or by a later producer's records. Those of a replaced producer's late
        words are explained: they branch off from what counted, or are of an incarnation whose KEY is older than the
        head's, or are signed by a producer that was succeeded.

        A KEY from behind the beginning names what has counted, as its producer had found it. One that names nothing of
        the walk is of another history: then the beginning was a copy. So it was if anything that counted on the way is
        there before it too.
        """
        head, _, key_record = self.found
        newest = 0 if key_record is None else key_record.header.sequence
        replaced = {
            record.header.incarnation
            for _, record, _ in seen
            if record.header.kind is RecordKind.KEY and record.header.sequence < newest
        } - {head.incarnation}
        branches = set() if self.root is None else {self.root}
        for offset, record, generation in seen:
            header = record.header
            if offset < self.start and record.hash in self.counted:
                return None
            if generation < head.generation:
                continue
            if record.hash in self.counted or header.previous in branches:  # in this order: behind what it names
                branches.add(record.hash)
            elif (
                generation > head.generation
                or (header.kind is RecordKind.KEY and header.sequence > self.begun)
                or (header.sequence > head.sequence and header.incarnation not in replaced)
            ):
                return None
        return self.found


def _walk(seen: list[_Seen], found: FoundHead) -> _Walk:
    head, next_offset, key_record = found
    begun, counted = head.sequence, {head.hash}
    start = next_offset if key_record is None else next_offset - 1
    root = head.hash if key_record is None else None
    for offset, record, generation in seen:
        linked = head.link(record.header, record.hash, generation)
        if linked is not None:
            head, next_offset = linked, offset + 1
            counted.add(head.hash)
            if record.header.kind is RecordKind.KEY:
                key_record = record
    return _Walk(FoundHead(head, next_offset, key_record), frozenset(counted), begun, start, root)


def _scan(log: Log, head: Head, verified: Callable[[SealedRecord], int], start: int, stop: int) -> int | None:
    for offset, record in read_records(log, start, stop):
        if record.hash == head.hash:
            return offset + 1
        if record.header.previous == head.hash and verified(record):
            return offset
    return None
