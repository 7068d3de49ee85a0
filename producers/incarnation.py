"""Becoming the stream's writer: note it at the source, append a KEY that links to the head, read back whether it counted.

PostgreSQL lets one session hold the slot, so a predecessor is gone or about to be. What it may still have on its
way to the topic either arrives before our KEY, and then our KEY does not count and we try again behind it; or
after, and then it does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from embassy.model.errors import IntegrityError, RefusedError, TransientError
from embassy.model.record import Head, SealedRecord
from embassy.pg.replication_session import SourceIdentity
from embassy.runtime.failpoints import PRODUCER_AFTER_INCARNATION_NOTED, PRODUCER_AFTER_KEY_APPENDED, failpoint
from embassy.wire.head_search import Log, read_records
from embassy.wire.sealing import Sealer

_ATTEMPTS = 10


class Standing(NamedTuple):
    """Where a producer stands in its topic."""

    head: Head
    next_offset: int
    """Just behind the head's record."""


def begin_incarnation(
    standing: Standing,
    *,
    sealer: Sealer,
    source: SourceIdentity,
    named: Callable[[bytes], bytes],
    append_and_wait: Callable[[bytes], int],
    log: Log,
    verified: Callable[[SealedRecord], int],
) -> Standing:
    """Append KEY records until one counts.

    Args:
        standing: the head as last known.
        sealer: makes the KEY; on return it holds the data key of the one that counted.
        source: named in the KEY, for the next start's continuity check.
        named: gives the next incarnation a name, told which one counts now; the source has noted it on return.
        append_and_wait: appends a value and returns its offset once every in-sync replica has it.
        log: the topic, to read back.
        verified: which of the enrolled producers signed a record, from 1; 0 is none.

    Raises:
        TransientError: the source cannot note anything just now.
        RefusedError: a successor of this producer has taken the stream over.
        IntegrityError: another producer keeps appending.
    """
    head, next_offset = standing
    for _ in range(_ATTEMPTS):
        if head.generation > sealer.generation:
            raise RefusedError(
                f"the stream's producer number {head.generation} has taken over, and this one is number "
                f"{sealer.generation}: nothing it writes counts any more",
                place=log.topic,
                hint="give this producer the new identity in keys.identity, or stop it",
            )
        name = named(head.incarnation)
        failpoint(PRODUCER_AFTER_INCARNATION_NOTED)
        sealed = sealer.key_record(
            head, name, system_identifier=source.system_identifier, timeline=source.timeline
        )
        offset = append_and_wait(sealed.value)
        failpoint(PRODUCER_AFTER_KEY_APPENDED)
        for at, record in read_records(log, next_offset, offset + 1):
            generation = verified(record)
            linked = head.link(record.header, record.hash, generation) if generation else None
            if linked is not None:
                head, next_offset = linked, at + 1
        if head.hash == sealed.head.hash:
            return Standing(head, next_offset)
    raise IntegrityError(
        f"{_ATTEMPTS} KEY records in turn did not count: another producer with this identity keeps writing",
        place=log.topic,
        hint="find it: it does not hold this stream's slot",
    )


def must_follow(before: Head, after: Head, topic: str) -> None:
    """Make sure that a KEY is the very next record behind what this producer has appended.

    If not, another one has had the slot and written meanwhile. What it shipped was never seen here, by the copies of
    tables for one: a start finds its way, the loop need not.

    Raises:
        TransientError: something counted in between.
    """
    if after.sequence != before.sequence + 1:
        raise TransientError(
            f"another producer has written {after.sequence - before.sequence - 1} records while the slot was let go",
            place=topic,
            hint="nothing to do: this one begins anew behind them",
        )
