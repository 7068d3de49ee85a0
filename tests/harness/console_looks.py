"""Looks for the console, of streams that are well until they are spoiled."""

from __future__ import annotations

from console.seen import AuditSeen, Desk, Seen
from embassy.cli.status_report import Thresholds, as_json
from embassy.model.health import assess
from embassy.model.look import Look, Observed, Problem
from embassy.model.observation import Observation
from tests.harness.observations import LIMITS, NOW

TARGET_SECONDS = 60.0
OPEN = Desk((), ())


def look_of(streams: dict[str, Observation], *problems: Problem, later: float = 0.0) -> Look:
    """A look at these streams, so much later than their clocks say."""
    seen = tuple(Observed(name, TARGET_SECONDS, found, assess(found, LIMITS)) for name, found in streams.items())
    sides = frozenset(side for entry in seen for side in entry.observation.sides)
    return Look(NOW + later, "embassy-1", sides, seen, problems)


def seen_of(
    streams: dict[str, Observation],
    *problems: Problem,
    desks: dict[str, Desk | str] | None = None,
    audit: AuditSeen | None = None,
    later: float = 0.0,
) -> Seen:
    """What a turn of the collection brings of them; nothing stands in the way of a promotion."""
    look = look_of(streams, *problems, later=later)
    return Seen(
        look,
        as_json(look, Thresholds()),
        dict.fromkeys(streams, OPEN) if desks is None else desks,
        audit or AuditSeen("/var/lib/embassy/audit.jsonl"),
        "admin.toml",
    )
