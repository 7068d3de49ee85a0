"""Batches that hold nothing but numbered transactions, and records of them, for schedules of pure logic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import zstandard

from embassy.model.batch import Batch, Transaction
from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.record import Head, RecordKind, SealedRecord
from embassy.wire.batch_codec import BatchEncoder
from tests.harness.memory_log import seal

_ENCODER = BatchEncoder()


def numbered(numbers: Sequence[int], part: int = 0, *, complete: bool = True) -> Batch:
    """A batch of transactions; number n ends at position n and is of xid n."""
    transactions = tuple(Transaction(n, Lsn(n), Lsn(n if complete else 0), n * 1000, 0) for n in numbers)
    return Batch((), (), b"", transactions, part, complete)


def batch_records(
    head: Head, incarnation: bytes, batch: Batch, resume_lsn: int, cuts: int = 1
) -> Iterator[tuple[bytes, Head]]:
    """The batch's records, "sealed" as the memory log does, cut into so many."""
    content = zstandard.ZstdCompressor(level=1).compress(_ENCODER.encode(batch))
    edges = [len(content) * i // cuts for i in range(cuts + 1)]
    for part in range(cuts):
        last = part == cuts - 1
        value, head = seal(
            head,
            RecordKind.DATA,
            incarnation=incarnation,
            body=content[edges[part] : edges[part + 1]],
            resume_lsn=resume_lsn if last else None,
            part=part,
            last=last,
        )
        yield value, head


class MemoryOpener:
    """Opens what `batch_records` made, if it was given the incarnation's KEY record."""

    def __init__(self) -> None:
        self.incarnation = b""

    def take_key(self, record: SealedRecord) -> None:
        """As Opener.take_key."""
        self.incarnation = record.header.incarnation

    def open(self, record: SealedRecord) -> bytes:
        """As Opener.open."""
        if record.header.incarnation != self.incarnation:
            raise IntegrityError("the data key of this incarnation is not known")
        return record.body
