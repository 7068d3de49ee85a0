"""From where on a topic still holds a stream: where a carrier begins that finds nothing to go on from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from embassy.model.record import Head, RecordKind, SealedRecord
from embassy.wire.head_search import Log, skeletons


class Beginning(NamedTuple):
    """A place in a topic."""

    head: Head
    """What the first record that counts from there on links to."""
    offset: int


def beginning(log: Log, verified: Callable[[SealedRecord], int], genesis: Head) -> Beginning:
    """The oldest place of a topic from which on everything that counts is there.

    That is the stream's first record, or, where retention has passed over it, the oldest KEY that has counted: one that a
    DATA record of its own incarnation names (ADR 5). What little stands before that KEY is left out.

    Args:
        log: the topic that a producer writes.
        verified: whose each record is.
        genesis: the head that the stream's enrolment defines.

    Returns:
        The genesis and the topic's start where there is no such record (yet).

    Raises:
        TransientError: the cluster is unreachable.
    """
    low, high = log.bounds()
    keys: dict[bytes, tuple[int, SealedRecord]] = {}
    for offset, record in skeletons(log, low, high):
        header = record.header
        if header.previous == genesis.hash and verified(record):
            break
        if header.kind is RecordKind.KEY:
            keys.setdefault(record.hash, (offset, record))
        elif header.previous in keys:
            at, key = keys[header.previous]
            generation = verified(key)
            if generation and header.incarnation == key.header.incarnation and verified(record) == generation:
                return Beginning(_before(key, generation), at)
    return Beginning(genesis, low)


def _before(key: SealedRecord, generation: int) -> Head:
    header = key.header
    return Head(
        header.previous, header.sequence - 1, header.epoch, header.incarnation, header.resume_lsn, generation
    )
