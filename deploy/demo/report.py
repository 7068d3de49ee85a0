"""The verdict: what each registry's replicas hold, what was broken, and every reason why all is not well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.demo.faults import Fault
from deploy.demo.supervised_role import Exit
from deploy.workload.comparison import TableComparison
from deploy.workload.verdict import Verdict

SCHEMA = 1
_SHOWN = 5
_UNREACHABLE_CODE = 3
"""A role may end when a server is away for long; as a service it is started again, which is no fault of its own."""


@dataclass(frozen=True, slots=True)
class ReplicaResult:
    """One registry on one replica.

    Attributes:
        complaints: whatever is wrong with it, in words; empty if all is well.
    """

    embassy: str
    committed: int = 0
    applied: int = 0
    lost: int = 0
    duplicated: int = 0
    torn: int = 0
    tables_compared: int = 0
    tables_mismatched: int = 0
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    complaints: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The figures, as the JSON report names them."""
        return {
            "committed": self.committed,
            "applied": self.applied,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "torn": self.torn,
            "tables_compared": self.tables_compared,
            "tables_mismatched": self.tables_mismatched,
            "latency_p50_ms": _rounded(self.latency_p50_ms),
            "latency_p99_ms": _rounded(self.latency_p99_ms),
        }


@dataclass(frozen=True, slots=True)
class RegistryResult:
    """One registry on all its replicas."""

    name: str
    replicas: tuple[ReplicaResult, ...]

    @property
    def worst(self) -> ReplicaResult:
        """All replicas in one: the fewest applied and the slowest, and the sum of what is wrong."""
        replicas = self.replicas
        return ReplicaResult(
            embassy=", ".join(replica.embassy for replica in replicas),
            committed=max(replica.committed for replica in replicas),
            applied=min(replica.applied for replica in replicas),
            lost=max(replica.lost for replica in replicas),
            duplicated=sum(replica.duplicated for replica in replicas),
            torn=sum(replica.torn for replica in replicas),
            tables_compared=sum(replica.tables_compared for replica in replicas),
            tables_mismatched=sum(replica.tables_mismatched for replica in replicas),
            latency_p50_ms=_longest(replica.latency_p50_ms for replica in replicas),
            latency_p99_ms=_longest(replica.latency_p99_ms for replica in replicas),
            complaints=self.complaints,
        )

    @property
    def complaints(self) -> tuple[str, ...]:
        """What is wrong with any replica."""
        return tuple(
            f"{self.name} on {replica.embassy}: {complaint}"
            for replica in self.replicas
            for complaint in replica.complaints
        )

    def to_json(self) -> dict[str, Any]:
        """The figures of all replicas in one and, if there are several, of each."""
        merged = self.worst.to_json()
        if len(self.replicas) == 1:
            return merged
        return {**merged, "embassies": {replica.embassy: replica.to_json() for replica in self.replicas}}


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a demonstration.

    Attributes:
        seconds: how long the load lasted.
        role_complaints: what roles gave up or never did, in words.
    """

    seconds: float
    seed: int
    registries: tuple[RegistryResult, ...]
    faults: tuple[Fault, ...]
    exits: tuple[Exit, ...]
    role_complaints: tuple[str, ...] = ()

    @property
    def complaints(self) -> tuple[str, ...]:
        """Every reason why all is not well."""
        found = list(self.role_complaints)
        found += [_exit_complaint(end) for end in self.exits if not _is_excused(end)]
        found += [
            f"{fault.target} did not recover from {fault.action}: {fault.error or 'no time was left'}"
            for fault in self.faults
            if fault.recovered_seconds is None
        ]
        found += [complaint for registry in self.registries for complaint in registry.complaints]
        return tuple(dict.fromkeys(found))

    @property
    def is_true(self) -> bool:
        """Whether all is well."""
        return bool(self.registries) and not self.complaints

    def to_json(self) -> dict[str, Any]:
        """What ``demo --json`` prints; a contract, numbered by ``schema``."""
        return {
            "schema": SCHEMA,
            "verdict": self.is_true,
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
            "registries": {registry.name: registry.to_json() for registry in self.registries},
            "faults": [
                {
                    "at_seconds": round(fault.at_seconds, 2),
                    "target": fault.target,
                    "action": str(fault.action),
                    "recovered_seconds": _rounded(fault.recovered_seconds),
                }
                for fault in self.faults
            ],
            "exits": [
                {"role": end.role, "code": end.code, "restarted": end.restarted, "last_error": end.last_error}
                for end in self.exits
            ],
            "complaints": list(self.complaints),
        }


def judged(
    embassy: str,
    *,
    verdict: Verdict | None,
    tables: Sequence[TableComparison],
    caught_up: bool,
    failures: Sequence[str] = (),
    business_expected: bool = False,
) -> ReplicaResult:
    """Judge one registry on one replica.

    Args:
        embassy: whose replica it is.
        verdict: by the clients' ledger; None for a registry without clients.
        tables: every table of both sides.
        caught_up: whether the replica provably shows all that was committed.
        failures: errors that clients met and that no crash explains.
        business_expected: whether clients should have committed something.
    """
    complaints = [] if caught_up else ["it has not caught up"]
    if verdict is not None:
        complaints += _verdict_complaints(verdict)
        if business_expected and not verdict.committed:
            complaints.append("no client could commit anything, so nothing is proven")
    mismatched = [table for table in tables if not table.equal]
    complaints += [_table_complaint(table) for table in mismatched[:_SHOWN]]
    complaints += [f"a client met an error that no crash explains: {failure}" for failure in failures[:_SHOWN]]
    if verdict is None:
        return ReplicaResult(
            embassy,
            tables_compared=len(tables),
            tables_mismatched=len(mismatched),
            complaints=tuple(complaints),
        )
    return ReplicaResult(
        embassy=embassy,
        committed=verdict.committed,
        applied=verdict.applied,
        lost=verdict.lost,
        duplicated=verdict.duplicated,
        torn=verdict.torn,
        tables_compared=len(tables),
        tables_mismatched=len(mismatched),
        latency_p50_ms=verdict.latency_p50_ms,
        latency_p99_ms=verdict.latency_p99_ms,
        complaints=tuple(complaints),
    )


def _verdict_complaints(verdict: Verdict) -> list[str]:
    counts = {
        "committed transactions are lost": verdict.lost,
        "transactions are there more than once": verdict.duplicated,
        "impossible states were seen": verdict.torn,
        "committed transactions are not even at the source": verdict.lost_at_source,
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    found += [f"seen: {evidence}" for evidence in verdict.torn_evidence]
    if not verdict.is_true and not found:
        found.append("the ledger does not agree with the replica")
    return found


def _table_complaint(table: TableComparison) -> str:
    counts = f"{_count(table.source_rows)} at the source, {_count(table.replica_rows)} on the replica"
    reason = f"; {table.note}" if table.note else ""
    shown = "".join(
        f"; only at the {difference.side}: {difference.row}" for difference in table.first_differences[:2]
    )
    return f"table {table.table} differs: {counts}{reason}{shown}"


def _count(rows: int | None) -> str:
    return "no table" if rows is None else f"{rows} rows"


def _is_excused(end: Exit) -> bool:
    return end.code == _UNREACHABLE_CODE and end.restarted


def _exit_complaint(end: Exit) -> str:
    how = f"was killed by signal {-end.code}" if end.code < 0 else f"ended with exit code {end.code}"
    return f"{end.role} {how}: {end.last_error or 'it said nothing'}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _longest(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
