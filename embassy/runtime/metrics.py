"""Every metric there is, and the registry they are exposed from.

The catalogue is closed: dashboards, alert rules and their tests refer to it. Labels are bounded: streams, stages and
families of failure, never anything from a row. Counters and states exist from the start, at 0; a position or a time
that is not known yet has no series at all, because 0 would be a lie.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


class Kind(Enum):
    """What a metric's values are."""

    GAUGE = auto()
    COUNTER = auto()
    HISTOGRAM = auto()


class Metric(NamedTuple):
    """One entry of the catalogue."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


def _gauge(name: str, labels: str, text: str) -> Metric:
    return Metric(f"embassy_{name}", Kind.GAUGE, tuple(labels.split()), text)


def _counter(name: str, labels: str, text: str) -> Metric:
    return Metric(f"embassy_{name}", Kind.COUNTER, tuple(labels.split()), text)


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

# ---------------------------------------------------------------------- every role

BUILD_INFO = _gauge("build_info", "version component site", "Always 1; the version that runs.")
REGISTRY_INFO = _gauge("registry_info", "registry", "Always 1; a replica that this consumer is to keep.")
RPO_TARGET = _gauge("rpo_target_seconds", "registry", "How old the replica may become: streams.NAME.rpo_seconds.")
HEARTBEAT = _gauge(
    "heartbeat_timestamp_seconds",
    "registry stage",
    "Source time of the newest transaction past this stage; a bridge and a receiver, who cannot look inside, "
    "give the time at which the record was appended to the topic they read.",
)
POSITION = _gauge(
    "position_bytes", "registry stage", "Log position of the last whole transaction past this stage."
)
EVENTS = _counter("events_total", "registry stage", "Row changes past this stage.")
TRANSACTIONS = _counter("transactions_total", "registry stage", "Source transactions past this stage.")
RECORDS = _counter("records_total", "registry stage", "Kafka records past this stage.")
BYTES = _counter("bytes_total", "registry stage", "Bytes past this stage: encoded if captured, else sealed.")
STAGE_DURATION = Metric(
    "embassy_stage_duration_seconds",
    Kind.HISTOGRAM,
    ("stage",),
    "From the commit at the source (bridged, received: from the record's append) until it was past this stage.",
)
ERRORS = _counter("errors_total", "component reason", "Failures by family; transient ones are tried again.")
STREAM_RUNNING = _gauge("stream_running", "registry component", "1 while the stream's loop turns, else 0.")
STREAM_HALTED = _gauge(
    "stream_halted", "registry component reason", "1 if the stream has stopped on purpose and waits for someone."
)
KAFKA_CONNECTED = _gauge("kafka_connected", "site", "1 while the cluster answers.")
CERTIFICATE_EXPIRES = _gauge(
    "certificate_expires_timestamp_seconds", "file", "Until when a certificate that the process shows is valid."
)

# ---------------------------------------------------------------------- producer

SLOT_RETAINED = _gauge("slot_retained_bytes", "registry", "Write-ahead log that the slot keeps at the source.")
SLOT_SAFE = _gauge("slot_safe_bytes", "registry", "How much more may be written before the slot is invalidated.")
SLOT_LIMIT = _gauge("slot_limit_bytes", "registry", "Retained and safe bytes together: what the server allows.")
SLOT_ACTIVE = _gauge("slot_active", "registry", "1 while a session holds the slot.")
SLOT_LOST = _gauge("slot_lost", "registry", "1 if the slot is gone or invalidated: the stream needs a resync.")
LARGE_OBJECTS = _gauge(
    "large_objects_timestamp_seconds", "registry", "What was new in large objects by then is in the stream."
)
SNAPSHOT_ROWS = _counter(
    "snapshot_rows_total", "registry table", "Rows of a table that is copied, in home's Kafka."
)

# ---------------------------------------------------------------------- bridge and consumer

BRIDGE_CONNECTED = _gauge("bridge_connected", "site", "1 while the cluster of this site answers the bridge.")
IGNORED = _counter(
    "ignored_total",
    "registry standing",
    "Records that did not count: unsigned, of another epoch, stray or repeated.",
)
DUPLICATES = _counter("duplicates_total", "registry", "Copies of records that had counted; they are passed over.")
GAPS = _counter("gaps_total", "registry", "Halts because the stream could not be proven whole or in order.")
APPLY_HALTED = _gauge("apply_halted", "registry reason", "1 if applying has stopped on purpose, by family.")
FROZEN = _gauge(
    "frozen", "registry", "1 while the stream is frozen: nothing is applied until two persons lift it."
)
APPLY_DELAY = _gauge("apply_delay_seconds", "registry", "How far the replica is kept behind on purpose.")
REPLAYED = _counter("replayed_total", "registry reason", "Batches applied change by change, in exact order.")
VERIFY_RESULTS = ("matched", "mismatched", "missing", "extra", "in_flight")
VERIFY_ROWS = _gauge(
    "verify_rows", "registry result", "Rows of all tables by what the newest comparison with home found of them."
)
VERIFY_SUCCESS = _gauge(
    "verify_last_success_timestamp_seconds",
    "registry",
    "When everything was last compared with home and found alike.",
)

# ---------------------------------------------------------------------- promotion

EPOCH = _gauge("epoch", "registry site", "The reign that the replica belongs to; promotion raises it.")
WRITABLE = _gauge(
    "writable", "registry site", "1 if applications may write there: home unless fenced, an embassy once promoted."
)
OPERATION_STEP_START = _gauge(
    "operation_step_start_timestamp_seconds",
    "registry operation",
    "When the last step of an operation under way began; 0 while there is none.",
)

CATALOGUE: tuple[Metric, ...] = (
    *(BUILD_INFO, REGISTRY_INFO, RPO_TARGET, HEARTBEAT, POSITION, EVENTS, TRANSACTIONS, RECORDS, BYTES),
    *(STAGE_DURATION, ERRORS, STREAM_RUNNING, STREAM_HALTED, KAFKA_CONNECTED, CERTIFICATE_EXPIRES),
    *(BRIDGE_CONNECTED, IGNORED, DUPLICATES, GAPS, APPLY_HALTED, FROZEN, APPLY_DELAY, REPLAYED),
    *(VERIFY_ROWS, VERIFY_SUCCESS),
    *(EPOCH, WRITABLE, OPERATION_STEP_START),
    *(SLOT_RETAINED, SLOT_SAFE, SLOT_LIMIT, SLOT_ACTIVE, SLOT_LOST, LARGE_OBJECTS, SNAPSHOT_ROWS),
)


class Gauge(Protocol):
    """A value that goes up and down."""

    def set(self, value: float) -> None:
        """Replace the value."""


class Counter(Protocol):
    """A value that only grows."""

    def inc(self, amount: float = 1) -> None:
        """Add to it."""


class Histogram(Protocol):
    """A distribution."""

    def observe(self, amount: float) -> None:
        """Add one observation."""


class LateGauge:
    """A gauge without a series until it is first set: what is not known yet must not read as 0."""

    __slots__ = ("_bind", "_gauge")

    def __init__(self, bind: Callable[[], Gauge]) -> None:
        self._bind = bind
        self._gauge: Gauge | None = None

    def set(self, value: float) -> None:
        """Replace the value."""
        if self._gauge is None:
            self._gauge = self._bind()
        self._gauge.set(value)


class Metrics:
    """The metrics of one process. Series are bound once, at the start; the loops only set and add."""

    def __init__(self, *, version: str, component: str, site: str) -> None:
        self._registry = CollectorRegistry()
        self._families: dict[Metric, Any] = {}
        self._lock = threading.Lock()
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # it carries no annotations
        prometheus_client.ProcessCollector(registry=self._registry)
        prometheus_client.PlatformCollector(registry=self._registry)
        prometheus_client.GCCollector(registry=self._registry)
        self.gauge(BUILD_INFO, version=version, component=component, site=site).set(1)

    def gauge(self, metric: Metric, **labels: str) -> Gauge:
        """One series of a gauge, exposed from now on."""
        assert metric.kind is Kind.GAUGE
        series: Gauge = self._series(metric, labels)
        return series

    def late_gauge(self, metric: Metric, **labels: str) -> LateGauge:
        """One series of a gauge, exposed once it is set."""
        return LateGauge(lambda: self.gauge(metric, **labels))

    def counter(self, metric: Metric, **labels: str) -> Counter:
        """One series of a counter, exposed from now on."""
        assert metric.kind is Kind.COUNTER
        series: Counter = self._series(metric, labels)
        return series

    def histogram(self, metric: Metric, **labels: str) -> Histogram:
        """One series of a histogram, exposed from now on."""
        assert metric.kind is Kind.HISTOGRAM
        series: Histogram = self._series(metric, labels)
        return series

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """All series as text, in the format that the scraper accepts; and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _series(self, metric: Metric, labels: dict[str, str]) -> Any:
        with self._lock:
            family = self._families.get(metric)
            if family is None:
                family = self._families[metric] = self._family(metric)
        return family.labels(**labels)

    def _family(self, metric: Metric) -> Any:
        name, kind, labels, text = metric
        if kind is Kind.GAUGE:
            return prometheus_client.Gauge(name, text, labels, registry=self._registry)
        if kind is Kind.COUNTER:
            return prometheus_client.Counter(name, text, labels, registry=self._registry)
        return prometheus_client.Histogram(name, text, labels, buckets=_SECONDS, registry=self._registry)
