"""What a look at the streams amounts to: as JSON, as an exit code."""

from __future__ import annotations

from typing import Any, NamedTuple

from embassy.model.health import Finding
from embassy.model.look import Look, Observed, Problem
from embassy.model.look_words import differing_of
from embassy.model.measures import Behind, replica_seen, source_seen, tail_of
from embassy.model.observation import Side, TailSeen, verified_seen
from embassy.model.wording import iso
from embassy.runtime.exit_codes import ExitCode, exit_code, worst

_SCHEMA = "embassy.status/1"


class Thresholds(NamedTuple):
    """What the caller will not accept; None: no opinion."""

    rpo_seconds: float | None = None
    lag_seconds: float | None = None

    def exceeded(self, observed: Observed) -> list[str]:
        """In words, which of them a stream exceeds. What is not known is not within."""
        measures = observed.health.measures
        checks = (("RPO", self.rpo_seconds, measures.rpo_seconds), ("LAG", self.lag_seconds, measures.lag_seconds))
        complaints = []
        for name, limit, value in checks:
            if limit is None or (value is not None and value <= limit):
                continue
            found = "is not known" if value is None else f"is {value:.1f}s"
            complaints.append(f"{name} {found}, the limit is {limit:g}s")
        return complaints


def verdict(look: Look, thresholds: Thresholds) -> ExitCode:
    """How the command ends: a picture with holes first, then what is wrong in it."""
    if look.problems:
        return worst(frozenset(exit_code(problem.error) for problem in look.problems))
    well = all(
        entry.health.state.healthy and not differing_of(entry) and not thresholds.exceeded(entry)
        for entry in look.streams
    )
    return ExitCode.OK if well else ExitCode.CHECK_FAILED


def as_json(look: Look, thresholds: Thresholds) -> dict[str, Any]:
    """Base units; null is not known; instants are ISO 8601, UTC."""
    return {
        "schema": _SCHEMA,
        "observed_at": iso(look.observed_at),
        "site": look.site,
        "sides": [_side(side) for side in Side if side in look.sides],
        "ok": verdict(look, thresholds) is ExitCode.OK,
        "registries": {entry.registry: _registry(entry, thresholds) for entry in look.streams},
        "problems": [_problem(problem) for problem in look.problems],
    }


def _registry(entry: Observed, thresholds: Thresholds) -> dict[str, Any]:
    health, seen = entry.health, entry.observation
    measures = health.measures
    return {
        "state": health.state.value,
        "healthy": health.state.healthy,
        "epoch": measures.epoch,
        "wal_lag_bytes": measures.wal_lag_bytes,
        **_behind("bridge", measures.bridge),
        **_behind("apply", measures.apply),
        "lag_seconds": _rounded(measures.lag_seconds),
        "rpo_seconds": _rounded(measures.rpo_seconds),
        "rpo_target_seconds": entry.rpo_target_seconds,
        "heartbeat_at": _iso(measures.heartbeat_at),
        "heartbeat_age_seconds": _rounded(measures.heartbeat_age_seconds),
        "applied_age_seconds": _rounded(measures.applied_age_seconds),
        "committed_at": _iso(measures.committed_at),
        **_control(entry),
        "skew_seconds": _rounded(measures.skew_seconds),
        "verified": _verified(entry),
        "slot": _slot(entry),
        "topics": {"home": _tail(tail_of(seen.home)), "foreign": _tail(tail_of(seen.foreign))},
        "copies": _copies(entry),
        "exceeded": thresholds.exceeded(entry),
        "cause": _finding(health.cause) if health.cause is not None else None,
        "findings": [_finding(finding) for finding in health.findings],
    }


def _behind(name: str, behind: Behind) -> dict[str, int | None]:
    return {f"{name}_lag_bytes": behind.size, f"{name}_lag_records": behind.records}


def _slot(entry: Observed) -> dict[str, Any] | None:
    source = source_seen(entry.observation)
    if source is None or source.slot is None:
        return None
    slot = source.slot
    return {
        "active": slot.active,
        "lost": slot.lost or None,
        "retained_bytes": slot.retained_bytes,
        "safe_bytes": slot.safe_bytes,
        "confirmed_lsn": None if slot.confirmed_lsn is None else str(slot.confirmed_lsn),
    }


def _control(entry: Observed) -> dict[str, Any]:
    replica = replica_seen(entry.observation)
    control = replica.control if replica is not None else None
    return {
        "frozen_at": _iso(control.frozen_at) if control is not None else None,
        "apply_delay_seconds": control.delay_seconds if control is not None else None,
    }


def _verified(entry: Observed) -> dict[str, Any] | None:
    found = verified_seen(entry.observation)
    if found is None:
        return None
    return {
        "ended_at": _iso(found.ended_at),
        "outcome": found.outcome,
        "differing_rows": found.differing_rows,
    }


def _copies(entry: Observed) -> list[dict[str, Any]] | None:
    """The tables that are still being copied; null if the replica was not seen."""
    replica = replica_seen(entry.observation)
    return None if replica is None else [copy._asdict() for copy in replica.copies]


def _tail(tail: TailSeen | None) -> dict[str, Any] | None:
    if tail is None:
        return None
    return {
        "offset": tail.offset,
        "sequence": tail.sequence,
        "resume_lsn": str(tail.resume_lsn),
        "appended_at": iso(tail.appended_at),
        "proven": tail.proven,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "stage": finding.stage.value,
        "condition": finding.condition.value,
        "text": finding.text,
        "remedy": finding.remedy,
        "follows": finding.follows,
    }


def _problem(problem: Problem) -> dict[str, Any]:
    error = problem.error
    return {
        "side": None if problem.side is None else _side(problem.side),
        "registry": problem.registry or None,
        "message": str(error.args[0]),
        "place": error.place or None,
        "hint": error.hint or None,
        "exit_code": int(exit_code(error)),
    }


def _side(side: Side) -> str:
    return side.name.lower()


def _iso(at: float | None) -> str | None:
    return None if at is None else iso(at)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
