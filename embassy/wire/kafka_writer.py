"""Appending to topics, in order and without giving up.

One librdkafka client serves every stream of a process. Acknowledgements are gathered by a thread of its own and
wake the stream's loop through an event descriptor, so that a loop can wait for its slot and its acknowledgements
at once.

Order within a topic holds because the client never lets one record time out and sends the next
(``message.timeout.ms=0``), and because it either is idempotent or never tries again. But for one thing: where a
partition's leader moves, librdkafka (2.16) sends again what the broker refused, whatever ``message.send.max.retries``
says, and behind what it has sent meanwhile. Acknowledgements tell: each is of a record by its number. Should it fail, or
that happen, the stream's appender is broken for good: whatever it still had on the way does not link, or is a copy of
what its successor appends.
It stays on the way, then: the client's ``purge`` knows no topics, and would break the other streams' appenders with it.

An idempotent client of librdkafka (2.16) has no more than one or two requests on the way: it makes the next only while
fewer than five *records* are. That is a batch a round trip. Over a long line `Delivery.ONCE` sends as much as there is.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from embassy.model.errors import EmbassyError, IntegrityError, TransientError
from embassy.runtime.config import KafkaCluster
from embassy.wire.kafka_client import as_embassy_error, client_config

_QUEUE_KIB = 512 * 1024
_POLL_SECONDS = 0.5


class Delivery(Enum):
    """What the client does about a request that fails."""

    RETRIED = "retried"
    """It sends it again, in order and without copies, and has little on the way."""
    ONCE = "once"
    """It gives up all that it had on the way, and has much there: for whoever begins again from the topic's head."""


_SETTINGS: dict[Delivery, dict[str, Any]] = {
    Delivery.RETRIED: {"enable.idempotence": True},
    Delivery.ONCE: {
        "enable.idempotence": False,
        "message.send.max.retries": 0,
        "max.in.flight.requests.per.connection": 1000,  # the appenders' callers bound it in bytes
    },
}


class Ack(NamedTuple):
    """A record is in the log of every in-sync replica."""

    number: int
    """Which of the appender's records, counted from 0."""
    offset: int
    value_bytes: int


class Appender:
    """Appends to one topic's only partition; used by one loop."""

    def __init__(
        self, topic: str, produce: Callable[[Appender, int, bytes], None], woken: Callable[[], None] | None = None
    ) -> None:
        self.topic = topic
        self._woken = woken
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.inflight_bytes = 0
        self._produce = produce
        self._sent: deque[int] = deque()
        self._acked: deque[Ack] = deque()
        self._count = 0
        self._last_offset = -1
        self._failure: EmbassyError | None = None
        self._open = True
        self._hushed = False
        self._told = False  # the loop was woken, and has not looked since
        self._rung = False  # the descriptor is readable, or about to be
        self._lock = threading.Lock()

    @property
    def inflight(self) -> int:
        """Records sent and not yet taken as acknowledged."""
        return len(self._sent) + len(self._acked)

    def append(self, value: bytes) -> int:
        """Send one record; returns its number.

        Raises:
            EmbassyError: the appender is broken (see the module's docstring); make a new one and start again.
        """
        if self._failure is not None:
            raise self._failure
        number = self._count
        self._count += 1
        self._sent.append(number)
        self.inflight_bytes += len(value)
        self._produce(self, number, value)
        return number

    def acks(self) -> list[Ack]:
        """What was acknowledged since the last call, in order.

        Raises:
            EmbassyError: a record was refused for good.
        """
        self._told = False  # first: whatever comes from here on wakes again
        if self._rung and not self._hushed:  # most turns have another reason; hushed, it rings for something else
            with self._lock, contextlib.suppress(BlockingIOError):
                self._rung = False
                os.eventfd_read(self.wake_fd)
        taken = []
        while self._acked:
            ack = self._acked.popleft()
            self.inflight_bytes -= ack.value_bytes
            taken.append(ack)
        if self._failure is not None:
            raise self._failure
        return taken

    def hush(self, *, hushed: bool) -> bool:
        """Say whether an acknowledgement may wait until somebody looks; returns whether one has come already.

        A refusal wakes all the same.
        """
        self._hushed = hushed
        return bool(self._acked)

    def close(self) -> None:
        """Stop listening; records on their way may still arrive, and will not count."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self.wake_fd)

    def on_delivery(self, number: int, error: KafkaError | None, message: Message, value_bytes: int) -> None:
        """Called in the acknowledgement thread; another order than that of appending breaks the appender."""
        offset = message.offset() if error is None else None
        if self._failure is not None:
            pass  # whatever comes behind it is of no consequence
        elif error is not None:
            self._failure = _refusal(error, self.topic)
        elif number != self._sent[0]:
            self._failure = TransientError(
                f"record {number} of this appender was appended before record {self._sent[0]}: the partition's leader "
                "has moved",
                place=self.topic,
                hint="nothing to do: the stream goes on from the topic's head, and sends them once more",
            )
        elif offset is None or offset <= self._last_offset:
            self._failure = TransientError(
                f"a record was appended at offset {offset}, not behind {self._last_offset}: the topic lost its "
                "tail or was recreated",
                place=self.topic,
                hint="restarting finds the head again, and halts if it is gone",
            )
        else:
            self._last_offset = offset
            self._acked.append(Ack(self._sent.popleft(), offset, value_bytes))
        if not self._told and not (self._hushed and self._failure is None):  # hundreds of them come at once
            self._told = True
            self.wake()

    def wake(self) -> None:
        """Make the descriptor readable, so that the loop turns; from any thread."""
        with self._lock:
            if self._open:
                self._rung = True
                os.eventfd_write(self.wake_fd, 1)
        if self._woken is not None:
            self._woken()


class KafkaWriter:
    """The process's client for one cluster."""

    def __init__(
        self,
        cluster: KafkaCluster,
        client: str,
        on_connection: Callable[[bool], None] | None = None,
        *,
        delivery: Delivery = Delivery.RETRIED,
    ) -> None:
        """Begin to connect.

        Args:
            cluster: where.
            client: its name in the brokers' logs.
            on_connection: told when no broker can be reached, and of other errors of the client as a whole.
            delivery: what becomes of requests that fail.
        """
        self._cluster = cluster
        self._delivery = delivery
        self._client = client
        self._on_connection = on_connection or (lambda _up: None)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._fatal = False
        self._producer = self._new_producer()
        self._retired: list[Producer] = []
        self._thread = threading.Thread(target=self._poll, name=f"{client}-acks", daemon=True)
        self._thread.start()

    def appender(self, topic: str, woken: Callable[[], None] | None = None) -> Appender:
        """A fresh appender; after a fatal error of the client, on a fresh client.

        ``woken`` is called too whenever the appender's descriptor becomes readable, for a loop that waits elsewhere.
        """
        with self._lock:
            if self._fatal:
                self._fatal = False
                self._retired = [*self._retired, self._producer]  # other streams still wait for its answers
                self._producer = self._new_producer()
            producer = self._producer

        def produce(appender: Appender, number: int, value: bytes) -> None:
            size = len(value)
            try:
                producer.produce(
                    topic,
                    value=value,
                    partition=0,
                    on_delivery=lambda error, message: appender.on_delivery(number, error, message, size),
                )
            except BufferError:
                raise TransientError(
                    "the client's queue is full",
                    place=topic,
                    hint="the broker takes no records; is its disk full?",
                ) from None
            except KafkaException as exception:
                raise as_embassy_error(exception.args[0], topic) from exception

        return Appender(topic, produce, woken)

    def close(self, timeout_seconds: float = 5) -> int:
        """Wait for what is on its way; returns how many records were not acknowledged in time."""
        left: int = self._producer.flush(timeout_seconds)
        self._closed.set()
        self._thread.join()
        return left

    def _new_producer(self) -> Producer:
        config = client_config(self._cluster, self._client) | {
            **_SETTINGS[self._delivery],
            "acks": "all",
            "message.timeout.ms": 0,
            "compression.type": "none",
            "linger.ms": 0,
            "queue.buffering.max.kbytes": _QUEUE_KIB,
            "queue.buffering.max.messages": 1_000_000,
            "message.max.bytes": 100_000_000,  # the topic's own limit decides
            "error_cb": self._on_error,
        }
        return Producer(config)

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_SECONDS)
            for producer in self._retired:
                producer.poll(0)
            with self._lock:
                self._retired = [producer for producer in self._retired if len(producer)]

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = True
        self._on_connection(error.code() != KafkaError._ALL_BROKERS_DOWN)


def _refusal(error: KafkaError, topic: str) -> EmbassyError:
    if error.code() in (
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    ):
        return IntegrityError(
            "the topic is gone",
            place=topic,
            hint="was it deleted? restore it, or enrol the stream anew (two persons)",
        )
    return as_embassy_error(error, topic)
