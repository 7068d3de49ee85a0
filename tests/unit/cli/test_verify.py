"""What verify and repair refuse before they look at any database."""

from __future__ import annotations

from pathlib import Path

import pytest

from embassy.model.repair_plan import RepairPlan, TableRepair, encode
from embassy.model.verification import TableName
from tests.harness.command import embassy

_LAND, _PEOPLE = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"
_CONFIG = f"""
site = "home"
[streams.land]
stream = "{_LAND}"
enrolment = "land.json"
[streams.people]
stream = "{_PEOPLE}"
enrolment = "people.json"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "admin.toml"
    path.write_text(_CONFIG)
    return path


def plan(folder: Path, stream: str, mode: int = 0o600) -> str:
    path = folder / "a.repair"
    tables = (TableRepair(TableName("s", "t"), ("id",), (("1",),), 1),)
    path.write_text(encode(RepairPlan("land", stream, "2026-11-25T12:00:00+00:00", tables)))
    path.chmod(mode)
    return str(path)


def test_a_verification_is_of_everything_or_of_a_sample(config: Path) -> None:
    assert "contradict" in embassy(config, "verify", "--full", "--sample", "5", code=2).stderr
    assert "streams.land.source is missing" in embassy(config, "verify", "-r", "land", code=2).stderr
    assert "streams.people.replica" in embassy(config, "verify", "-r", "people", "status", code=2).stderr


def test_a_plan_is_for_one_stream_with_a_replica(config: Path) -> None:
    assert "for one stream" in embassy(config, "repair", "plan", "-o", "x", code=2).stderr
    assert "streams.land.replica" in embassy(config, "repair", "plan", "-r", "land", "-o", "x", code=2).stderr


def test_a_plan_that_others_can_read_or_that_is_not_for_here_is_refused(config: Path, tmp_path: Path) -> None:
    words = ("repair", "apply", "--reason", "a test")
    assert "a.repair" in embassy(config, *words, plan(tmp_path, _LAND, 0o644), code=2).stderr
    assert "not among" in embassy(config, *words, plan(tmp_path, "ab" * 16), code=5).stderr
    assert "not among" in embassy(config, *words, "-r", "people", plan(tmp_path, _LAND), code=5).stderr
    assert "streams.land.source is missing" in embassy(config, *words, plan(tmp_path, _LAND), code=2).stderr
    assert "--reason" in embassy(config, "repair", "apply", plan(tmp_path, _LAND), code=2).stderr
    (tmp_path / "a.repair").write_text("{}")
    assert "not a plan" in embassy(config, *words, str(tmp_path / "a.repair"), code=2).stderr
