"""Reading topics: many streams through one client, and one topic by itself.

No consumer group, no committed offsets: whoever reads knows from the destination where to begin, and the chain
proves that nothing is missing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from embassy.model.errors import EmbassyError, IntegrityError, TransientError
from embassy.runtime.config import KafkaCluster
from embassy.wire.kafka_client import as_embassy_error, client_config

_OWN_WORDS = (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
"""A client's for what no broker has told it of."""
_METADATA_SECONDS = 10.0
_POLL_SECONDS, _SETTLED_POLL_SECONDS = 0.05, 0.25
"""How long streams that want something of the client wait for it at most."""
_SETTLED_SECONDS = 5.0
"""After which, while no stream wants anything and none is full, the longer one does."""
_TAKE = 200
_FETCH_WAIT_MS = 500
"""A record is fetched as soon as it is there. What waits for an answer is only a partition that is added or goes on."""
QUESTION_WAIT_MS = 10
"""How long a broker may keep a fetch at a topic's end for a client that is asked now this, now that: the next question
waits for its answer."""
_LATEST_MS = 253_402_300_799_999
"""The end of the year 9999."""


class Fetched(NamedTuple):
    """A Kafka record as it came."""

    offset: int
    timestamp_ms: int
    value: bytes


def new_consumer(
    cluster: KafkaCluster,
    client: str,
    on_error: Callable[[KafkaError], None] | None,
    *,
    eof: bool,
    fetch_wait_ms: int = _FETCH_WAIT_MS,
) -> Consumer:
    """A client that reads partitions it is told to, from offsets it is told, and joins no group.

    Args:
        cluster: the cluster.
        client: its name in the brokers' logs.
        on_error: told what befalls the client as a whole.
        eof: whether to tell that a partition's end was reached.
        fetch_wait_ms: how long a broker may wait for a first record before it answers that there is none. Each answer
            and each question names every partition: with many idle ones, few of them are the cheaper way to wait.
    """
    config: dict[str, Any] = client_config(cluster, client) | {
        "group.id": f"embassy-{client}",  # librdkafka wants one even where none is joined
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": eof,
        "check.crcs": True,
        "fetch.wait.max.ms": fetch_wait_ms,
        "fetch.message.max.bytes": 4 << 20,
        "queued.max.messages.kbytes": 8 << 10,
        "fetch.error.backoff.ms": 100,
    }
    if on_error is not None:
        config["error_cb"] = on_error
    return Consumer(config)


def fetch_error(error: KafkaError, place: str) -> EmbassyError:
    """The family of what a reader was told: a topic that is gone or cut short is a doubt about the stream."""
    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        return IntegrityError(
            f"the topic no longer holds the next record ({error.str()})",
            place=place,
            hint="its retention passed, or it was emptied or recreated: carry it again, or resync",
        )
    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, *_OWN_WORDS):
        return IntegrityError(
            "the topic is gone", place=place, hint="embassy provision apply creates a new stream's"
        )
    return as_embassy_error(error, place)


def confirmed(consumer: Consumer, topic: str, error: KafkaError, timeout_seconds: float) -> KafkaError:
    """An error, or the truth in its place: that a topic is gone counts only from a broker's mouth.

    A client that has lost its brokers forgets in time which partitions there are, and then says by itself that it knows
    none: one that was used before does so at once, where a new one would wait for an answer.
    """
    if error.code() not in _OWN_WORDS:
        return error
    try:
        found = consumer.list_topics(topic, timeout=timeout_seconds).topics.get(topic)
    except KafkaException as exception:
        unanswered: KafkaError = exception.args[0]
        return unanswered
    there = found is not None and found.error is None
    return KafkaError(KafkaError.LEADER_NOT_AVAILABLE) if there else error


def _unconfirmed(error: KafkaError, place: str) -> EmbassyError:
    """As `fetch_error`, in the thread that serves many streams and cannot wait for a broker's word, as `confirmed` does.

    Whoever reads begins again, and asks for the topic's bounds.
    """
    if error.code() in _OWN_WORDS:
        return TransientError(
            f"the client knows no such topic any more ({error.str()})",
            place=place,
            hint="the stream begins again, and asks a broker whether it is gone",
        )
    return fetch_error(error, place)


def watermarks(consumer: Consumer, topic: str, timeout_seconds: float) -> tuple[int, int]:
    """The first offset that the topic's partition still holds, and the one that its next record will get.

    Raises:
        KafkaException: there is no such topic, or no broker answers in time; see `confirmed`.
    """
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=timeout_seconds)
    except KafkaException as exception:
        raise KafkaException(confirmed(consumer, topic, exception.args[0], timeout_seconds)) from exception
    return low, high


def bounds_of(consumer: Consumer, topic: str) -> tuple[int, int]:
    """As `watermarks`.

    Raises:
        TransientError: the cluster is unreachable.
        IntegrityError: the topic does not exist.
    """
    try:
        return watermarks(consumer, topic, _METADATA_SECONDS)
    except KafkaException as exception:
        raise fetch_error(exception.args[0], topic) from exception


def read_from(consumer: Consumer, topic: str, start: int, stop: int) -> Iterator[Fetched]:
    """The records at offsets start ≤ offset < stop, in order; ``stop`` is at most the end that `bounds_of` told.

    Raises:
        TransientError: the cluster is unreachable, or its new leader has not caught up with that end.
        IntegrityError: the topic is gone, or no longer holds the records.
    """
    if start >= stop:
        return
    consumer.assign([TopicPartition(topic, 0, start)])
    try:
        while True:
            message = consumer.poll(_METADATA_SECONDS)
            if message is None:
                raise as_embassy_error(KafkaError(KafkaError._TIMED_OUT), topic)
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    end = message.offset()
                    if end is not None and 0 <= end < stop:  # a new leader that has not caught up yet
                        raise TransientError(f"the topic ends at {end}, before {stop}", place=topic)
                    return
                told = confirmed(consumer, topic, error, _METADATA_SECONDS)
                raise fetch_error(told, f"{topic}@{start}")
            fetched = as_fetched(message)
            if fetched.offset >= stop:
                return
            yield fetched
            if fetched.offset == stop - 1:
                return
    finally:
        with suppress(RuntimeError):  # whoever left off before the end may have closed the client
            consumer.unassign()


class TopicReader:
    """Reads one topic's only partition with a client of its own."""

    def __init__(self, cluster: KafkaCluster, topic: str, client: str) -> None:
        self.topic = topic
        self._consumer = new_consumer(cluster, client, None, eof=True, fetch_wait_ms=QUESTION_WAIT_MS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._consumer.close()

    def bounds(self) -> tuple[int, int]:
        """See `bounds_of`."""
        return bounds_of(self._consumer, self.topic)

    def read(self, start: int, stop: int) -> Iterator[Fetched]:
        """See `read_from`."""
        return read_from(self._consumer, self.topic, start, stop)


_Switch = Callable[["Subscription"], None]


class Subscription:
    """One stream's records as they arrive, bounded in bytes; used by one loop."""

    def __init__(self, topic: str, queue_bytes: int, pause: _Switch, resume: _Switch) -> None:
        self.topic = topic
        self._limit = queue_bytes
        self._pause = pause
        self._resume = resume
        self._queue: deque[Fetched] = deque()
        self._bytes = 0
        self._paused = False
        self._failure: EmbassyError | None = None
        self._woken = False
        self._changed = threading.Condition()

    def take(self, timeout_seconds: float) -> list[Fetched]:
        """All that has arrived; waits up to the time-out, or until `wake`, for the first record.

        Raises:
            EmbassyError: the topic cannot be read on from here.
        """
        with self._changed:
            if not self._queue and self._failure is None and not self._woken:
                self._changed.wait(timeout_seconds)
            self._woken = False
            if self._failure is not None and not self._queue:
                raise self._failure
            taken = list(self._queue)
            self._queue.clear()
            self._bytes = 0
            resume = self._paused
            self._paused = False
        if resume:
            self._resume(self)
        return taken

    def wake(self) -> None:
        """Let `take` return, now or when it is called next; from any thread."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def put(self, records: list[Fetched]) -> None:
        """Called by the client's thread."""
        with self._changed:
            self._queue.extend(records)
            self._bytes += sum(len(record.value) for record in records)
            pause = self._bytes > self._limit and not self._paused
            self._paused = self._paused or pause
            self._changed.notify()
        if pause:
            self._pause(self)

    def fail(self, failure: EmbassyError) -> None:
        """Called by the client's thread."""
        with self._changed:
            self._failure = failure
            self._changed.notify()


class StreamsReader:
    """One client, and one thread that hands what it fetches to each stream's subscription.

    Only that thread calls the client, whose assignments block while another thread polls: what the streams want of it
    waits until the poll returns.
    """

    def __init__(
        self, cluster: KafkaCluster, client: str, on_connection: Callable[[bool], None] | None = None
    ) -> None:
        self._on_connection = on_connection or (lambda _up: None)
        self._consumer = new_consumer(cluster, client, self._on_error, eof=False)
        self._subscriptions: dict[str, Subscription] = {}
        self._wishes: deque[Callable[[], None]] = deque()
        self._full: set[Subscription] = set()
        """Those that are paused, and will want to go on."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{client}-fetch", daemon=True)
        self._thread.start()

    def subscribe(self, topic: str, offset: int, queue_bytes: int) -> Subscription:
        """Begin at an offset; a former subscription of the topic ends."""
        subscription = Subscription(topic, queue_bytes, self._pause, self._wish_resumed)

        def assign() -> None:
            self._unassign(topic)
            self._subscriptions[topic] = subscription
            try:
                self._consumer.incremental_assign([TopicPartition(topic, 0, offset)])
            except KafkaException as error:
                subscription.fail(_unconfirmed(error.args[0], f"{topic}@{offset}"))

        self._wishes.append(assign)
        return subscription

    def unsubscribe(self, topic: str) -> None:
        """Stop fetching a topic."""
        self._wishes.append(lambda: self._unassign(topic))

    def close(self) -> None:
        """End the thread and the client."""
        self._closed.set()
        self._thread.join()
        self._consumer.close()

    def _unassign(self, topic: str) -> None:
        former = self._subscriptions.pop(topic, None)
        if former is not None:
            self._full.discard(former)
            partition = [TopicPartition(topic, 0)]
            with suppress(KafkaException):
                # librdkafka keeps a pause across assignments: the next subscription would never get a record
                self._consumer.resume(partition)
            with suppress(KafkaException):
                self._consumer.incremental_unassign(partition)

    def _wish_resumed(self, subscription: Subscription) -> None:
        def resume() -> None:
            self._full.discard(subscription)
            self._switch(subscription, self._consumer.resume)

        self._wishes.append(resume)

    def _pause(self, subscription: Subscription) -> None:
        self._full.add(subscription)
        self._switch(subscription, self._consumer.pause)

    def _switch(self, subscription: Subscription, switch: Callable[[list[TopicPartition]], object]) -> None:
        if self._subscriptions.get(subscription.topic) is subscription:
            with suppress(KafkaException):  # the partition may have failed meanwhile
                switch([TopicPartition(subscription.topic, 0)])

    def _run(self) -> None:
        stirred_at = time.monotonic()
        while not self._closed.is_set():
            if self._wishes or self._full:
                stirred_at = time.monotonic()
            while self._wishes:
                self._wishes.popleft()()
            settled = time.monotonic() - stirred_at > _SETTLED_SECONDS
            first = self._consumer.poll(_SETTLED_POLL_SECONDS if settled else _POLL_SECONDS)
            if first is None:
                continue
            self._hand_out([first, *self._consumer.consume(_TAKE, 0)])

    def _hand_out(self, messages: list[Message]) -> None:
        batches: dict[str, list[Fetched]] = {}
        for message in messages:
            topic = message.topic() or ""
            error = message.error()
            if error is None:
                batches.setdefault(topic, []).append(as_fetched(message))
            elif not error.retriable() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                subscription = self._subscriptions.get(topic)
                if subscription is not None:
                    subscription.fail(_unconfirmed(error, topic))
        for topic, records in batches.items():
            subscription = self._subscriptions.get(topic)
            if subscription is not None:
                subscription.put(records)
        if batches:
            self._on_connection(True)  # noqa: FBT003 - a callback

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._on_connection(False)  # noqa: FBT003 - a callback


def as_fetched(message: Message) -> Fetched:
    """The record of a message that is no error. Its time is the broker's word, and may be none that a calendar has."""
    value, offset = message.value(), message.offset()
    timestamp_ms = min(max(message.timestamp()[1], 0), _LATEST_MS)
    return Fetched(-1 if offset is None else offset, timestamp_ms, b"" if value is None else bytes(value))
