"""What is reported later is written beside what was reported before, and over nothing else."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embassy.cli.promote_reports import aborted_entries, earlier_entries, write_report
from embassy.model.errors import RefusedError
from embassy.wire.keyring import Identity
from embassy.wire.promotion_plan import PlanFile, PlannedStream
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


def test_reports_of_runs_that_end_together_hold_what_each_did(tmp_path: Path) -> None:
    path = tmp_path / "plan.report.json"
    streams = [_LAND._replace(name=f"n{number:02}", stream=bytes([number]) * 16) for number in range(12)]
    approved = PlanFile.draft(dataclasses.replace(PLAN, streams=tuple(streams))).signed(ANNA).signed(BERT)
    barrier = threading.Barrier(len(streams))

    def end(planned: PlannedStream) -> None:
        barrier.wait()
        write_report(path, approved, [{"name": planned.name, "stream": planned.stream.hex()}], EMBASSY)

    with ThreadPoolExecutor(len(streams)) as pool:
        list(pool.map(end, streams))
    assert [entry["name"] for entry in earlier_entries(path, approved)] == [planned.name for planned in streams]


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
