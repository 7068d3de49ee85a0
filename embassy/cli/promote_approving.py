"""One person's approval of a plan: of the roster, for one embassy and no second one, noted before it is signed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embassy.cli.options import Options
from embassy.cli.promote_running import Approved
from embassy.model.errors import RefusedError
from embassy.runtime.config import Settings
from embassy.wire.enrolment import load_roster
from embassy.wire.given_approvals import GivenApprovals, is_majority
from embassy.wire.keyring import Operator
from embassy.wire.promotion_report import ReportFile
from embassy.wire.secret_file import replace


class Approval:
    """What one operator may approve."""

    def __init__(self, options: Options, settings: Settings, operator: Operator, place: Path) -> None:
        """Read the roster.

        Raises:
            ConfigurationError: it cannot be read.
        """
        self.person = operator.half.person
        self.key_id = operator.half.id.hex()
        self._operator = operator
        self._place = place
        self._threshold = settings.keys.threshold
        self._roster = load_roster(options.need(settings.keys.operators, "keys.operators"), self._threshold)

    @property
    def is_majority(self) -> bool:
        """Whether those who must approve are more than half of the roster: then no others can approve a second plan."""
        return is_majority(self._roster, self._threshold)

    def sign(
        self, found: Approved, path: Path, kept: Path, *, given_up: Sequence[Path], lost: Sequence[str]
    ) -> None:
        """Add the signature to the plan's file at ``path``, and note in ``kept`` what this person has approved.

        Raises:
            RefusedError: the person is not of the roster; or has approved another embassy's promotion to the same epoch,
                which no proof in ``given_up`` says was aborted, and whose site is not one of the ``lost``.
        """
        if self._operator.public not in self._roster:
            raise RefusedError(
                f"the key of {self.person} is not one of keys.operators: it approves nothing here",
                place=str(self._place),
                hint="use the key that the roster lists",
            )
        before = GivenApprovals.read(kept)
        proofs = [ReportFile.read(proof).given_up(proof) for proof in given_up]
        before.refuse_second_embassy(found.plan, given_up=proofs, lost=lost, place=kept)
        signed = found.file.signed(self._operator)
        before.with_plan(found.file, found.plan).write(kept)  # first: what was not noted must not be signed
        replace(path, signed.render())
