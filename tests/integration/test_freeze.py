"""What operators and thresholds say about applying a stream, on a whole stream with real roles."""

from __future__ import annotations

import json
import os
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import databases, role_configs
from tests.harness.pipeline import MakePipeline, Pipeline, poll_until

_SCHEMA = """
CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);
GRANT ALL ON ALL TABLES IN SCHEMA public TO registry_owner;
"""


def key(pipeline: Pipeline, person: str) -> str:
    return str(role_configs.operator(pipeline.lab.layout, person))


def said(pipeline: Pipeline, *arguments: str, code: int = 0, role: str = "embassy-admin") -> str:
    done = pipeline.embassy_command(role, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def status(pipeline: Pipeline) -> dict[str, Any]:
    done = pipeline.embassy_command("embassy-admin", "--json", "status")
    found: dict[str, Any] = json.loads(done.stdout)["registries"][pipeline.name]
    return found


def lift(pipeline: Pipeline, order: Path, *options: str) -> None:
    said(pipeline, "unfreeze", "plan", str(order), "--reason", "looked into", *options)
    for person in ("anna", "bert"):
        said(pipeline, "unfreeze", "approve", str(order), "--yes", "--key", key(pipeline, person))
    said(pipeline, "unfreeze", "run", str(order))


def write(pipeline: Pipeline, first: int, last: int) -> None:
    """One transaction a row."""
    with pipeline.source(databases.ADMIN) as connection:
        for number in range(first, last):
            connection.execute("INSERT INTO public.deed VALUES (%s, 'somebody')", (number,))


def count(pipeline: Pipeline) -> int:
    with pipeline.replica() as connection:
        (found,) = connection.execute("SELECT count(*) FROM public.deed").fetchone() or (0,)
    return int(found)


def with_another(pipeline: Pipeline, role: str, dsn: str, stream: str) -> str:
    """An administrator's configuration that names another stream before the pipeline's own."""
    content = tomllib.loads(pipeline.config("embassy-admin").read_text(encoding="utf-8"))
    own = content["streams"][pipeline.name]
    content["streams"] = {"another": {**own, "stream": stream, "replica": {"dsn": dsn}}, pipeline.name: own}
    role_configs._write(pipeline.config(role), content)
    return role


@pytest.fixture
def pipeline(make_pipeline: MakePipeline) -> Pipeline:
    found = make_pipeline(_SCHEMA)
    for stage in ("producer", "bridge"):
        found.start(stage)
    return found


def test_one_person_freezes_and_two_lift_it(pipeline: Pipeline, tmp_path: Path) -> None:
    address = tmp_path / "address"
    consumer = pipeline.start("consumer", EMBASSY_ADDRESS_FILE=str(address))
    write(pipeline, 0, 10)
    pipeline.wait_level()

    admin = pipeline.lab.site(pipeline.embassy).postgres.dsn(databases.ADMIN, pipeline.names[pipeline.embassy])
    down = with_another(pipeline, "another-down", f"{admin} port=1", os.urandom(16).hex())
    done = pipeline.embassy_command(
        down, "--json", "freeze", "--reason", "rows vanish", "--key", key(pipeline, "anna")
    )
    assert done.returncode == 3, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["registries"] == {pipeline.name: {"frozen": True, "already": False, "by": "anna"}}
    assert list(report["failed"]) == ["another"]
    assert "error: another: " in done.stderr
    before = count(pipeline)  # from here on, nothing is committed
    write(pipeline, 10, 30)
    metrics = f"http://{address.read_text().strip()}/metrics"
    poll_until(
        lambda: b'embassy_frozen{registry="registry"} 1.0' in urllib.request.urlopen(metrics).read(),
        "the consumer shows it",
        5,
    )
    assert count(pipeline) == before == 10
    seen = status(pipeline)
    assert (seen["state"], seen["healthy"]) == ("frozen", False)
    assert "rows vanish" in seen["cause"]["text"]

    order = tmp_path / "order.json"
    said(pipeline, "unfreeze", "plan", str(order), "--reason", "looked into")
    said(pipeline, "unfreeze", "approve", str(order), "--yes", "--key", key(pipeline, "anna"))
    assert "1 of the 2 persons" in said(pipeline, "unfreeze", "run", str(order), code=6)
    said(pipeline, "unfreeze", "approve", str(order), "--yes", "--key", key(pipeline, "bert"))
    said(pipeline, "unfreeze", "run", str(order))
    pipeline.wait_level()
    assert "not in freeze 1 any more" in said(pipeline, "unfreeze", "run", str(order), code=7)
    assert pipeline.alive(consumer)
    assert said(pipeline, "audit", "log", "--verify")


def test_a_mass_deletion_freezes_a_whole_stream_and_a_run_ends_at_a_point(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    with pipeline.config("consumer").open("a") as file:
        file.write("\n[streams.registry.protection]\nmax_deletes_per_transaction = 100\n")
    consumer = pipeline.start("consumer")
    write(pipeline, 0, 150)
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute("DELETE FROM public.deed WHERE id < 120")
    poll_until(lambda: status(pipeline)["state"] == "frozen", "it freezes")
    assert "deletes 120 rows or more (public.deed: 120)" in status(pipeline)["cause"]["text"]
    assert count(pipeline) == 150
    assert "protection" in said(pipeline, "audit", "log")
    lift(pipeline, tmp_path / "order.json")
    pipeline.wait_level()
    assert pipeline.stop(consumer) == 0

    write(pipeline, 200, 203)
    with pipeline.source(databases.ADMIN) as connection:
        (now,) = connection.execute("SELECT clock_timestamp()::text").fetchone() or ("",)
    write(pipeline, 203, 206)
    done = pipeline.embassy_command("consumer", "consumer", "run", "--stop-at", f"{now}:00")
    assert done.returncode == 0, done.stderr
    assert count(pipeline) == 33
    pipeline.start("consumer")
    pipeline.wait_level()
