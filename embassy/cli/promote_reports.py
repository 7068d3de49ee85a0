"""The signed reports of what became of a plan: of its run, and of its being given up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.runtime.audit_line import JSON
from embassy.runtime.durable import held_folder
from embassy.wire.keyring import Identity
from embassy.wire.promotion_plan import Plan, PlanFile, PlannedStream
from embassy.wire.promotion_report import ReportFile
from embassy.wire.secret_file import replace, write_new

Entry = Mapping[str, Any]
"""What a report says of one stream."""


def plan_details(plan: Plan) -> dict[str, JSON]:
    """What the audit log keeps of a plan."""
    return {
        "nonce": plan.nonce.hex(),
        "mode": plan.mode,
        "accept_loss_seconds": plan.accept_loss_seconds,
        "streams": {p.name: f"{p.from_epoch}→{p.to_epoch}" for p in plan.streams},
    }


def report_json(persons: frozenset[str], plan: Plan, streams: Sequence[Entry]) -> dict[str, Any]:
    """For scripts: what became of a plan that these persons approved."""
    return {
        "schema": "embassy.promotion-report/1",
        "mode": plan.mode,
        "site": plan.site,
        "nonce": plan.nonce.hex(),
        "approvers": sorted(persons),
        "streams": list(streams),
    }


def aborted_entries(streams: Iterable[PlannedStream]) -> list[Entry]:
    """What opens a home again that was fenced for the plan: that its part about these streams is used up."""
    return [{"name": p.name, "stream": p.stream.hex(), "aborted": True} for p in streams]


def earlier_entries(target: Path, plan: PlanFile) -> tuple[Entry, ...]:
    """What a report that is there already says of the same plan; nothing if there is none.

    Raises:
        RefusedError: the file is something else, which is not overwritten.
    """
    if not target.exists():
        return ()
    try:
        return ReportFile.read(target).said_of(plan, target)
    except ConfigurationError as error:
        raise RefusedError(
            f"the file is there, and is no report of this plan: {error.args[0]}",
            place=str(target),
            hint="move it away, then run the same command again",
        ) from error


def write_report(target: Path, plan: PlanFile, entries: Sequence[Entry], identity: Identity) -> list[Entry]:
    """Sign and write what became of some streams, beside what the file says already of others; returns all of it.

    Runs of one plan for different registries may end at the same moment: neither takes out what the other has written.

    Raises:
        RefusedError: the file is there, and is something else.
        ConfigurationError: it cannot be written.
    """
    try:
        with held_folder(target.parent):
            return _written(target, plan, entries, identity)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the report: {error.strerror}",
            place=str(target),
            hint="name a file in a folder that you may read and write with -o, and run the same command again",
        ) from error


def _written(target: Path, plan: PlanFile, entries: Sequence[Entry], identity: Identity) -> list[Entry]:
    new = {entry["stream"] for entry in entries}
    kept = (entry for entry in earlier_entries(target, plan) if entry.get("stream") not in new)
    merged = sorted((*kept, *entries), key=lambda entry: str(entry.get("name")))
    text = ReportFile.made(plan, merged, identity).render()
    if target.exists():
        replace(target, text)
    else:
        write_new(target, text, mode=0o644)
    return merged
