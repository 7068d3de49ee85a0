"""What a superseded home shipped to its own topic and no embassy took: opened, for people to read.

A home that is cut off goes on: its producer ships to home's Kafka, and confirms that to the slot. Once the embassy is
promoted, what lies between is in that topic only. Whoever holds a recipient key for which home's producer wrapped its
data keys can read it there, as a consumer would.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

from consumers.batch_transactions import transactions
from consumers.inbox import Event, Inbox
from embassy.model.chain import Follower, Standing
from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.record import Head, SealedRecord
from embassy.model.source_transaction import SourceTransaction
from embassy.wire.enrolment import Enrolment
from embassy.wire.head_search import FoundHead, Log, about, find_head, locate
from embassy.wire.kafka_reader import Fetched
from embassy.wire.opening import Opener
from embassy.wire.recipient_keys import RecipientKeys
from embassy.wire.verifying import RecordVerifier


class HomeTopic:
    """One stream's topic at home, of the epoch that ended."""

    def __init__(self, log: Log, enrolment: Enrolment, keys: RecipientKeys) -> None:
        """Take what it is read with.

        Args:
            log: the topic; records of a later epoch may follow in it.
            enrolment: by which home wrote.
            keys: one of those for whom home's producer wrapped its data keys.
        """
        self._log = log
        self._enrolment = enrolment
        self._keys = keys
        self._signers = RecordVerifier(enrolment)

    def transactions(self, after: Lsn, upto: Lsn) -> Iterator[SourceTransaction]:
        """All that were committed between two positions, in commit order.

        Args:
            after: a transaction that ends here is the last one left out.
            upto: one that ends here is the last one taken.

        Raises:
            IntegrityError: the topic does not hold all of them, or they cannot be opened; those before it were given.
            TransientError: the cluster is unreachable.
        """
        low, high = self._log.bounds()
        start = self._begin(low, high, after)
        opener = Opener(self._keys, self._enrolment)
        head, offset = start.head, low
        if start.key_record is not None:
            opener.take_key(start.key_record)
            head = Head.at(start.key_record, self._signers(start.key_record))
            offset = locate(_Clipped(self._log, low, start.next_offset), head, self._signers)
        follower = Follower(
            head, topic=self._log.topic, signers=self._signers, clock=time.monotonic, hold_seconds=math.inf
        )
        inbox = Inbox(follower, opener, _Untold())
        reached = after
        for transaction in transactions(_until(inbox.receive(self._log.read(offset, high)), upto)):
            reached = transaction.end_lsn
            if after < reached <= upto:
                yield transaction
        if inbox.head.resume_lsn < upto:
            raise IntegrityError(
                f"home's topic ends at {inbox.head.resume_lsn}, and the slot was confirmed up to {upto}",
                place=self._log.topic,
                hint="home's brokers have lost records, or another cluster is configured",
            )

    def _begin(self, low: int, high: int, after: Lsn) -> FoundHead:
        """A head at or before a position; its data key begins the reading."""
        genesis = self._enrolment.genesis()
        epoch = self._enrolment.epoch

        def beyond(record: SealedRecord) -> bool:
            return record.header.epoch > epoch or record.header.resume_lsn > after

        stop = about(self._log, beyond, low, high)
        while stop > low:
            found = find_head(_Clipped(self._log, low, stop), self._signers, genesis)
            if found is not None and found.head.resume_lsn <= after:
                return found
            stop = low + (stop - low) // 2  # copies of later records stand before it
        if low == 0:
            return FoundHead(genesis, low, None)
        raise IntegrityError(
            f"home's topic begins behind {after}: its retention has passed over what the embassy did not take",
            place=self._log.topic,
        )


class _Clipped(NamedTuple):
    """A topic as if it ended earlier."""

    log: Log
    low: int
    stop: int

    @property
    def topic(self) -> str:
        return self.log.topic

    def bounds(self) -> tuple[int, int]:
        return self.low, self.stop

    def read(self, start: int, stop: int) -> Iterator[Fetched]:
        return self.log.read(start, stop)


class _Untold:
    """Nobody watches this reading."""

    def received(self, head: Head, timestamp_ms: int) -> None: ...

    def ignored(self, standing: Standing) -> None: ...

    def missing(self, sequence: int | None) -> None: ...


def _until(events: Iterator[Event], upto: Lsn) -> Iterator[Event]:
    for event in events:
        yield event
        if event.head.resume_lsn >= upto:
            return
