"""What is unreachable, full, missing or wrong is named with its way out; and nothing is lost over it."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from deploy.lab import role_configs
from deploy.lab.databases import PRODUCER
from deploy.lab.postgres_server import PostgresServer
from deploy.lab.server import Server
from tests.faults.test_attacks import commit, shown
from tests.harness.certificates import expired, renew
from tests.harness.kafka import read_values
from tests.harness.pipeline import MakePipeline, Pipeline, RoleProcess, Stage, poll_until

_SCHEMA = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text);"


def server_of(pipeline: Pipeline, name: str) -> Server:
    site, kind = name.split(" ")
    found = pipeline.lab.site("home" if site == "home" else pipeline.embassy)
    return found.kafka if kind == "kafka" else found.postgres


@pytest.mark.parametrize("name", ["home kafka", "embassy kafka", "home postgres", "embassy postgres"])
def test_a_server_killed_under_load_loses_nothing(name: str, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA)
    roles = pipeline.start_all()
    commit(pipeline, 1, 50)
    server = server_of(pipeline, name)
    server.kill9()
    if name != "home postgres":
        commit(pipeline, 51, 50)
    if isinstance(server, PostgresServer):
        come_back_as_a_standby(server, roles["producer" if name == "home postgres" else "consumer"])
    else:
        server.start()
    commit(pipeline, 101, 50)
    pipeline.wait_level()
    assert all(pipeline.alive(role) for role in roles.values())


def come_back_as_a_standby(server: PostgresServer, role: RoleProcess) -> None:
    """Start a server in recovery, as a switchover shows it for a moment, and promote it once the role has met it."""
    signal_file = server.data / "standby.signal"
    signal_file.touch()
    server.account.own(signal_file)
    server.start()
    try:
        poll_until(lambda: "is in recovery" in role.tail(), f"the {role.stage} waits for a primary")
    finally:
        with server.connect() as connection:
            connection.execute("SELECT pg_promote(true, 30)")


def test_what_a_killed_replica_server_forgets_is_applied_again_whole(make_pipeline: MakePipeline) -> None:
    """It never waits for its disk, so it does forget; but rows and progress alike, and no part of a transaction."""
    pipeline = make_pipeline(_SCHEMA + "CREATE TABLE public.twin (id bigint PRIMARY KEY);")
    roles = pipeline.start_all()
    both = "SELECT (SELECT count(*) FROM public.deed), (SELECT count(*) FROM public.twin)"
    committed = 0

    def commit_pairs(count: int) -> None:
        nonlocal committed
        with pipeline.source() as connection:
            for _ in range(count):
                committed += 1
                with connection.transaction():
                    connection.execute("INSERT INTO public.deed VALUES (%s, 'somebody')", (committed,))
                    connection.execute("INSERT INTO public.twin VALUES (%s)", (committed,))

    def seen() -> int:
        with pipeline.replica() as connection:
            deeds, twins = connection.execute(both).fetchone() or (0, 0)
        assert deeds == twins
        return int(deeds)

    forgotten = 0
    with pipeline.forgetful_replica() as server:
        for _ in range(3):
            before = committed
            commit_pairs(40)
            poll_until(lambda before=before: seen() > before + 20, "it is applied")  # type: ignore[misc]
            least = seen()
            os.kill(roles["consumer"].popen.pid, signal.SIGSTOP)  # what is there is what the server kept
            server.kill9()
            server.start()
            kept = seen()
            forgotten += least - min(kept, least)
            os.kill(roles["consumer"].popen.pid, signal.SIGCONT)
    assert forgotten > 0, "the server waits for its disk"
    pipeline.wait_level()
    assert seen() == committed
    assert pipeline.alive(roles["consumer"])


def test_a_source_shuts_down_although_the_home_cluster_is_gone(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, {"producer": {"release_seconds": 1.0}})
    roles = pipeline.start_all()
    commit(pipeline, 1, 20)
    pipeline.wait_level()
    kafka, postgres = server_of(pipeline, "home kafka"), server_of(pipeline, "home postgres")
    kafka.kill9()
    commit(pipeline, 21, 20)
    postgres.stop()
    assert "it is let go" in roles["producer"].tail()
    postgres.start()
    kafka.start()
    commit(pipeline, 41, 20)
    pipeline.wait_level()
    assert all(pipeline.alive(role) for role in roles.values())


@pytest.mark.parametrize("stage", ["producer", "bridge", "consumer"])
def test_a_paused_role_wakes_up_beside_its_successor(
    stage: Stage, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    """SIGSTOP is a machine that hangs: its successor takes over, and what it says when it wakes does not count."""
    address = tmp_path / "address"
    pipeline = make_pipeline(_SCHEMA, {"producer": {"heartbeat_seconds": 0.2}})
    roles = pipeline.start_all()
    commit(pipeline, 1, 20)
    pipeline.wait_level()
    roles[stage].popen.send_signal(19)
    successor = start_with_address(pipeline, address, stage)
    commit(pipeline, 21, 20)
    if stage != "bridge":  # of which two only make copies; the others have a session that holds the stream
        poll_until(lambda: f"another {stage}" in get(address, "/readyz")[1], "it is not ready, and says why")
    roles[stage].popen.send_signal(18)
    commit(pipeline, 41, 20)
    pipeline.wait_level()
    assert shown(pipeline) == list(range(1, 61))
    assert pipeline.alive(successor)


def test_a_topic_that_takes_no_records_is_named_and_nothing_is_lost(
    make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    pipeline, address = make_pipeline(_SCHEMA), tmp_path / "address"
    set_topic_limit(pipeline, 2_000)  # no KEY record fits
    producer = start_with_address(pipeline, address, linger_seconds=3600)
    halted = 'embassy_stream_halted{component="producer",reason="configuration",registry="registry"} 1.0'
    poll_until(lambda: halted in get(address, "/metrics")[1], "the halt is there for whoever scrapes")
    poll_until(lambda: "staying" in producer.tail(), "its only stream has halted, and it stays")
    assert get(address, "/livez")[0] == 200
    assert "max.message.bytes" in get(address, "/readyz")[1]
    assert pipeline.stop(producer) == 2, producer.tail()
    assert "max.message.bytes" in producer.tail()
    commit(pipeline, 1, 3)
    set_topic_limit(pipeline, 1_048_588)
    pipeline.start_all()
    pipeline.wait_level()


def set_topic_limit(pipeline: Pipeline, limit_bytes: int) -> None:
    admin = pipeline.lab.admin_client("home")
    entry = ConfigEntry("max.message.bytes", str(limit_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, pipeline.topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(30)


def test_an_expired_certificate_is_named_and_so_is_one_that_waits_for_a_restart(
    make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    pipeline, address = make_pipeline(_SCHEMA), tmp_path / "address"
    kafka = pipeline.lab.home.kafka
    files = expired(kafka.authority, "producer", tmp_path)
    own = {"certificate": str(files.certificate), "key": str(files.key)}
    pipeline.write_configs(kafka={"home": {"bootstrap": kafka.bootstrap, "ca": str(files.ca), **own}})
    producer = start_with_address(pipeline, address)
    poll_until(lambda: f"{files.certificate} expired at 2" in get(address, "/readyz")[1], "it is named")
    poll_until(
        lambda: any(f"{files.certificate} expired" in event.get("hint", "") for event in producer.events),
        "the log names it, too",
    )
    renew(files, kafka.authority, "producer")
    poll_until(lambda: "restart the process" in get(address, "/readyz")[1], "it says what it takes")
    pipeline.stop(producer)
    start_with_address(pipeline, address)
    poll_until(lambda: get(address, "/readyz")[0] == 200, "it goes on")


def test_a_consumer_with_a_wrong_key_says_so(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = make_pipeline(_SCHEMA)
    pipeline.start("producer")
    pipeline.start("bridge")
    commit(pipeline, 1, 3)
    abroad = pipeline.lab.client_config(pipeline.embassy, "admin")
    poll_until(lambda: len(read_values(abroad, pipeline.topic)) > 1, "records in the embassy")
    other = tmp_path / "other.recipient.json"
    made = pipeline.embassy_command("consumer", "keys", "generate", "recipient", str(other))
    assert made.returncode == 0, made.stderr
    operators = role_configs._operators(pipeline.lab.layout)
    pipeline.write_configs(keys={"recipient": str(other), **operators})
    consumer = pipeline.start("consumer")
    assert consumer.exit_code() == 9, consumer.tail()
    assert "recipient" in consumer.tail()
    pipeline.write_configs()
    pipeline.start("consumer")
    pipeline.wait_level()


def test_a_row_that_the_replica_lacks_halts_the_stream_and_turns_health_red(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA + "CREATE TABLE public.other (id bigint PRIMARY KEY);")
    roles = pipeline.start_all()
    commit(pipeline, 1, 3)
    pipeline.wait_level()
    with pipeline.replica("embassy_admin") as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM public.deed WHERE id = 2")
    with pipeline.source() as connection:
        connection.execute("UPDATE public.deed SET owner = 'new' WHERE id = 2")
    assert roles["consumer"].exit_code() == 9, roles["consumer"].tail()
    said = roles["consumer"].tail()
    assert "public.deed" in said
    assert "new" not in [event.get("owner") for event in roles["consumer"].events]
    assert shown(pipeline) == [1, 3]


def test_a_value_of_many_records_passes(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline("CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text, scan bytea);")
    pipeline.start_all()
    with pipeline.source() as connection:
        connection.execute(
            "INSERT INTO public.deed SELECT 1, 'big', string_agg(sha256(i::text::bytea), ''::bytea)"
            " FROM generate_series(1, 300000) AS i"
        )
        connection.execute("UPDATE public.deed SET owner = 'unchanged scan' WHERE id = 1")
    pipeline.wait_level()


def test_health_and_metrics_answer(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = make_pipeline(_SCHEMA)
    address = tmp_path / "address"
    role = start_with_address(pipeline, address)
    pipeline.start("bridge")
    pipeline.start("consumer")
    commit(pipeline, 1, 3)
    pipeline.wait_level()
    assert get(address, "/livez")[0] == 200
    assert get(address, "/readyz?verbose")[0] == 200
    told = get(address, "/metrics")[1]
    assert 'embassy_position_bytes{registry="registry",stage="published"}' in told
    kafka, postgres = pipeline.lab.home.kafka.authority, pipeline.lab.home.postgres.authority
    certificates = {str(kafka.client("producer").certificate), str(postgres.client(PRODUCER).certificate)}
    ends = re.findall(r'^embassy_certificate_expires_timestamp_seconds\{file="(.*)"\} (.*)$', told, re.MULTILINE)
    assert {file for file, _ in ends} == certificates
    assert all(float(end) > time.time() for _, end in ends)
    assert pipeline.stop(role) == 0


def start_with_address(
    pipeline: Pipeline, address: Path, stage: Stage = "producer", *, linger_seconds: int = 0
) -> RoleProcess:
    role = pipeline.start(
        stage,
        EMBASSY_ADDRESS_FILE=str(address),
        EMBASSY_METRICS__LINGER_SECONDS=str(linger_seconds),
    )
    poll_until(lambda: address.is_file() and address.read_text(encoding="utf-8").strip() != "", "the address file")
    return role


def get(address: Path, path: str) -> tuple[int, str]:
    url = f"http://{address.read_text(encoding='utf-8').strip().removeprefix('http://')}{path}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_typo_in_a_configuration_is_named(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA)
    pipeline.write_configs(producer={"batch_byte": 5})
    done = pipeline.embassy_command("producer", "producer", "run")
    assert done.returncode == 2
    assert "batch_bytes" in done.stderr
    assert str(pipeline.config("producer")) in done.stderr
    checked = pipeline.embassy_command("producer", "config", "check")
    assert checked.returncode == 2


def test_the_heart_beats_on_when_its_own_session_is_ended(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, {"producer": {"heartbeat_seconds": 0.2}})
    producer = pipeline.start("producer")
    beats = "SELECT beat_at FROM embassy.heartbeat"
    end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = %s"
    with pipeline.source("embassy_admin") as connection:
        poll_until(lambda: connection.execute(beats).fetchone() is not None, "the first beat")
        assert connection.execute(end, ("embassy-heartbeat",)).fetchone() == (1,)
        before = connection.execute(beats).fetchone()
        poll_until(lambda: connection.execute(beats).fetchone() != before, "a beat of a new session")
    assert pipeline.alive(producer)
