"""Rounds in which all contestants do the same, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from benchmarks.contestant import Contestant
from benchmarks.latency import Latency, measure
from benchmarks.machine import await_quiet, busy_seconds
from benchmarks.more_workloads import FILLS, MORE_BACKLOGS
from benchmarks.workloads import BACKLOGS, Sizes, fill
from deploy.lab.waiting import Announce

W4 = "w4"
WORKLOADS = (*BACKLOGS, W4)
ALL_WORKLOADS = (*WORKLOADS, *MORE_BACKLOGS)
_QUIET_CORES = 0.35
_DISTURBED_CORES = 0.4
_PER = 1e6
_WARM_UP = -1


@dataclass(frozen=True, slots=True)
class CatchUp:
    """One backlog, carried by one contestant."""

    contestant: str
    workload: str
    round: int
    changes: int
    written_seconds: float
    """How long the source took to write it."""
    seconds: float
    """From the moment the sender was let go until the last transaction was visible."""
    cpu_us_per_change: dict[str, float]
    bytes_per_change: dict[str, float]
    foreign_cores: float
    """What others on this machine took meanwhile."""
    idle_cores: float
    """What the other contestants' own processes took."""

    @property
    def rate(self) -> float:
        """Changes a second."""
        return self.changes / self.seconds


@dataclass(frozen=True, slots=True)
class Response:
    """One stretch of even load, followed by one contestant."""

    contestant: str
    round: int
    latency: Latency
    cpu_us_per_transaction: dict[str, float]
    foreign_cores: float
    idle_cores: float


_Measured = TypeVar("_Measured", CatchUp, Response)


@dataclass
class Results:
    """Everything that was measured."""

    catch_ups: list[CatchUp] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    peak_rss_mb: dict[str, float] = field(default_factory=dict)
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    """By contestant and table, the rows that were found equal."""
    different: dict[str, list[str]] = field(default_factory=dict)
    """By contestant, in which round which table was found different, and how many rows each side has."""

    def contestants(self) -> list[str]:
        """In their order: ours, native, and whoever else there was."""
        return list(self.tables)

    def counted(self, workload: str, contestant: str) -> list[CatchUp]:
        """What counts: the measurements during which others left the machine alone, or all if there is none."""
        return _undisturbed([c for c in self.catch_ups if (c.workload, c.contestant) == (workload, contestant)])

    def counted_responses(self, contestant: str) -> list[Response]:
        """The same of W4."""
        return _undisturbed([r for r in self.responses if r.contestant == contestant])

    def measurements(self) -> list[dict[str, Any]]:
        """Each by itself, for the record."""
        responses = ({**asdict(r), "latency": r.latency._asdict()} for r in self.responses)
        return [*map(asdict, self.catch_ups), *({"workload": W4, **r} for r in responses)]


class Contest:
    """Runs the rounds."""

    def __init__(
        self,
        contestants: Sequence[Contestant],
        sizes: Sizes,
        *,
        quiet_seconds: float,
        announce: Announce,
        settled: bool = True,
    ) -> None:
        """Take everything.

        Args:
            contestants: in their order.
            sizes: of the workloads.
            quiet_seconds: how long to wait for a quiet machine before each measurement.
            announce: told what happens.
            settled: whether each backlog meets a slot that keeps nothing from before; that takes up to a minute each.
        """
        self._contestants = contestants
        self._sizes = sizes
        self._quiet_seconds = quiet_seconds
        self._announce = announce
        self._settled = settled
        self.results = Results()

    def run(self, rounds: int, workloads: Sequence[str]) -> None:
        """Run so many rounds of the workloads, and compare the tables after each.

        Raises:
            IntegrityError: a replica differs from its source.
            TransientError: a contestant has failed, or did not get level.
        """
        if warming := [contestant for contestant in self._contestants if contestant.warms_up]:
            self._fill(_WARM_UP, warming)
            for workload in workloads:
                for contestant in warming:
                    self._measure(contestant, workload, _WARM_UP)
        for number in range(rounds):
            self._fill(number, self._contestants)
            for index, workload in enumerate(workloads):
                for contestant in self._in_turn(number + index):
                    self._record(self._measure(contestant, workload, number))
            self._level()
            for contestant in self._contestants:
                self.results.peak_rss_mb |= contestant.peak_rss_mb()
                self.compare(contestant, number)

    def _fill(self, number: int, contestants: Iterable[Contestant]) -> None:
        for contestant in contestants:
            self._announce(_title(number), f"filling the tables of {contestant.name}")
            with contestant.source() as source:
                fill(source, self._sizes)

    def _measure(self, contestant: Contestant, workload: str, number: int) -> CatchUp | Response:
        self._prepare(contestant, workload)
        self._level()
        if workload == W4:
            return self._respond(contestant, number)
        if self._settled:
            self._announce(f"{_title(number)} {workload} {contestant.name}", "waiting for its slot")
            contestant.settle()
        return self._catch_up(contestant, workload, number)

    def _record(self, measured: CatchUp | Response) -> None:
        if isinstance(measured, CatchUp):
            self.results.catch_ups.append(measured)
        else:
            self.results.responses.append(measured)

    def _in_turn(self, turn: int) -> Iterator[Contestant]:
        """All of them, each as often first as the others."""
        first = turn % len(self._contestants)
        yield from (*self._contestants[first:], *self._contestants[:first])

    def _prepare(self, contestant: Contestant, workload: str) -> None:
        if workload in FILLS:
            with contestant.source() as source:
                FILLS[workload](source, self._sizes)

    def _level(self) -> None:
        """Let everyone catch up with everything, the other databases' log included, and tidy up."""
        for contestant in self._contestants:
            contestant.let_go()
        for contestant in self._contestants:
            contestant.await_level()
        for contestant in self._contestants:
            contestant.tidy()
            contestant.await_level()

    def _catch_up(self, contestant: Contestant, workload: str, number: int) -> CatchUp:
        for each in self._contestants:
            each.freeze()
        subject = f"{_title(number)} {workload} {contestant.name}"
        self._announce(subject, "writing the backlog")
        with contestant.source() as source, contestant.replica() as replica:
            backlog = {**BACKLOGS, **MORE_BACKLOGS}[workload](source, self._sizes, number)
            mark = contestant.send_mark(source)
            # The backlog's pages are on disk before the clock starts, or the sender would compete with the writer.
            source.execute("CHECKPOINT")
            for other in self._but(contestant):
                other.set_aside()
            await_quiet(_QUIET_CORES, self._quiet_seconds)
            hops, cpu = contestant.hop_bytes(), contestant.cpu_seconds()
            busy, idle = self._busy(), self._idle(contestant)
            begun = time.perf_counter()
            contestant.let_go()
            seconds = contestant.await_mark(replica, mark) - begun
            foreign = (self._busy() - busy) / seconds
            idle = (self._idle(contestant) - idle) / seconds
            spent = _grown(cpu, contestant.cpu_seconds(), _PER / backlog.changes)
            bytes_ = _grown(hops, contestant.hop_bytes(), 1 / backlog.changes)
        found = CatchUp(
            contestant.name,
            workload,
            number,
            backlog.changes,
            backlog.seconds,
            seconds,
            spent,
            bytes_,
            foreign,
            idle,
        )
        self._announce(subject, f"{found.rate:,.0f} changes/s")
        return found

    def _respond(self, contestant: Contestant, number: int) -> Response:
        for other in self._but(contestant):
            other.set_aside()
        subject = f"{_title(number)} {W4} {contestant.name}"
        self._announce(subject, "writing at an even pace")
        await_quiet(_QUIET_CORES, self._quiet_seconds)
        cpu, busy, idle = contestant.cpu_seconds(), self._busy(), self._idle(contestant)
        begun = time.perf_counter()
        latency = measure(contestant.source_dsn, contestant.replica_dsn, self._sizes, number)
        seconds = time.perf_counter() - begun
        foreign, idle = (self._busy() - busy) / seconds, (self._idle(contestant) - idle) / seconds
        spent = _grown(cpu, contestant.cpu_seconds(), _PER / latency.transactions)
        self._announce(subject, f"p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms")
        return Response(contestant.name, number, latency, spent, foreign, idle)

    def compare(self, contestant: Contestant, number: int = 0) -> None:
        """Compare its tables.

        Raises:
            IntegrityError: one differs, of a contestant that vouches for them.
        """
        self._announce(contestant.name, "comparing the tables")
        if contestant.vouches:
            self.results.tables[contestant.name] = contestant.equal_rows()
            return
        compared = contestant.compared()
        self.results.tables[contestant.name] = {
            each.table: each.source_rows or 0 for each in compared if each.equal
        }
        self.results.different.setdefault(contestant.name, []).extend(
            f"{_title(number)}: {each.table}, {each.source_rows} rows at the source, {each.replica_rows} at the replica"
            for each in compared
            if not each.equal
        )

    def _but(self, contestant: Contestant) -> list[Contestant]:
        return [other for other in self._contestants if other is not contestant]

    def _idle(self, contestant: Contestant) -> float:
        """CPU seconds of the other contestants' own processes."""
        return sum(sum(other.own_cpu_seconds().values()) for other in self._but(contestant))

    def _busy(self) -> float:
        """CPU seconds that were neither ours, nor the servers', nor the benchmark's."""
        own: dict[str, float] = {}
        for contestant in self._contestants:
            own |= contestant.cpu_seconds()  # the servers are the same ones
        return busy_seconds() - sum(own.values()) - time.process_time()


def _title(number: int) -> str:
    return "warm-up" if number == _WARM_UP else f"round {number + 1}"


def _undisturbed(measured: list[_Measured]) -> list[_Measured]:
    return [m for m in measured if m.foreign_cores < _DISTURBED_CORES] or measured


def _grown(before: Mapping[str, float], after: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: (after[name] - before[name]) * factor for name in after}
