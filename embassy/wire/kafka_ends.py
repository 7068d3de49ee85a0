"""The ends of many topics at once, through one client: what the newest records are, and where.

A cluster that does not answer is an error of the whole reading, and costs its time-out once, not once a topic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from embassy.model.errors import EmbassyError
from embassy.runtime.config import KafkaCluster
from embassy.wire.kafka_client import as_embassy_error, unreachable
from embassy.wire.kafka_reader import QUESTION_WAIT_MS, Fetched, as_fetched, fetch_error, new_consumer, watermarks

_POLL_SECONDS = 0.2
_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)

_UNREACHABLE = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)


class Range(NamedTuple):
    """Offsets: start ≤ offset < stop."""

    start: int
    stop: int


class TopicEnds:
    """One cluster's topics; for one thread."""

    def __init__(
        self,
        cluster: KafkaCluster,
        client: str,
        *,
        timeout_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = cluster.bootstrap
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        # librdkafka names the reason why it cannot connect here, and only "timed out" in the answer to a request
        self._last_error: KafkaError | None = None
        self._new_consumer = partial(
            new_consumer, cluster, client, self._on_error, eof=False, fetch_wait_ms=QUESTION_WAIT_MS
        )
        self._consumer: Consumer = self._new_consumer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._consumer.close()

    def bounds(self, topics: Iterable[str]) -> dict[str, Range | None]:
        """Of each topic the first offset held and the next to be given; None if there is no such topic.

        Raises:
            TransientError: the cluster is unreachable.
            ConfigurationError: it does not let this client look.
        """
        found: dict[str, Range | None] = {}
        for topic in topics:
            try:
                found[topic] = Range(*watermarks(self._consumer, topic, self._timeout_seconds))
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if error.code() not in _ABSENT:
                    raise self._unanswered(error) from exception
                found[topic] = None
        return found

    def read(self, ranges: Mapping[str, Range]) -> dict[str, list[Fetched]]:
        """The records of a range of each topic; all that are there when they have been read or passed over.

        Raises:
            TransientError: the cluster sent nothing for the length of the time-out.
            IntegrityError: a topic no longer holds its range.
        """
        found: dict[str, list[Fetched]] = {topic: [] for topic in ranges}
        missing = {topic: wanted for topic, wanted in ranges.items() if wanted.start < wanted.stop}
        if not missing:
            return found
        self._consumer.assign([TopicPartition(topic, 0, wanted.start) for topic, wanted in missing.items()])
        deadline = self._clock() + self._timeout_seconds
        try:
            while missing:
                message = self._consumer.poll(_POLL_SECONDS)
                if message is None:
                    if self._clock() > deadline:
                        silent = self._unanswered(KafkaError(KafkaError._TIMED_OUT))
                        self._begin_anew()
                        raise silent
                    continue
                deadline = self._clock() + self._timeout_seconds
                topic = message.topic() or ""
                error = message.error()
                if error is not None and not error.retriable():
                    raise fetch_error(error, topic)
                if error is not None or topic not in missing:
                    continue
                fetched = as_fetched(message)
                if fetched.offset < missing[topic].stop:
                    found[topic].append(fetched)
                if fetched.offset >= missing[topic].stop - 1:
                    del missing[topic]
                    self._consumer.incremental_unassign([TopicPartition(topic, 0)])
        finally:
            self._consumer.unassign()
        return found

    def _begin_anew(self) -> None:
        """With another client: one that knew a topic may get nothing of the next one of that name."""
        self._consumer.close()  # librdkafka takes no leader epoch that is lower than the one it knows
        self._consumer = self._new_consumer()

    def _unanswered(self, error: KafkaError) -> EmbassyError:
        self._consumer.poll(0)  # lets it tell of errors
        if error.code() in _UNREACHABLE and self._last_error is not None:
            return unreachable(self._last_error, self._place)
        return as_embassy_error(error, self._place)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last_error = error
