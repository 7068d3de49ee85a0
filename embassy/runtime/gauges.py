"""What the loops tell of themselves, as metrics: an adapter for each role's ``Gauges`` protocol.

The adapters are called once a batch or once a turn, never for a row, and hold their series bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from embassy.model.batch import Batch
from embassy.model.chain import Standing
from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.runtime import metrics as catalogue
from embassy.runtime.cluster_link import ClusterLink
from embassy.runtime.metrics import Counter, Metrics

FAMILIES = ("transient", "integrity", "configuration", "refused", "bug")
_MICROSECONDS = 1_000_000


class SlotReading(Protocol):
    """The state of a replication slot, as far as metrics show it."""

    @property
    def retained_bytes(self) -> int:
        """Log that the slot keeps."""

    @property
    def safe_bytes(self) -> int | None:
        """How much more may be written; None: without limit."""

    @property
    def active(self) -> bool:
        """Whether a session holds it."""


class Passage:
    """How far a stream has come past one stage: position, time, and what went by."""

    __slots__ = ("_delay", "_heartbeat", "_position", "_wall", "newest_seconds", "resume_lsn")

    def __init__(self, metrics: Metrics, registry: str, stage: str, wall: Callable[[], float]) -> None:
        self._position = metrics.late_gauge(catalogue.POSITION, registry=registry, stage=stage)
        self._heartbeat = metrics.late_gauge(catalogue.HEARTBEAT, registry=registry, stage=stage)
        self._delay = metrics.histogram(catalogue.STAGE_DURATION, stage=stage)
        self._wall = wall
        self.newest_seconds = 0.0
        """Time of the newest transaction past the stage, seconds since 1970; 0: none yet."""
        self.resume_lsn = Lsn(0)

    def reached(self, resume_lsn: Lsn, at_seconds: float) -> None:
        """Everything up to here is past the stage; ``at_seconds`` is 0 if the time is unknown.

        A part of a transaction does not move the position, and so not the time either. A replica whose server has crashed
        may move both back.
        """
        self._position.set(resume_lsn)
        if at_seconds and resume_lsn != self.resume_lsn:
            self._heartbeat.set(at_seconds)
            if self.newest_seconds:  # the first only tells where a predecessor ended
                self._delay.observe(max(0.0, self._wall() - at_seconds))
            self.newest_seconds = at_seconds
        self.resume_lsn = resume_lsn


class ProducerGauges:
    """A producer's stream."""

    def __init__(
        self, metrics: Metrics, registry: str, *, link: ClusterLink, wall: Callable[[], float] = time.time
    ) -> None:
        self._metrics, self._registry = metrics, registry
        self._copied: dict[str, Counter] = {}
        self._captured = Passage(metrics, registry, "captured", wall)
        self._passage = Passage(metrics, registry, "published", wall)
        self._events = metrics.counter(catalogue.EVENTS, registry=registry, stage="captured")
        self._transactions = metrics.counter(catalogue.TRANSACTIONS, registry=registry, stage="captured")
        self._captured_bytes = metrics.counter(catalogue.BYTES, registry=registry, stage="captured")
        self._published_bytes = metrics.counter(catalogue.BYTES, registry=registry, stage="published")
        self._retained = metrics.late_gauge(catalogue.SLOT_RETAINED, registry=registry)
        self._safe = metrics.late_gauge(catalogue.SLOT_SAFE, registry=registry)
        self._limit = metrics.late_gauge(catalogue.SLOT_LIMIT, registry=registry)
        self._active = metrics.gauge(catalogue.SLOT_ACTIVE, registry=registry)
        self._lost = metrics.gauge(catalogue.SLOT_LOST, registry=registry)
        self._objects = metrics.late_gauge(catalogue.LARGE_OBJECTS, registry=registry)
        self._wall = wall
        self._link = link

    def newest_seconds(self) -> float:
        """Time of the newest transaction published, seconds since 1970; 0: none yet."""
        return self._passage.newest_seconds

    def captured(self, batch: Batch, encoded_bytes: int) -> None:
        """A batch was built."""
        self._events.inc(sum(transaction.changes for transaction in batch.transactions))
        self._captured_bytes.inc(encoded_bytes)
        if batch.complete and batch.transactions:
            self._transactions.inc(len(batch.transactions))
            newest = batch.transactions[-1]
            self._captured.reached(newest.end_lsn, newest.committed_at / _MICROSECONDS)

    def published(self, resume_lsn: Lsn, committed_at: int, value_bytes: int) -> None:
        """Everything up to here is acknowledged."""
        self._published_bytes.inc(value_bytes)
        self._passage.reached(resume_lsn, committed_at / _MICROSECONDS)
        self._link.up()

    def copied(self, table: str, rows: int) -> None:
        """So many more rows of a table are in the topic."""
        counter = self._copied.get(table)
        if counter is None:
            counter = self._copied[table] = self._metrics.counter(
                catalogue.SNAPSHOT_ROWS, registry=self._registry, table=table
            )
        counter.inc(rows)

    def large_objects(self, age_seconds: float) -> None:
        """All that was new in large objects so long ago is in the stream."""
        self._objects.set(self._wall() - age_seconds)

    def slot(self, reading: SlotReading) -> None:
        """The slot was looked at."""
        self._retained.set(reading.retained_bytes)
        if reading.safe_bytes is not None:
            self._safe.set(reading.safe_bytes)
            self._limit.set(reading.safe_bytes + reading.retained_bytes)
        self._active.set(reading.active)
        self._lost.set(0)

    def slot_lost(self) -> None:
        """The slot is gone, or the server has dropped log that it needed."""
        self._lost.set(1)
        self._active.set(0)


class _Gap:
    """Whether the next record of a stream is missing: its loop turns and holds what came behind that, until it halts."""

    def __init__(self) -> None:
        self._sequence: int | None = None

    def missing(self, sequence: int | None) -> None:
        """The next record is missing, although later ones have come; None: it is not."""
        self._sequence = sequence

    def held(self) -> str:
        """Why nothing passes; empty if that is not so."""
        sequence = self._sequence
        return (
            "" if sequence is None else f"record {sequence} is missing, and later ones have come: nothing passes"
        )


class BridgeGauges(_Gap):
    """A bridge's stream, under its opaque name."""

    def __init__(
        self, metrics: Metrics, registry: str, *, link: ClusterLink, wall: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        self._passage = Passage(metrics, registry, "bridged", wall)
        self._records = metrics.counter(catalogue.RECORDS, registry=registry, stage="bridged")
        self._bytes = metrics.counter(catalogue.BYTES, registry=registry, stage="bridged")
        self._ignored = _Ignored(metrics, registry)
        self._link = link

    def newest_seconds(self) -> float:
        """Time of the newest transaction bridged, seconds since 1970; 0: none yet."""
        return self._passage.newest_seconds

    def carried(self, records: int, value_bytes: int) -> None:
        """Records were sent on."""
        self._records.inc(records)
        self._bytes.inc(value_bytes)

    def bridged(self, head: Head, timestamp_ms: int) -> None:
        """Everything up to this head is acknowledged in the embassy."""
        self._passage.reached(head.resume_lsn, timestamp_ms / 1000)
        self._link.up()

    def ignored(self, standing: Standing) -> None:
        """A record did not count."""
        self._ignored.count(standing)


class ConsumerGauges(_Gap):
    """A consumer's stream."""

    def __init__(
        self,
        metrics: Metrics,
        registry: str,
        *,
        delay_seconds: float = 0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._received = Passage(metrics, registry, "received", wall)
        self._passage = Passage(metrics, registry, "applied", wall)
        self._events = metrics.counter(catalogue.EVENTS, registry=registry, stage="applied")
        self._transactions = metrics.counter(catalogue.TRANSACTIONS, registry=registry, stage="applied")
        self._ignored = _Ignored(metrics, registry)
        self._frozen_gauge = metrics.gauge(catalogue.FROZEN, registry=registry)
        self._frozen = False
        self._awaited = ""
        metrics.gauge(catalogue.APPLY_DELAY, registry=registry).set(delay_seconds)
        self._replayed: dict[str, Counter] = {}
        self._bind_replayed = partial(metrics.counter, catalogue.REPLAYED, registry=registry)
        self._verified = {
            result: metrics.late_gauge(catalogue.VERIFY_ROWS, registry=registry, result=result)
            for result in catalogue.VERIFY_RESULTS
        }
        self._verify_success = metrics.late_gauge(catalogue.VERIFY_SUCCESS, registry=registry)

    def newest_seconds(self) -> float:
        """Time of the newest transaction applied, seconds since 1970; 0: none yet."""
        return self._passage.newest_seconds

    def received(self, head: Head, timestamp_ms: int) -> None:
        """Everything up to this head has come and links."""
        self._received.reached(head.resume_lsn, timestamp_ms / 1000)

    def applied(self, transactions: int, changes: int, resume_lsn: Lsn, committed_at: int) -> None:
        """Everything up to here is committed in the replica."""
        self._transactions.inc(transactions)
        self._events.inc(changes)
        self._passage.reached(resume_lsn, committed_at / _MICROSECONDS)

    def ignored(self, standing: Standing) -> None:
        """A record did not count."""
        self._ignored.count(standing)

    def frozen(self, *, frozen: bool) -> None:
        """Whether the stream is frozen."""
        self._frozen = frozen
        self._frozen_gauge.set(frozen)

    def awaits(self, holder: str) -> None:
        """Who applies the stream instead, and is waited for; empty: nobody."""
        self._awaited = holder

    def held(self) -> str:
        """Why nothing is applied, be it on purpose; empty if that is not so."""
        if self._awaited:
            return f"waiting: another consumer applies this stream: {self._awaited}"
        return "frozen: nothing is applied until two persons lift it" if self._frozen else super().held()

    def replayed(self, reason: str) -> None:
        """A batch was applied change by change."""
        counter = self._replayed.get(reason)
        if counter is None:
            counter = self._replayed[reason] = self._bind_replayed(reason=reason)
        counter.inc()

    def verified(self, rows: Mapping[str, int], succeeded_at: float | None) -> None:
        """What the newest comparison of each table found, and when everything was last found alike."""
        for result, count in rows.items():
            self._verified[result].set(count)
        if succeeded_at is not None:
            self._verify_success.set(succeeded_at)


class _Ignored:
    def __init__(self, metrics: Metrics, registry: str) -> None:
        self._by_standing: dict[Standing, Counter] = {
            standing: metrics.counter(catalogue.IGNORED, registry=registry, standing=standing.name.lower())
            for standing in Standing
            if standing is not Standing.COUNTS
        }
        self._duplicates = metrics.counter(catalogue.DUPLICATES, registry=registry)

    def count(self, standing: Standing) -> None:
        self._by_standing[standing].inc()
        if standing is Standing.REPEATED:
            self._duplicates.inc()


class LifecycleGauges:
    """What the supervision of a process's streams shows."""

    def __init__(self, metrics: Metrics, component: str, registries: Iterable[str]) -> None:
        names = tuple(registries)
        self._errors = {
            family: metrics.counter(catalogue.ERRORS, component=component, reason=family) for family in FAMILIES
        }
        self._running = {
            name: metrics.gauge(catalogue.STREAM_RUNNING, registry=name, component=component) for name in names
        }
        self._gaps = {name: metrics.counter(catalogue.GAPS, registry=name) for name in names}
        self._halted = {
            (name, family): [
                metrics.gauge(catalogue.STREAM_HALTED, registry=name, component=component, reason=family)
            ]
            for name in names
            for family in FAMILIES[1:]
        }
        if component == "consumer":
            for (name, family), gauges in self._halted.items():
                gauges.append(metrics.gauge(catalogue.APPLY_HALTED, registry=name, reason=family))

    def running(self, name: str, running: bool) -> None:  # noqa: FBT001 - the state itself
        """The stream's loop turns, or no longer does."""
        self._running[name].set(running)

    def failed(self, family: str) -> None:
        """A stream failed; whether it is tried again or halts is told separately."""
        self._errors[family].inc()

    def halted(self, name: str, family: str) -> None:
        """The stream has halted."""
        for gauge in self._halted[name, family]:
            gauge.set(1)
        if family == "integrity":
            self._gaps[name].inc()
