"""A few clients with which many streams look into their topics: where a head is searched, and a record read back.

A client is threads, connections and their buffers, a megabyte or more. A stream looks when it starts and when it begins
an incarnation; a client of its own would be idle for all the time between.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer

from embassy.model.errors import TransientError
from embassy.runtime.config import KafkaCluster
from embassy.wire.kafka_reader import QUESTION_WAIT_MS, Fetched, bounds_of, new_consumer, read_from

_CLIENTS = 4
_WAIT_SECONDS = 120.0


class ReaderPool:
    """Clients for one cluster, made when they are needed and kept."""

    def __init__(self, cluster: KafkaCluster, client: str, *, most: int = _CLIENTS) -> None:
        """Connect to nothing yet; ``most`` streams look at the same time, and others wait."""
        self._cluster = cluster
        self._client = client
        self._turns = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[Consumer] = []
        self._made = 0
        self._closed = False

    def log(self, topic: str) -> PooledLog:
        """One topic, read with whichever client is free."""
        return PooledLog(self, topic)

    @contextmanager
    def borrowed(self, topic: str) -> Iterator[Consumer]:
        """A client, for one question; what fails with an error is not used again.

        Raises:
            TransientError: none became free in time.
        """
        if not self._turns.acquire(timeout=_WAIT_SECONDS):
            raise TransientError(
                f"other streams have kept all readers of the cluster for {_WAIT_SECONDS:g} s",
                place=topic,
                hint="is the cluster up and reachable? each stream tries again by itself",
            )
        try:
            consumer = self._taken()
            try:
                yield consumer
            except GeneratorExit:  # whoever reads has seen enough
                self._give_back(consumer)
                raise
            except BaseException:
                consumer.close()
                raise
            self._give_back(consumer)
        finally:
            self._turns.release()

    def close(self) -> None:
        """End the clients; one that is borrowed ends when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for consumer in idle:
            consumer.close()

    def _taken(self) -> Consumer:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            self._made += 1
            number = self._made
        return new_consumer(
            self._cluster, f"{self._client}-{number}", None, eof=True, fetch_wait_ms=QUESTION_WAIT_MS
        )

    def _give_back(self, consumer: Consumer) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(consumer)
                return
        consumer.close()


class PooledLog:
    """One topic's only partition; any thread may ask, one question at a time."""

    def __init__(self, pool: ReaderPool, topic: str) -> None:
        self.topic = topic
        self._pool = pool

    def bounds(self) -> tuple[int, int]:
        """As `TopicReader.bounds`."""
        with self._pool.borrowed(self.topic) as consumer:
            return bounds_of(consumer, self.topic)

    def read(self, start: int, stop: int) -> Iterator[Fetched]:
        """As `TopicReader.read`."""
        if start >= stop:
            return
        with self._pool.borrowed(self.topic) as consumer:
            yield from read_from(consumer, self.topic, start, stop)
