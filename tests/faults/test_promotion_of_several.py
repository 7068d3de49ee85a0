"""One plan for several registries: each goes as far as it can, and every report has all of it."""

from __future__ import annotations

import base64
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import databases, role_configs
from embassy.wire.keyring import generate_operator
from tests.faults.test_promotion import Ceremony
from tests.harness.pipeline import STAGES, MakePipeline, Pipeline

_SCHEMA = "CREATE TABLE public.event (id bigint PRIMARY KEY);"
_DOWN, _MORE, _OTHERS, _ALONE = "sea-is-down", "one-more", "other-operators", "land-alone"


def _together(land: Pipeline, sea: Pipeline) -> None:
    """The first one's roles and administrator have both streams; more administrators have what their names say."""
    for role in (*STAGES, "embassy-admin"):
        content = _read(land, role)
        content["streams"] = {"land": content["streams"][land.name], "sea": _read(sea, role)["streams"][sea.name]}
        role_configs._write(land.config(role), content)
    content = _read(land, "embassy-admin")
    carl = generate_operator(land.folder / "carl.json", person="Carl").public
    others = {**content["keys"], "operators": [*content["keys"]["operators"], str(carl)]}
    role_configs._write(land.config(_OTHERS), {**content, "keys": others})
    streams = content["streams"]
    content["streams"] = {"land": streams["land"]}
    role_configs._write(land.config(_ALONE), content)
    content["streams"] = {**streams, "air": {**streams["sea"], "stream": "ab" * 16}}
    role_configs._write(land.config(_MORE), content)
    unreachable = {"dsn": f"{streams['sea']['replica']['dsn']} port=1"}
    content["streams"] = {**streams, "sea": {**streams["sea"], "replica": unreachable}}
    role_configs._write(land.config(_DOWN), content)


def _read(pipeline: Pipeline, role: str) -> dict[str, Any]:
    return tomllib.loads(pipeline.config(role).read_text(encoding="utf-8"))


def _told(report: Path) -> dict[str, bool]:
    """Of which streams a report tells, and whether they were given up."""
    payload = json.loads(base64.b64decode(json.loads(report.read_text())["payload"]))
    return {entry["name"]: entry.get("aborted", False) for entry in payload["streams"]}


@pytest.fixture
def land(make_pipeline: MakePipeline) -> Pipeline:
    return make_pipeline(_SCHEMA)


@pytest.fixture
def sea(make_pipeline: MakePipeline) -> Pipeline:
    return make_pipeline(_SCHEMA)


def test_registries_of_one_plan_go_each_as_far_as_it_can(land: Pipeline, sea: Pipeline) -> None:
    _together(land, sea)
    ceremony, there = Ceremony(land), Ceremony(sea)
    land.start_all()
    for pipeline in (land, sea):
        pipeline.wait_level()
    land.kill_all()
    _given_up_one_by_one(ceremony)

    plan = ceremony.approve(ceremony.plan())
    report = plan.with_suffix(".report.json")
    run = ("run", str(plan), "--confirm")
    killed = ceremony.promote(*run, "land", "-r", "land", failpoint="promotion.after_epoch")
    assert killed.returncode == -9, killed.stderr
    assert (ceremony.epoch(), ceremony.writes("event")) == (2, False)
    status = ceremony.promote("status").stdout
    assert "land: epoch 2, promoting" in status
    assert "promote abort" not in status, "what is left is to run it again"

    # Behind the point of no return a registry is opened, although the plan has expired for another one.
    with sea.replica(databases.ADMIN) as connection:
        connection.execute(
            "INSERT INTO embassy.local_clock (id, newest) VALUES (1, now() + interval '1 day')"
            " ON CONFLICT (id) DO UPDATE SET newest = excluded.newest"
        )
    done = ceremony.promote(*run, "all")
    assert done.returncode == 6, done.stderr
    assert "error: sea: the plan expired" in done.stderr
    assert "a new plan has to leave out what is promoted: embassy … promote plan … -r sea" in done.stderr
    assert "nothing was changed" not in done.stderr
    assert (ceremony.writes("event"), there.writes("event"), there.epoch()) == (True, False, 1)
    assert _told(report) == {"land": False}

    done = ceremony.promote(*run, "all", role=_ALONE)
    assert done.returncode == 2, done.stderr
    assert "error: sea: the plan's stream sea is not in the configuration" in done.stderr
    assert _told(report) == {"land": False}
    done = ceremony.promote(*run, "all", role=_OTHERS)
    assert done.returncode == 7, done.stderr
    assert "error: sea: the operators or their threshold are others" in done.stderr
    assert _told(report) == {"land": False}

    # And the report of what is run later has what was run before.
    with sea.replica(databases.ADMIN) as connection:
        connection.execute("UPDATE embassy.local_clock SET newest = clock_timestamp()")
    done = ceremony.promote(*run, "sea", "-r", "sea", "--json")
    assert done.returncode == 0, done.stderr
    assert [entry["name"] for entry in json.loads(done.stdout)["streams"]] == ["land", "sea"]
    assert _told(report) == {"land": False, "sea": False}
    assert ceremony.promote("report", str(report)).returncode == 0
    assert there.writes("event")

    elsewhere = ceremony.plans[0].with_suffix(".aborted.json")
    refused = ceremony.promote(*run, "all", "-o", str(elsewhere))
    assert (refused.returncode, "is no report of this plan" in refused.stderr) == (5, True), refused.stderr
    assert ceremony.promote("abort", str(plan), "--reason", "too late").returncode == 5
    assert not plan.with_suffix(".aborted.json").exists()


def _given_up_one_by_one(ceremony: Ceremony) -> None:
    """A replica that does not answer keeps no other's proof from being written, and a stranger's replaces none."""
    status = ceremony.promote("status", role=_DOWN)
    assert (status.returncode, "land: epoch 1, following" in status.stdout) == (3, True), status.stderr
    assert "error: sea: " in status.stderr
    terms = ("--mode", "disaster", "--accept-loss", "60", "-o", str(ceremony.pipeline.folder / "none.json"))
    lacking = ceremony.promote("plan", *terms, role=_DOWN)
    assert (lacking.returncode, "a plan of the others: -r land" in lacking.stderr) == (3, True), lacking.stderr
    plan = ceremony.approve(ceremony.plan())
    proof = plan.with_suffix(".aborted.json")
    abort = ("abort", str(plan), "--reason", "a rehearsal")
    done = ceremony.promote(*abort, role=_DOWN)
    assert done.returncode == 3, done.stderr
    assert "error: sea: " in done.stderr
    assert _told(proof) == {"land": True}
    done = ceremony.promote(*abort, "-r", "air", role=_MORE)
    assert done.returncode == 2, done.stderr
    assert "the plan is not about air" in done.stderr
    assert _told(proof) == {"land": True}
    anna = str(role_configs.operator(ceremony.pipeline.lab.layout, "anna"))
    assert ceremony.promote("approve", str(plan), "--key", anna, "--yes", role=_OTHERS).returncode == 7
    done = ceremony.promote(*abort, "-r", "sea", "--json", role=_OTHERS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["aborted"] == ["sea"]
    assert _told(proof) == {"land": True, "sea": True}
    assert "given up" in ceremony.promote("report", str(proof)).stdout
