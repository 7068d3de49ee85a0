"""How home learns from its operators that it was superseded: a promotion's signed report beside its enrolments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embassy.model.errors import RefusedError
from embassy.wire.enrolment import Enrolment, load_rosters
from embassy.wire.promotion_report import ReportFile

PATTERN = "*.report.json"


def refuse_if_superseded(enrolment: Enrolment, folder: Path, *, operators: Sequence[Path], threshold: int) -> None:
    """Look at the reports in the folder of a stream's enrolment.

    One that claims no higher epoch than the enrolment's says nothing to it, and is not proven: the reports of years
    stay where they are.

    Raises:
        RefusedError: one proves that the stream was promoted to a higher epoch.
        ConfigurationError: one claims that and proves nothing, or is damaged; it is not simply passed over.
    """
    for path in sorted(folder.glob(PATTERN)):
        file = ReportFile.read(path)
        epoch = file.claimed_epoch(enrolment.stream, path)
        if epoch is None or epoch <= enrolment.epoch:
            continue
        report = file.proven(load_rosters(operators, threshold), path)
        raise RefusedError(
            f"home is superseded: {report.plan.site} was promoted to epoch {epoch}, approved by "
            f"{' and '.join(sorted(report.persons))}; this enrolment is of epoch {enrolment.epoch}",
            place=str(path),
            hint="nothing of home counts any more: embassy home fence shuts its writers out; failback begins in the "
            "embassy",
        )
