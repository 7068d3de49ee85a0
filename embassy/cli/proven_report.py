"""A promotion's signed report, proven by the operators that the configuration names."""

from __future__ import annotations

from pathlib import Path

from embassy.cli.options import Options
from embassy.runtime.config import Settings
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
