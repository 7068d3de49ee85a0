"""The lab's servers: what it says about them, and what survives a power cut."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest

from deploy.lab import role_configs
from deploy.lab.daemons import Daemon, running_in
from deploy.lab.lab import Lab
from embassy.model.errors import TransientError
from embassy.runtime.config import load
from tests.harness.kafka import MakeTopic, deliver, first_record

SITES = ("home", "embassy-1")


def test_the_status_says_how_to_connect(lab: Lab) -> None:
    status = lab.status()
    assert (status["schema"], status["state"], status["postgres"]) == (1, "up", lab.state.postgres)
    for site in (status["home"], status["embassies"]["embassy-1"]):
        for server in (site["kafka"], site["postgres"]):
            assert server["alive"]
            assert Daemon.find(server["pid"]) is not None
        for folder in site["kafka"]["log_dirs"]:
            assert list(Path(folder).rglob("*.log"))
    ledger = status["registries"]["ledger"]
    assert ledger["topic"] == f"s-{ledger['stream']}"
    roles = {
        ledger["source_dsn"]: "registry_owner",
        ledger["source_admin_dsn"]: "embassy_admin",
        ledger["replica_dsn"]["embassy-1"]: "registry_reader",
        ledger["replica_owner_dsn"]["embassy-1"]: "registry_owner",
        ledger["replica_admin_dsn"]["embassy-1"]: "embassy_admin",
    }
    for dsn, role in roles.items():
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT current_user, current_database()").fetchone() == (role, "ledger")
    for site_name, by_role in status["certificates"]["kafka"].items():
        assert {Path(path).is_file() for files in by_role.values() for path in files.values()} == {True}
        assert site_name in SITES


@pytest.mark.parametrize("site", SITES)
def test_a_broker_maps_the_classes_that_another_one_wrote_down(lab: Lab, site: str) -> None:
    pid = lab.site(site).kafka.pid
    assert "/classes.jsa" in Path(f"/proc/{pid}/maps").read_text()


def test_each_roles_configuration_is_valid_and_names_only_what_the_role_may_know(lab: Lab) -> None:
    configs = lab.status()["configs"]
    stream = lab.registries["ledger"].stream
    producer = load(Path(configs["producer"]))
    bridge = load(Path(configs["bridge"]["embassy-1"]))
    consumer = load(Path(configs["consumer"]["embassy-1"]))
    admins = {site: load(Path(path)) for site, path in configs["admin"].items()}

    assert producer.streams["ledger"].source is not None
    assert consumer.streams["ledger"].replica is not None
    assert producer.streams["ledger"].stream == consumer.streams["ledger"].stream == stream
    assert list(bridge.streams) == [stream]
    assert "ledger" not in Path(configs["bridge"]["embassy-1"]).read_text()
    assert bridge.keys.identity is bridge.keys.recipient is None
    assert bridge.kafka.home is not None
    assert bridge.kafka.foreign is not None
    assert producer.keys.recipients == tuple(
        role_configs.public(role_configs.recipient(lab.layout, site)) for site in ("home", "embassy-1")
    )
    for dsn, role in (
        (producer.streams["ledger"].source.dsn, "embassy_producer"),
        (consumer.streams["ledger"].replica.dsn, "embassy_consumer"),
    ):
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (role,)
    assert set(admins) == set(SITES)


@pytest.mark.parametrize("site", SITES)
def test_a_database_that_lost_power_comes_back_whole_on_its_port(lab: Lab, site: str) -> None:
    server = lab.site(site).postgres
    port = server.port
    mark = uuid.uuid4().hex
    with server.connect("registry_owner", "ledger") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS power (mark text)")
        connection.execute("INSERT INTO power VALUES (%s)", (mark,))
        session = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert session is not None
        family = [Daemon.find(server.pid or 0), Daemon.find(session[0])]
        assert None not in family

        server.kill9()

        assert [member.alive for member in family if member] == [False, False]
        assert running_in(server.data, "postgres") == []
        assert not server.alive
        assert lab.status()["state"] == "degraded"
    server.start()
    assert server.port == port
    with server.connect("registry_owner", "ledger") as connection:
        assert connection.execute("SELECT count(*) FROM power WHERE mark = %s", (mark,)).fetchone() == (1,)


def test_a_database_starts_although_its_lock_file_names_another_program(lab: Lab) -> None:
    server = lab.site("home").postgres
    server.kill9()
    lock = server.data / "postmaster.pid"
    lines = lock.read_text().splitlines()
    broker = lab.site("home").kafka.pid
    lock.write_text("\n".join([str(broker), *lines[1:]]) + "\n")
    server.start()
    assert lab.site("home").kafka.pid == broker
    assert server.alive


def test_a_server_that_cannot_start_says_why(lab: Lab) -> None:
    server = lab.site("embassy-1").postgres
    server.kill9()
    with (server.data / "postgresql.conf").open("a") as settings:
        settings.write("shared_buffers = 'plenty'\n")
    with pytest.raises(TransientError, match=r"PostgreSQL of embassy-1 does not run: .*shared_buffers") as failed:
        server.start()
    assert failed.value.place == str(server.log)
    server.prepare()
    server.start()


@pytest.mark.parametrize("site", SITES)
def test_a_broker_that_lost_power_comes_back_whole_on_its_port(lab: Lab, make_topic: MakeTopic, site: str) -> None:
    broker = lab.site(site).kafka
    stream, port, pid = make_topic(site), broker.port, broker.pid
    assert deliver(broker.client_config("bridge" if site != "home" else "producer"), stream, b"kept") is None

    broker.kill9()

    assert not broker.alive
    assert Daemon.find(pid or 0) is None
    broker.start()
    assert (broker.port, broker.alive) == (port, True)
    assert broker.pid != pid
    assert first_record(broker.client_config("bridge"), stream).value() == b"kept"
