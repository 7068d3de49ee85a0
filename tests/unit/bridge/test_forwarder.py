"""What is sent when, as far as no cluster is needed to see it."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.forwarder import Carriage, Gauges, Limits
from embassy.model.chain import Follower
from embassy.model.errors import TransientError
from embassy.model.record import RecordKind
from embassy.runtime.stop import Stop
from embassy.wire.kafka_reader import Fetched, Subscription
from embassy.wire.kafka_writer import Appender
from embassy.wire.record_codec import decode_record
from tests.harness.memory_log import GENESIS, seal, verified

_RECORDS_A_KEY = 5


def stretch(keys: int) -> list[bytes]:
    """Incarnations one after the other."""
    head, values = GENESIS, []
    for number in range(keys):
        incarnation = bytes([number]) * 16
        value, head = seal(head, RecordKind.KEY, incarnation=incarnation)
        values.append(value)
        for _ in range(_RECORDS_A_KEY):
            value, head = seal(head, RecordKind.DATA, incarnation=incarnation)
            values.append(value)
    return values


def _appended_at(offset: int) -> Any:
    return SimpleNamespace(offset=lambda: offset)


class Cluster:
    """Takes what is appended, and acknowledges a record at a time."""

    def __init__(self) -> None:
        self.sent: list[tuple[RecordKind, int]] = []
        """Kinds, and how many records were on the way then."""
        self._waiting: deque[tuple[int, int]] = deque()
        self.appender = Appender("s-memory", self._take)
        self._offsets = itertools.count()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._acknowledge)
        self._thread.start()

    def _take(self, appender: Appender, number: int, value: bytes) -> None:
        self.sent.append((decode_record(value).header.kind, appender.inflight - 1))
        self._waiting.append((number, len(value)))

    def _acknowledge(self) -> None:
        while not self._ended.wait(0.001):
            if self._waiting:
                (number, size), offset = self._waiting.popleft(), next(self._offsets)
                self.appender.on_delivery(number, None, _appended_at(offset), size)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self.appender.close()


class Quiet:
    """Gauges that nobody reads."""

    def carried(self, records: int, value_bytes: int) -> None: ...

    def bridged(self, head: object, timestamp_ms: int) -> None: ...

    def ignored(self, standing: object) -> None: ...

    def missing(self, sequence: int | None) -> None: ...


class Fetches:
    """A subscription whose records have all come; then it ends the loop."""

    def __init__(self, values: list[bytes], stop: Stop) -> None:
        self._fetches = [[Fetched(offset, 0, value) for offset, value in enumerate(values)]]
        self._stop = stop

    def take(self, _seconds: float) -> list[Fetched]:
        if self._fetches:
            return self._fetches.pop()
        self._stop.set()
        return []


def test_no_key_is_sent_before_all_in_front_of_it_is_acknowledged() -> None:
    cluster, stop, values = Cluster(), Stop(), stretch(4)
    follower = Follower(GENESIS, topic="s-memory", signers=verified, clock=time.monotonic, hold_seconds=5.0)
    try:
        carriage = Carriage(
            follower, cluster.appender, Limits(1 << 20, 1 << 20, 5.0), cast("Gauges", Quiet()), lambda: None
        )
        carriage.run(cast("Subscription", Fetches(values, stop)), stop, time.monotonic)
    finally:
        cluster.end()
    assert len(cluster.sent) == len(values)
    assert [on_the_way for kind, on_the_way in cluster.sent if kind is RecordKind.KEY] == [0] * 4
    assert max(on_the_way for _, on_the_way in cluster.sent) > 1


def test_records_that_a_moving_leader_had_appended_in_another_order_break_the_appender() -> None:
    """As librdkafka 2.16 told of two that were on the way while the only broker stood still for 17 s: no error."""
    appender = Appender("s-memory", lambda _appender, _number, _value: None)
    try:
        assert [appender.append(b"279"), appender.append(b"280"), appender.append(b"281")] == [0, 1, 2]
        appender.on_delivery(0, None, _appended_at(277), 3)
        assert [ack.number for ack in appender.acks()] == [0]
        appender.on_delivery(2, None, _appended_at(278), 3)
        appender.on_delivery(1, None, _appended_at(279), 3)
        with pytest.raises(TransientError, match="record 2 of this appender was appended before record 1"):
            appender.acks()
        with pytest.raises(TransientError):
            appender.append(b"282")
    finally:
        appender.close()
