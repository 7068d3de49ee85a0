"""Status and events on real servers: a stream that is idle, well, broken at each stage, and out of reach."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import databases, role_configs
from deploy.lab.roles import program
from embassy.cli.observing import Observer
from embassy.cli.options import Options
from embassy.model.health import Condition, Health, Stage, State
from tests.harness.kafka import append_values, read_values
from tests.harness.pipeline import MakePipeline, Pipeline, poll_until

_SCHEMA = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);"
_RPO_SECONDS = 5
_EVERYTHING = ("home-admin", "embassy-admin")


def _file(pipeline: Pipeline, *roles: str) -> Path:
    """A configuration that sees what those roles see, impatient enough for a test."""
    joined: dict[str, Any] = {}
    for role in roles:
        content = tomllib.loads(pipeline.config(role).read_text(encoding="utf-8"))
        (stream,) = content.pop("streams").values()
        kafka = {**joined.get("kafka", {}), **content["kafka"]}
        streams = {**joined.get("streams", {}).get(pipeline.name, {}), **stream}
        joined = {**joined, **content, "kafka": kafka, "streams": {pipeline.name: streams}}
    joined["streams"][pipeline.name]["rpo_seconds"] = _RPO_SECONDS
    path = pipeline.folder / f"{'-'.join(roles)}.status.toml"
    role_configs._write(path, joined)
    return path


def _run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*program(), "-c", str(path), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@contextmanager
def _observing(path: Path) -> Iterator[Observer]:
    with Observer(Options(path)) as observer:
        yield observer


def _health(observer: Observer) -> Health:
    look = observer.look()
    assert not look.problems, look.problems
    (entry,) = look.streams
    return entry.health


def _reaches(observer: Observer, state: State, stage: Stage | None = None) -> Health:
    last: list[Health] = []

    def reached() -> bool:
        last[:] = [_health(observer)]
        cause = last[0].cause
        return last[0].state is state and (stage is None or (cause is not None and cause.stage is stage))

    poll_until(reached, f"status is {state.value} {stage}", 90)
    return last[0]


def _well(path: Path) -> dict[str, Any]:
    """The report of the first status that ends well; a busy machine may need a second try."""
    done: list[subprocess.CompletedProcess[str]] = []

    def well() -> bool:
        done[:] = [_run(path, "status", "--json")]
        return done[0].returncode == 0

    poll_until(well, f"status with {path} is well")
    report: dict[str, Any] = json.loads(done[0].stdout)
    return report


@pytest.fixture
def pipeline(make_pipeline: MakePipeline) -> Pipeline:
    """A stream whose producer has the rpo_seconds of those who look: its idle heart beats by them."""
    found = make_pipeline(_SCHEMA)
    path = found.config("producer")
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    content["streams"][found.name]["rpo_seconds"] = _RPO_SECONDS
    role_configs._write(path, content)
    return found


def test_what_is_not_provisioned_says_what_is_missing(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, provision=False)
    done = _run(_file(pipeline, *_EVERYTHING), "status")
    assert done.returncode == 4, done.stderr
    assert "provisioning" in done.stdout
    assert "provision apply" in done.stdout


def test_a_provisioned_and_idle_stream_is_not_green_and_says_why(pipeline: Pipeline) -> None:
    for role, words in {
        "embassy-admin": ("no heartbeat yet", "start the producer at home, then the bridge"),
        "home-admin": ("the stream has not begun", "start the producer"),
        "bridge": ("the home topic is empty", "start the producer"),
    }.items():
        done = _run(_file(pipeline, role), "status")
        assert done.returncode == 4, role
        assert "provisioning" in done.stdout
        for word in words:
            assert word in done.stdout, role
    report = json.loads(_run(_file(pipeline, "embassy-admin"), "status", "--json").stdout)
    entry = report["registries"][pipeline.name]
    assert (report["ok"], entry["healthy"]) == (False, False)
    assert (entry["rpo_seconds"], entry["lag_seconds"], entry["heartbeat_at"]) == (None, None, None)


def test_a_stream_that_is_well_and_then_loses_one_role_after_the_other(pipeline: Pipeline) -> None:
    roles = pipeline.start_all()
    with _observing(_file(pipeline, *_EVERYTHING)) as observer:
        measures = _reaches(observer, State.FOLLOWING).measures
        assert measures.rpo_seconds is not None
        assert measures.rpo_seconds < _RPO_SECONDS + 1
        assert measures.lag_seconds is not None
        assert measures.wal_lag_bytes is not None
        for role, state in {
            "embassy-admin": State.FOLLOWING,
            "consumer": State.FOLLOWING,
            "bridge": State.CARRYING,
            "home-admin": State.PUBLISHING,
            "producer": State.PUBLISHING,
        }.items():
            (entry,) = _well(_file(pipeline, role))["registries"].values()
            assert (entry["state"], entry["cause"]) == (state.value, None), role
        assert _run(_file(pipeline, "embassy-admin"), "status", "--fail-rpo", "0.000001").returncode == 4
        assert _run(_file(pipeline, "home-admin"), "status", "--fail-rpo", "1e9").returncode == 4

        pipeline.kill(roles["consumer"])
        health = _reaches(observer, State.STALLED, Stage.CONSUMER)
        assert health.cause is not None
        assert "no consumer holds the lease" in health.cause.text
        assert health.measures.lag_seconds is None
        pipeline.kill(roles["bridge"])
        _reaches(observer, State.STALLED, Stage.BRIDGE)
        pipeline.kill(roles["producer"])
        health = _reaches(observer, State.STALLED, Stage.PRODUCER)
        assert [cause.stage for cause in health.causes] == [Stage.PRODUCER, Stage.BRIDGE, Stage.CONSUMER]
        grown = health.measures.rpo_seconds
        assert grown is not None
        assert grown > _RPO_SECONDS

        pipeline.start_all()
        _reaches(observer, State.FOLLOWING)


def test_a_lock_in_the_replica_is_named(pipeline: Pipeline) -> None:
    pipeline.start_all()
    with _observing(_file(pipeline, "embassy-admin")) as observer:
        _reaches(observer, State.FOLLOWING)
        with pipeline.replica(databases.ADMIN) as locker, locker.transaction():
            locker.execute("LOCK TABLE public.deed IN ACCESS EXCLUSIVE MODE")
            with pipeline.source() as connection:
                connection.execute("INSERT INTO public.deed VALUES (1, 'Anna')")
            health = _reaches(observer, State.STALLED, Stage.CONSUMER)
            assert health.cause is not None
            assert f"waits for a lock of process {locker.info.backend_pid}" in health.cause.text
        _reaches(observer, State.FOLLOWING)


def test_a_dropped_slot_and_an_emptied_topic_are_broken_at_once(pipeline: Pipeline) -> None:
    roles = pipeline.start_all()
    with _observing(_file(pipeline, *_EVERYTHING)) as observer:
        _reaches(observer, State.FOLLOWING)
        for role in roles.values():
            pipeline.stop(role)
        abroad = pipeline.lab.client_config(pipeline.embassy, "admin")
        append_values(
            abroad, pipeline.topic, read_values(abroad, pipeline.topic)[:1] * 9
        )  # as a second bridge may
        assert all(found.condition is not Condition.BROKEN for found in _health(observer).findings)
        with pipeline.source(databases.ADMIN) as connection:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (pipeline.slot,))
        health = _health(observer)
        assert health.state is State.BROKEN
        assert health.cause is not None
        assert "the replication slot is gone" in health.cause.text
        for site, stage in ((pipeline.embassy, Stage.CONSUMER), ("home", Stage.PRODUCER)):
            admin = pipeline.lab.admin_client(site)
            admin.delete_topics([pipeline.topic])[pipeline.topic].result(30)

            def gone(stage: Stage = stage) -> bool:
                broken = {f.stage for f in _health(observer).findings if f.condition is Condition.BROKEN}
                return stage in broken or (stage is Stage.CONSUMER and Stage.BRIDGE in broken)

            poll_until(gone, f"the topic of {site} is missed")
        done = _run(_file(pipeline, "embassy-admin"), "status")
        assert done.returncode == 4
        assert "does not exist any more" in done.stdout


def test_what_does_not_answer_is_told_and_the_rest_is_shown(pipeline: Pipeline) -> None:
    pipeline.start_all()
    path = _file(pipeline, *_EVERYTHING)
    with _observing(path) as observer:
        _reaches(observer, State.FOLLOWING)
    pipeline.lab.home.kafka.kill9()
    done = _run(path, "status", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    entry = report["registries"][pipeline.name]
    assert (entry["wal_lag_bytes"], entry["bridge_lag_bytes"]) == (None, None)
    assert entry["apply_lag_bytes"] is not None
    assert entry["rpo_seconds"] is not None
    (problem,) = report["problems"]
    assert (problem["side"], problem["exit_code"]) == ("home", 3)
    assert "refused" in problem["message"]

    pipeline.lab.site(pipeline.embassy).postgres.kill9()
    done = _run(_file(pipeline, "embassy-admin"), "status")
    assert done.returncode == 3
    assert "unknown" in done.stdout
    assert "? replica of registry not seen: " in done.stdout


def test_an_observer_outlives_the_servers_it_looks_at(pipeline: Pipeline) -> None:
    pipeline.start_all()
    with _observing(_file(pipeline, "embassy-admin")) as observer:
        _reaches(observer, State.FOLLOWING)
        site = pipeline.lab.site(pipeline.embassy)
        site.postgres.kill9()
        look = observer.look()
        assert look.streams[0].health.state is State.UNKNOWN
        assert [problem.error.hint != "" for problem in look.problems] == [True]
        site.postgres.start()
        site.kafka.kill9()
        site.kafka.start()
        poll_until(lambda: not observer.look().problems, "both answer again")
        _reaches(observer, State.FOLLOWING)


def test_a_wrong_certificate_is_a_configuration_error_that_hides_nothing_else(pipeline: Pipeline) -> None:
    path = _file(pipeline, "embassy-admin")
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    content["streams"][pipeline.name]["replica"]["dsn"] += " user=nobody_known"
    role_configs._write(path, content)
    done = _run(path, "status", "--json")
    assert done.returncode == 2, done.stderr
    report = json.loads(done.stdout)
    assert report["registries"][pipeline.name]["state"] == "unknown"
    assert report["problems"][0]["side"] == "replica"


def test_events_tell_which_records_count(pipeline: Pipeline) -> None:
    producer = pipeline.start("producer")
    values: list[bytes] = []

    def sealed() -> bool:
        values[:] = read_values(pipeline.lab.client_config("home", "admin"), pipeline.topic)
        return len(values) >= 5

    poll_until(sealed, "five records are in the home topic")
    pipeline.stop(producer)
    values = read_values(pipeline.lab.client_config("home", "admin"), pipeline.topic)
    forged = bytearray(values[2])
    forged[len(forged) // 2] ^= 1
    abroad = pipeline.lab.client_config(pipeline.embassy, "admin")
    append_values(abroad, pipeline.topic, [*values[:3], values[1], bytes(forged), b"rubbish", *values[3:]])

    path = _file(pipeline, "embassy-admin")
    done = _run(path, "events", "tail", "--from-start", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["offset"] for event in events] == list(range(len(values) + 3))
    assert [event["mark"] for event in events[:6]] == ["links"] * 3 + ["repeated", "unsigned", "malformed"]
    assert [event["counts"] for event in events] == [True] * 3 + [False] * 3 + [True] * (len(values) - 3)
    assert [event["signed"] for event in events[3:6]] == [True, False, False]
    assert (events[0]["kind"], events[0]["sequence"], events[0]["stream"]) == ("KEY", 1, pipeline.stream)
    assert all(len(value) == event["bytes"] for value, event in zip(values[:3], events, strict=False))

    last = _run(path, "events", "tail", "-n", "2", "-r", pipeline.name)
    assert last.returncode == 0, last.stderr
    assert [line.split()[-1] for line in last.stdout.splitlines()] == ["COUNTS", "yes", "yes"]

    inspected = _run(path, "events", "inspect", "0", "--json")
    assert inspected.returncode == 0, inspected.stderr
    key = json.loads(inspected.stdout)
    assert (key["kind"], key["counts"], len(key["recipients"])) == ("KEY", True, 2)
    with pipeline.source(databases.ADMIN) as connection:
        row = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    assert row == (key["system_identifier"],)
    assert _run(path, "events", "inspect", "4").returncode == 9
    assert _run(path, "events", "inspect", "5").returncode == 9
    beyond = _run(path, "events", "inspect", str(len(values) + 3))
    assert beyond.returncode == 2
    assert f"it holds 0 to {len(values) + 2}" in beyond.stderr


def test_watch_ends_as_status_would(pipeline: Pipeline) -> None:
    done = _run(_file(pipeline, "embassy-admin"), "watch", "--looks", "2", "--interval", "0.2", "--json")
    assert done.returncode == 4, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["registries"][pipeline.name]["state"] for report in reports] == ["provisioning"] * 2
