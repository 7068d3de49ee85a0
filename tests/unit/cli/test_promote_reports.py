"""What is reported later is written beside what was reported before, and over nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from embassy.cli.promote_reports import aborted_entries, write_report
from embassy.model.errors import RefusedError
from embassy.wire.keyring import Identity
from embassy.wire.promotion_plan import PlanFile
from embassy.wire.promotion_report import ReportFile
from embassy.wire.roster import Roster
from tests.harness.envelope import ANNA, BERT
from tests.unit.wire.test_promotion_documents import EMBASSY, PLAN, ROSTER

_LAND = PLAN.streams[0]
_SEA = _LAND._replace(name="sea", stream=bytes(16))
_PLAN = dataclasses.replace(PLAN, streams=(_LAND, _SEA))
_APPROVED = PlanFile.draft(_PLAN).signed(ANNA).signed(BERT)


def test_a_report_gathers_what_each_run_did(tmp_path: Path) -> None:
    path = tmp_path / "plan.report.json"
    land = {"name": "land", "stream": _LAND.stream.hex(), "seconds": 1}
    sea = {"name": "sea", "stream": _SEA.stream.hex()}
    write_report(path, PlanFile.draft(_PLAN), [sea], EMBASSY)  # a copy without the approvals is of the same plan
    assert write_report(path, _APPROVED, [land], EMBASSY) == [land, sea]
    assert write_report(path, _APPROVED, [{**land, "seconds": 2}], EMBASSY) == [{**land, "seconds": 2}, sea]
    proven = ReportFile.read(path).proven((Roster(0, 2, ROSTER),), path)
    assert [proven.epoch_of(stream.stream) for stream in _PLAN.streams] == [2, 2]


@pytest.mark.parametrize("what", ["another plan", "another embassy", "no report"])
def test_what_is_no_report_of_the_plan_is_not_overwritten(tmp_path: Path, what: str) -> None:
    path = tmp_path / "plan.aborted.json"
    entries = aborted_entries([_LAND])
    other = Identity.from_seeds(b"\x41" * 32, b"\x42" * 32)
    text = {
        "another plan": ReportFile.made(PlanFile.draft(PLAN), entries, EMBASSY).render(),
        "another embassy": ReportFile.made(_APPROVED, entries, other).render(),
        "no report": "{}",
    }[what]
    path.write_text(text)
    with pytest.raises(RefusedError, match="no report of this plan") as caught:
        write_report(path, _APPROVED, aborted_entries([_SEA]), EMBASSY)
    assert "move it away" in caught.value.hint
    assert path.read_text() == text
