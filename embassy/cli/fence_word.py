"""On whose word a registry is shut at home: an approved plan's, which is about to be run, or a run's signed report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from embassy.cli.options import Options
from embassy.cli.proven_report import proven_report
from embassy.model.errors import ApprovalError, RefusedError
from embassy.runtime.config import Settings
from embassy.wire.enrolment import load_roster
from embassy.wire.key_document import load_object
from embassy.wire.promotion_plan import Plan, PlanFile
from embassy.wire.promotion_report import Report
from embassy.wire.public_keys import read_text
from failover.promotion import PERSONS_LEAST, Mode

_SIZE_MOST = 16 << 20


@dataclass(frozen=True, slots=True)
class Word:
    """A plan that enough persons have approved, or what came of it."""

    plan: Plan
    persons: frozenset[str]
    report: Report | None = None
    """Of its run; None: it is about to be run."""

    @property
    def promoted(self) -> bool:
        """Whether the embassy has the registries already."""
        return self.report is not None

    def epoch_of(self, stream: bytes) -> int | None:
        """The epoch for which a stream is to be shut; None if the word is not about it.

        A report is about the streams that were promoted, not about all of its plan: no other site has the rest.
        """
        if self.report is not None:
            return self.report.epoch_of(stream)
        planned = self.plan.stream(stream)
        return None if planned is None else planned.to_epoch


def load_word(options: Options, settings: Settings, path: Path) -> Word:
    """A report, or a plan that enough persons have approved and that has not expired by this machine's clock.

    Raises:
        RefusedError: the file says that the plan was given up, or the plan is of a disaster.
        ApprovalError: too few persons have approved it, or it has expired.
        ConfigurationError: it proves nothing.
    """
    if "signature" in load_object(read_text(path, "file", _SIZE_MOST), "file", path):
        report = proven_report(options, settings, path)
        if not any(report.epoch_of(planned.stream) for planned in report.plan.streams):
            raise RefusedError(
                "the file says that the plan was given up", place=str(path), hint="embassy home release"
            )
        return Word(report.plan, report.persons, report)
    threshold = settings.keys.threshold
    roster = load_roster(options.need(settings.keys.operators, "keys.operators"), threshold)
    file = PlanFile.read(path)
    persons, needed = file.signers(roster), max(PERSONS_LEAST, threshold)
    if len(persons) < needed:
        raise ApprovalError(
            f"the plan is approved by {len(persons)} of the {needed} persons it needs",
            place=str(path),
            hint="let another person of keys.operators run embassy promote approve",
        )
    plan = file.parsed(path)
    if plan.mode != Mode.SWITCHOVER:
        raise RefusedError(
            "the plan is of a disaster: home is fenced with the report of its run",
            place=str(path),
            hint="name PLAN.report.json",
        )
    if time.time() >= min(planned.expires_at for planned in plan.streams):
        raise ApprovalError("the plan has expired", place=str(path), hint="make a new plan, and have it approved")
    return Word(plan, persons)
