"""A promotion's signed report, proven by the operators that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from embassy.cli.options import Options
from embassy.model.errors import RefusedError
from embassy.runtime.config import Settings, Stream
from embassy.wire.enrolment import load_rosters
from embassy.wire.promotion_report import Report, ReportFile


def proven_report(options: Options, settings: Settings, path: Path) -> Report:
    """Read a report, and prove it by what ``keys.operators`` names.

    Raises:
        ConfigurationError: it cannot be read, proves nothing, or the operators cannot be read.
    """
    keys = settings.keys
    rosters = load_rosters(options.need(keys.operators, "keys.operators"), keys.threshold)
    return ReportFile.read(path).proven(rosters, path)


class Superseded(NamedTuple):
    """A registry of the configuration that the embassy has, by a report."""

    name: str
    stream: Stream
    entry: Mapping[str, Any]
    """What the report says of it."""


def superseded(options: Options, settings: Settings, report: Report) -> list[Superseded]:
    """The registries that the report is about, as far as the configuration and the command have them.

    Raises:
        RefusedError: there is none; or the report says of all of them that the plan was given up.
    """
    entries = {str(entry["stream"]): entry for entry in report.streams}
    found = [
        Superseded(name, stream, entries[stream.stream])
        for name, stream in options.streams(settings).items()
        if stream.stream in entries
    ]
    promoted = [one for one in found if not one.entry.get("aborted")]
    if found and not promoted:
        raise RefusedError(
            f"the report says that the plan was given up for {', '.join(one.name for one in found)}: nothing superseded "
            "what is at home",
            hint="embassy home release opens what was fenced for it; of a promotion, take PLAN.report.json",
        )
    if not promoted:
        raise RefusedError("the report is about none of these registries", hint="is it another site's?")
    return promoted
