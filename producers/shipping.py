"""One producer's records in the topic: batches, and the KEYs with which its incarnations begin, each behind its head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from embassy.model.batch import Batch
from embassy.model.lsn import Lsn
from embassy.model.record import SealedRecord
from embassy.pg.replication_session import SourceIdentity
from embassy.runtime import failpoints
from embassy.runtime.config import ProducerTuning
from embassy.runtime.failpoints import failpoint
from embassy.wire.batch_codec import BatchEncoder
from embassy.wire.head_search import Log
from embassy.wire.kafka_writer import Appender
from embassy.wire.sealing import Sealer
from producers.confirming import Confirming
from producers.incarnation import Standing, begin_incarnation, must_follow
from producers.renewal import Renewal


class Gauges(Protocol):
    """What is told of it, once a batch."""

    def captured(self, batch: Batch, encoded_bytes: int) -> None:
        """A batch was built."""


class Shipping:
    """What appends to a stream's topic; used by the producer's loop only."""

    def __init__(
        self,
        *,
        standing: Standing,
        appender: Appender,
        log: Log,
        verified: Callable[[SealedRecord], int],
        sealer: Sealer,
        source: SourceIdentity,
        named: Callable[[bytes], bytes],
        renewal: Renewal,
        confirming: Confirming,
        tuning: ProducerTuning,
        gauges: Gauges,
    ) -> None:
        """Take where to go on, and with what.

        Args:
            standing: the topic's head.
            appender: of the topic.
            log: the topic, to read back a KEY.
            verified: which of the enrolled producers signed a record, from 1; 0 is none.
            sealer: makes the records.
            source: named in each KEY.
            named: gives an incarnation its name; see `producers.incarnation.begin_incarnation`.
            renewal: told what was sealed.
            confirming: told what was shipped, and takes acknowledgements.
            tuning: limits.
            gauges: told of each batch.
        """
        self.head = standing.head
        """The last record that was appended; read by other threads too."""
        self.source = source
        """Whose records they are."""
        self._appender = appender
        self._log = log
        self._verified = verified
        self._sealer = sealer
        self._named = named
        self._renewal = renewal
        self._confirming = confirming
        self._tuning = tuning
        self._gauges = gauges
        self._encoder = BatchEncoder()

    @property
    def idle(self) -> bool:
        """Whether the cluster has acknowledged everything."""
        return self._appender.inflight == 0

    def begin(self) -> None:
        """Append a KEY that counts, while nothing is on the way; from then on the topic is this producer's.

        Raises:
            TransientError, RefusedError, IntegrityError: as `begin_incarnation`.
        """
        self._renewal.begins()
        self.head, self._confirming.next_offset = begin_incarnation(
            Standing(self.head, self._confirming.next_offset),
            sealer=self._sealer,
            source=self.source,
            named=self._named,
            append_and_wait=self._confirming.append_and_wait,
            log=self._log,
            verified=self._verified,
        )
        failpoint(failpoints.PRODUCER_AFTER_KEY_COUNTED)

    def renew(self) -> None:
        """Begin anew, right behind what was appended.

        Raises:
            TransientError: another producer has written in between; or as `begin`.
        """
        before = self.head
        self.begin()
        must_follow(before, self.head, self._log.topic)

    def ship(self, batch: Batch, resume_lsn: Lsn) -> None:
        """Append a batch.

        Args:
            batch: what to append.
            resume_lsn: where a successor goes on that finds all of it in the topic.

        Raises:
            EmbassyError: an append before it was refused, or the source's session ended meanwhile.
        """
        encoded = self._encoder.encode(batch)
        self._gauges.captured(batch, len(encoded))
        number = -1
        for sealed in self._sealer.data_records(self.head, encoded, resume_lsn, self._tuning.record_bytes):
            while self._confirming.crowded:
                self._confirming.await_acks()
            failpoint(failpoints.PRODUCER_BEFORE_APPEND)
            number = self._appender.append(sealed.value)
            failpoint(failpoints.PRODUCER_AFTER_APPEND)
            self.head = sealed.head
            self._renewal.sealed(len(sealed.value))
        committed_at = batch.transactions[-1].committed_at if batch.transactions and batch.complete else 0
        self._confirming.shipped(number, resume_lsn, committed_at)

    def settle(self) -> None:
        """Wait until the cluster has everything."""
        while not self.idle:
            self._confirming.await_acks()
