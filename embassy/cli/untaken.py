"""What a superseded database committed and the embassy does not have: from home's topic, then from the slot.

The slot has what its producer had not confirmed. Where home was cut off and went on, its producer confirmed more than the
embassy took; that is read from home's own topic.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from consumers.home_topic import HomeTopic
from embassy.cli.recipient_holder import recipient_holder
from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.source_transaction import SourceTransaction
from embassy.pg.unshipped import peek, slot_place
from embassy.runtime.config import KafkaCluster, Settings, Stream
from embassy.wire.enrolment import load_enrolment
from embassy.wire.kafka_reader import TopicReader
from producers.slot_transactions import transactions


class Gap(NamedTuple):
    """What cannot be told."""

    after_lsn: Lsn
    upto_lsn: Lsn
    """What lies between the two, this end included."""
    why: str


class HomeTopics:
    """Home's topics of the epoch that ended, as far as the configuration lets them be opened."""

    def __init__(self, settings: Settings, cluster: KafkaCluster | None) -> None:
        """Load the recipient's key, if the configuration names one or a keyd.

        Args:
            settings: of the command.
            cluster: home's.

        Raises:
            ConfigurationError: the key cannot be used.
        """
        self._settings = settings
        self._cluster = cluster
        self._keys = recipient_holder(settings)

    def transactions(
        self, stream: Stream, enrolment: Path | None, after: Lsn, upto: Lsn
    ) -> Iterator[SourceTransaction]:
        """All that was committed between two positions, as `HomeTopic.transactions` has it.

        Args:
            stream: which.
            enrolment: by which home wrote.
            after: a transaction that ends here is the last one left out.
            upto: one that ends here is the last one taken.

        Raises:
            IntegrityError: as there; or the configuration lacks what it takes.
            TransientError: the cluster is unreachable.
        """
        if self._keys is None or self._cluster is None or enrolment is None:
            raise IntegrityError(
                "it is in home's Kafka only, and this configuration cannot open it: keys.recipient or keyd, home's "
                "cluster, and the enrolment of the epoch that ended (streams.NAME.superseded) have to be there"
            )
        keys = self._settings.keys
        known = load_enrolment(enrolment, operators=keys.operators, threshold=keys.threshold, stream=stream.stream)
        with TopicReader(self._cluster, stream.topic, "failback") as log:
            yield from HomeTopic(log, known, self._keys).transactions(after, upto)


class Untaken:
    """What one database committed and the embassy does not have; reads everything anew each time it is asked."""

    def __init__(self, stream: Stream, enrolment: Path | None, after: Lsn, topics: HomeTopics) -> None:
        """Note where it is.

        Args:
            stream: which.
            enrolment: by which home wrote it.
            after: the embassy has everything up to here.
            topics: reads home's.
        """
        self.after = after
        self.gap: Gap | None = None
        """Once everything was read: what was not to be had."""
        self._stream = stream
        self._enrolment = enrolment
        self._topics = topics

    def transactions(
        self, session: psycopg.Connection[Any], slot: str, publication: str
    ) -> Iterator[SourceTransaction]:
        """All of it that can be told, in commit order; then `gap` says what could not.

        Args:
            session: of the database.
            slot: that it was replicated from; it stays where it is.
            publication: that of the slot.

        Raises:
            IntegrityError: the slot is gone, or has lost log.
            RefusedError: a session holds the slot.
            TransientError: home's cluster is unreachable.
        """
        self.gap = None
        confirmed = slot_place(session, slot).confirmed_lsn
        if confirmed > self.after:
            yield from self._confirmed(confirmed)
        yield from transactions(peek(session, slot, publication), max(self.after, confirmed))

    def _confirmed(self, confirmed: Lsn) -> Iterator[SourceTransaction]:
        told = self.after
        try:
            for transaction in self._topics.transactions(self._stream, self._enrolment, self.after, confirmed):
                yield transaction
                told = transaction.end_lsn
        except IntegrityError as error:
            self.gap = Gap(told, confirmed, str(error))
