"""The verdict of a promotion drill: what was lost, by what clients were told, against what the report bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import sql

from deploy.demo.homecoming_report import Homecoming
from deploy.workload.ledger import Ledger, Outcome
from deploy.workload.observer import violated
from deploy.workload.registry import RegistryWorkload

SCHEMA = 1
_NS = 1e9


@dataclass(frozen=True, slots=True)
class RegistryDrill:
    """One registry."""

    name: str
    committed: int
    """At home, as clients were told."""
    lost: int
    lost_tokens: tuple[UUID, ...]
    lost_before_window: int
    """Committed before the report's last commit, yet not here: the report would have lied."""
    loss_seconds: float
    """From the first lost commit to the last."""
    bound_seconds: float
    """What the report says may be lost, counted back from the sealing."""
    phantoms: int
    duplicated: int
    violated: tuple[str, ...]
    written_abroad: int
    written_abroad_lost: int
    first_write_seconds: float | None
    """From the start of ``promote run`` to the application's first commit; None: it never could."""
    step_seconds: Mapping[str, float]
    failures: tuple[str, ...]

    @property
    def complaints(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        found = []
        if self.lost_before_window:
            found.append(f"{self.lost_before_window} transactions are lost that the report calls applied")
        if self.loss_seconds > self.bound_seconds:
            found.append(f"{self.loss_seconds:.1f} s are lost, more than the report's {self.bound_seconds:.1f} s")
        if self.phantoms or self.duplicated:
            found.append(f"{self.phantoms} phantoms and {self.duplicated} duplicates")
        if self.violated:
            found.append(f"impossible states: {', '.join(self.violated)}")
        if self.first_write_seconds is None:
            found.append("the application could not write")
        if self.written_abroad_lost:
            found.append(f"{self.written_abroad_lost} of the application's own writes are gone")
        found += [f"an application error: {failure}" for failure in self.failures[:3]]
        return tuple(f"{self.name}: {words}" for words in found)

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        return {
            "committed": self.committed,
            "lost": self.lost,
            "loss_seconds": round(self.loss_seconds, 3),
            "loss_seconds_upper_bound": self.bound_seconds,
            "written_abroad": self.written_abroad,
            "first_write_seconds": None
            if self.first_write_seconds is None
            else round(self.first_write_seconds, 3),
            "step_seconds": dict(self.step_seconds),
        }


class FirstWrite(NamedTuple):
    """How long it took until the application wrote to a registry again, and where that time went."""

    registry: str
    seconds: float
    """From the start of ``promote run``."""
    drain_seconds: float
    verify_seconds: float

    @property
    def rest_seconds(self) -> float:
        """Whatever else: starting, sealing, the way home, opening, and the application's own turn."""
        return max(0.0, self.seconds - self.drain_seconds - self.verify_seconds)

    def share(self, seconds: float) -> int:
        """Of the whole time, in percent."""
        return round(100 * seconds / self.seconds) if self.seconds else 0

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        return {
            "registry": self.registry,
            "seconds": round(self.seconds, 2),
            "drain_seconds": round(self.drain_seconds, 2),
            "verify_seconds": round(self.verify_seconds, 2),
            "rest_seconds": round(self.rest_seconds, 2),
        }


@dataclass(frozen=True, slots=True)
class HomeReturn:
    """What home did when it came back."""

    producer_code: int
    producer_said: bool
    """Whether it said that it is superseded."""
    fence_code: int
    writable: tuple[str, ...]
    """Registries that could still be written to after the fence."""
    unshipped_kept: int
    """Of the lost transactions, those that home still has."""


@dataclass(frozen=True, slots=True)
class DrillReport:
    """The whole drill."""

    load_seconds: float
    approving_seconds: float
    promoting_seconds: float
    approvers: tuple[str, ...]
    registries: tuple[RegistryDrill, ...]
    home: HomeReturn
    bundled: int
    """Of the lost transactions, those in the conflict bundle."""
    bundle_whole: bool
    """False: the slot was confirmed beyond what the embassy has, and the rest is in home's Kafka only."""
    homecoming: Homecoming

    @property
    def lost(self) -> int:
        """Transactions in all."""
        return sum(registry.lost for registry in self.registries)

    @property
    def last_first_write(self) -> FirstWrite | None:
        """Of the registry that could be written to last; None: one could never be."""
        writes = [
            FirstWrite(
                r.name, r.first_write_seconds, r.step_seconds.get("drain", 0), r.step_seconds.get("verify", 0)
            )
            for r in self.registries
            if r.first_write_seconds is not None
        ]
        return max(writes, key=lambda write: write.seconds) if len(writes) == len(self.registries) else None

    @property
    def told(self) -> int:
        """Transactions that clients were told are committed, at home."""
        return sum(registry.committed for registry in self.registries)

    @property
    def loss_seconds(self) -> float:
        """From the first lost commit to the last, of the registry where that is longest."""
        return max((registry.loss_seconds for registry in self.registries), default=0.0)

    @property
    def bound_seconds(self) -> float:
        """What the report says may be lost, of the registry where that is most."""
        return max((registry.bound_seconds for registry in self.registries), default=0.0)

    @property
    def complaints(self) -> tuple[str, ...]:
        """What is wrong, in words; empty if all is well."""
        found = [words for registry in self.registries for words in registry.complaints]
        if self.home.producer_code != 5 or not self.home.producer_said:
            found.append(f"home's producer did not refuse to run: exit code {self.home.producer_code}")
        if self.home.fence_code != 0 or self.home.writable:
            found.append(f"home is not shut: {', '.join(self.home.writable) or self.home.fence_code}")
        if self.home.unshipped_kept != self.lost:
            found.append(f"home still has {self.home.unshipped_kept} of the {self.lost} lost transactions")
        if self.bundle_whole and self.bundled != self.lost:
            found.append(f"the conflict bundle has {self.bundled} of the {self.lost} lost transactions")
        found += self.homecoming.complaints
        return tuple(found)

    @property
    def is_true(self) -> bool:
        """Whether all is well."""
        return not self.complaints

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        last = self.last_first_write
        return {
            "schema": SCHEMA,
            "verdict": self.is_true,
            "load_seconds": round(self.load_seconds, 1),
            "approving_seconds": round(self.approving_seconds, 1),
            "promoting_seconds": round(self.promoting_seconds, 2),
            "last_first_write": None if last is None else last.to_json(),
            "approvers": list(self.approvers),
            "committed": self.told,
            "lost": self.lost,
            "loss_seconds": round(self.loss_seconds, 3),
            "loss_seconds_upper_bound": self.bound_seconds,
            "registries": {r.name: r.to_json() for r in self.registries},
            "home": {
                "producer_exit_code": self.home.producer_code,
                "fence_exit_code": self.home.fence_code,
                "unshipped_kept": self.home.unshipped_kept,
                "bundled": self.bundled,
                "bundle_whole": self.bundle_whole,
            },
            "homecoming": self.homecoming.to_json(),
            "complaints": list(self.complaints),
        }


def judged(
    name: str,
    workload: RegistryWorkload,
    before: Ledger,
    after: Ledger,
    *,
    dsn: str,
    reported: Mapping[str, Any],
    began_ns: int,
) -> RegistryDrill:
    """Judge one promoted replica.

    Args:
        name: the registry's.
        workload: its business.
        before: what clients were told at home.
        after: what clients were told abroad.
        dsn: the replica's administrator.
        reported: the promotion report's part about it.
        began_ns: when ``promote run`` began, by the wall clock.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        journal = sql.Identifier(workload.schema, "journal")
        present = Counter(t for (t,) in connection.execute(sql.SQL("SELECT token FROM {}").format(journal)))
        broken = tuple(invariant for invariant, _ in violated(connection, workload))
    told = [entry for entry in before.entries() if entry.outcome is Outcome.COMMITTED]
    lost = [entry for entry in told if entry.token not in present]
    times = sorted(entry.commit_returned.wall_ns for entry in lost if entry.commit_returned is not None)
    begins_ns = _wall_ns(str(reported["last_commit_at"])) - reported["clock_error_seconds"] * _NS
    sealed_ns = _wall_ns(str(reported["sealed_at"]))
    rolled_back = {
        entry.token
        for ledger in (before, after)
        for entry in ledger.entries()
        if entry.outcome is Outcome.ROLLED_BACK
    }
    abroad = [entry for entry in after.entries() if entry.outcome is Outcome.COMMITTED]
    first = min((entry.commit_returned.wall_ns for entry in abroad if entry.commit_returned), default=None)
    return RegistryDrill(
        name=name,
        committed=len(told),
        lost=len(lost),
        lost_tokens=tuple(entry.token for entry in lost),
        lost_before_window=sum(moment < begins_ns or moment > sealed_ns + _NS for moment in times),
        loss_seconds=(times[-1] - times[0]) / _NS if times else 0.0,
        bound_seconds=float(reported["loss_seconds_upper_bound"]),
        phantoms=sum(token in rolled_back for token in present),
        duplicated=sum(count > 1 for count in present.values()),
        violated=broken,
        written_abroad=len(abroad),
        written_abroad_lost=sum(entry.token not in present for entry in abroad),
        first_write_seconds=None if first is None else (first - began_ns) / _NS,
        step_seconds=reported["step_seconds"],
        failures=after.failures(),
    )


def _wall_ns(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp() * _NS
