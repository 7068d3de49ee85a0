"""Records and topics in memory, for schedules of pure logic: signatures are a flag, hashes are real."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from embassy.model.chain import proven
from embassy.model.lsn import Lsn
from embassy.model.record import VERSION, Head, Header, RecordKind, SealedRecord
from embassy.wire.kafka_reader import Fetched
from embassy.wire.record_codec import encode_header, encode_record, record_hash

STREAM = b"\x07" * 16
GENESIS = Head.genesis(hashlib.sha256(b"enrolment").digest(), 1, Lsn(0))
SIGNED = b"signed"


def seal(
    head: Head,
    kind: RecordKind,
    *,
    incarnation: bytes,
    body: bytes = b"",
    resume_lsn: int | None = None,
    signature: bytes | None = None,
    part: int = 0,
    last: bool = True,
    generation: int | None = None,
) -> tuple[bytes, Head]:
    """A record that links to the head, and the head once it counts; by the head's producer if no other is named."""
    generation = generation or head.generation
    header = Header(
        VERSION,
        kind,
        STREAM,
        head.epoch,
        incarnation,
        head.sequence + 1,
        head.hash,
        part,
        last,
        head.resume_lsn if resume_lsn is None else Lsn(resume_lsn),
    )
    header_bytes = encode_header(header)
    after = Head(
        record_hash(header_bytes, body), header.sequence, header.epoch, incarnation, header.resume_lsn, generation
    )
    return encode_record(header_bytes, body, signature or SIGNED + bytes([generation])), after


class MemorySigners:
    """The memory log's stand-in for signature checks: a signature tells its producer's number."""

    def __call__(self, record: SealedRecord) -> int:
        """The producer's number, or 0."""
        return record.signature[-1] if record.signature[:-1] == SIGNED else 0

    def of_run(self, records: Sequence[SealedRecord]) -> list[int]:
        """As RecordVerifier.of_run; the newest producer is the newest of these records."""
        return proven(records, self, max(map(self, records), default=1))


verified = MemorySigners()


@dataclass
class MemoryLog:
    """One topic; ``base`` is its first offset, as after retention."""

    topic: str = "s-memory"
    base: int = 0
    values: list[bytes] = field(default_factory=list)

    def append(self, value: bytes) -> int:
        """The new record's offset."""
        self.values.append(value)
        return self.base + len(self.values) - 1

    def bounds(self) -> tuple[int, int]:
        """As TopicReader.bounds."""
        return self.base, self.base + len(self.values)

    def read(self, start: int, stop: int) -> Iterator[Fetched]:
        """As TopicReader.read."""
        for offset in range(max(start, self.base), min(stop, self.base + len(self.values))):
            yield Fetched(offset, 0, self.values[offset - self.base])

    def truncate_front(self, count: int) -> None:
        """Retention passes over the first records."""
        del self.values[:count]
        self.base += count
