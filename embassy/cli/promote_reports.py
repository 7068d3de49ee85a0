"""The signed reports of what became of a plan: of its run, and of its being given up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from embassy.cli.promote_running import Approved
from embassy.wire.keyring import Identity
from embassy.wire.promotion_plan import Plan
from embassy.wire.promotion_report import ReportFile
from embassy.wire.secret_file import replace, write_new


def report_json(persons: frozenset[str], plan: Plan, streams: Sequence[Any]) -> dict[str, Any]:
    """For scripts: what became of a plan that these persons approved."""
    return {
        "schema": "embassy.promotion-report/1",
        "mode": plan.mode,
        "site": plan.site,
        "nonce": plan.nonce.hex(),
        "approvers": sorted(persons),
        "streams": list(streams),
    }


def proof_of_abort(approved: Approved, aborted: Collection[str], identity: Identity) -> ReportFile:
    """What opens a home again that was fenced for the plan: that its part about these streams is used up."""
    streams = [
        {"name": planned.name, "stream": planned.stream.hex(), "aborted": True}
        for planned in approved.plan.streams
        if planned.name in aborted
    ]
    return ReportFile.made(approved.file, streams, identity)


def write_report(target: Path, report: ReportFile) -> None:
    """Write it; a run that goes on has written it before, perhaps without all streams."""
    if target.exists():
        replace(target, report.render())
    else:
        write_new(target, report.render(), mode=0o644)
