"""A few clients with which many streams look into their topics: where a head is searched, and a record read back.

A client is threads, connections and their buffers, a megabyte or more. A stream looks when it starts and when it begins
an incarnation; a client of its own would be idle for all the time between. So would those that many streams have used at
a start: what nobody has borrowed for a while is closed. Its threads wake several times a second, and where the broker
is down they connect again and again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer

from embassy.model.errors import TransientError
from embassy.runtime.config import KafkaCluster
from embassy.runtime.heap import give_back
from embassy.wire.kafka_reader import QUESTION_WAIT_MS, Fetched, bounds_of, new_consumer, read_from

_CLIENTS = 4
_WAIT_SECONDS = 120.0
_IDLE_SECONDS = 30.0


class _Idle(NamedTuple):
    consumer: Consumer
    since: float
    """Monotonic."""


class ReaderPool:
    """Clients for one cluster, made when they are needed and kept while they are."""

    def __init__(
        self, cluster: KafkaCluster, client: str, *, most: int = _CLIENTS, idle_seconds: float = _IDLE_SECONDS
    ) -> None:
        """Connect to nothing yet.

        Args:
            cluster: which.
            client: its name in the brokers' logs.
            most: so many streams look at the same time, and others wait.
            idle_seconds: after which a client that nobody has borrowed is closed.
        """
        self._cluster = cluster
        self._client = client
        self._idle_seconds = idle_seconds
        self._turns = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []
        """The one that was given back last is last, and taken first: under a few streams' looks, the others grow old."""
        self._tidying: threading.Timer | None = None
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
            tidying, self._tidying = self._tidying, None
        if tidying is not None:
            tidying.cancel()
            tidying.join()
        for consumer, _ in idle:
            consumer.close()

    def _taken(self) -> Consumer:
        with self._lock:
            if self._idle:
                return self._idle.pop().consumer
            self._made += 1
            number = self._made
        return new_consumer(
            self._cluster, f"{self._client}-{number}", None, eof=True, fetch_wait_ms=QUESTION_WAIT_MS
        )

    def _give_back(self, consumer: Consumer) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(_Idle(consumer, time.monotonic()))
                if self._tidying is None:
                    self._tidy_in(self._idle_seconds)
                return
        consumer.close()

    def _tidy_in(self, seconds: float) -> None:
        self._tidying = threading.Timer(seconds, self._tidy)
        self._tidying.name = f"{self._client}-tidy"
        self._tidying.daemon = True
        self._tidying.start()

    def _tidy(self) -> None:
        """Close what was not borrowed for so long; the lock is free while that lasts."""
        with self._lock:
            if self._closed:
                return
            limit = time.monotonic() - self._idle_seconds
            old = [idle.consumer for idle in self._idle if idle.since <= limit]
            del self._idle[: len(old)]
        for consumer in old:
            consumer.close()
        give_back()  # what they and the start have used: 2 to 5 MB of each process with a hundred streams
        with self._lock:
            self._tidying = None
            if self._idle and not self._closed:
                self._tidy_in(max(0.0, self._idle[0].since + self._idle_seconds - time.monotonic()))


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
