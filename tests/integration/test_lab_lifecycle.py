"""A lab of its own for each test: coming up, being interrupted, going down, coming back."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from deploy.lab.daemons import Daemon
from deploy.lab.lab import Lab
from deploy.lab.layout import Layout
from deploy.lab.ports import is_free
from deploy.lab.state import LabState, StateFile, locked
from embassy.cli.lab import lab as command
from embassy.model.errors import ConfigurationError, RefusedError
from embassy.runtime.config import load
from tests.harness.lab import lab_folder, write_registries


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder; the lab in it is what the commands see. No server is left in it."""
    with lab_folder() as folder:
        cache = Layout.choose().cache
        monkeypatch.setenv("EMBASSY_LAB_HOME", str(folder / "lab"))
        monkeypatch.setenv("EMBASSY_LAB_CACHE", str(cache))
        try:
            yield folder
        finally:
            Lab.here().down()


def servers(state: LabState) -> list[Daemon]:
    """The processes of a lab as its state has them."""
    every = [site.server(kind).daemon for site in state.sites.values() for kind in ("kafka", "postgres")]
    return [daemon for daemon in every if daemon is not None]


def still_running(folder: Path) -> list[str]:
    """The command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line.replace("\0", " "))
    return found


def start_in_background(folder: Path) -> subprocess.Popen[bytes]:
    """``embassy lab up`` as a process of its own, stopped by SIGINT as in a terminal."""
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from embassy.cli.lab import lab; lab()"
    )
    registries = write_registries(folder, "alpha")
    return subprocess.Popen(
        [sys.executable, "-c", script, "up", "--registries", registries],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for_servers(folder: Path, count: int, limit_seconds: float = 180) -> list[Daemon]:
    """Wait until so many servers of the lab run."""
    file = StateFile(folder / "lab" / "state.json")
    end = time.monotonic() + limit_seconds
    while time.monotonic() < end:
        state = file.read()
        running = [daemon for daemon in servers(state) if daemon.alive] if state else []
        if len(running) >= count:
            return running
        time.sleep(0.02)
    pytest.fail(f"fewer than {count} servers after {limit_seconds} s")


def test_going_down_leaves_no_process_no_port_and_no_file(folder: Path) -> None:
    lab = Lab.up(registries=write_registries(folder, "alpha"))
    state = lab.state
    running = servers(state)
    ports = [port for site in state.sites.values() for port in (*site.kafka.ports, *site.postgres.ports)]
    assert [daemon.alive for daemon in running] == [True] * 4
    assert not any(is_free(port) for port in ports)

    assert CliRunner().invoke(command, ["down"]).exit_code == 0

    assert [daemon.alive for daemon in running] == [False] * 4
    assert still_running(folder / "lab") == []
    assert all(is_free(port) for port in ports)
    assert not (folder / "lab").exists()


def test_without_a_lab_status_says_so_and_down_does_nothing(folder: Path) -> None:
    assert CliRunner().invoke(command, ["down"]).exit_code == 0
    status = CliRunner().invoke(command, ["status", "--json"])
    assert status.exit_code == 0
    assert json.loads(status.stdout)["state"] == "down"
    assert not (folder / "lab").exists()
    with pytest.raises(RefusedError, match="embassy lab up"):
        Lab.attach()


def test_a_lab_that_lost_power_goes_on_with_its_data_and_may_grow(folder: Path) -> None:
    lab = Lab.up(registries=write_registries(folder, "alpha"))
    stream = lab.registries["alpha"].stream
    with psycopg.connect(lab.source_dsn("alpha")) as connection:
        connection.execute("INSERT INTO account VALUES (2, 'kept', 7)")
    for name in lab.state.sites:
        lab.site(name).kafka.kill9()
        lab.site(name).postgres.kill9()
    assert lab.status()["state"] == "down"
    # Meanwhile another program gets a server's process id, and a third one its port.
    lab.home.kafka.ledger.record(Daemon(os.getpid(), "boot/1"))
    port = lab.home.postgres.port
    with socket.create_server(("127.0.0.1", port)):
        lab = Lab.up(registries=write_registries(folder, "alpha", "beta"))

    assert lab.status()["state"] == "up"
    assert lab.home.postgres.port != port
    assert lab.registries["alpha"].stream == stream
    assert list(lab.registries) == ["alpha", "beta"]
    producer = load(Path(lab.status()["configs"]["producer"]))
    assert set(producer.streams) == {"alpha", "beta"}
    assert producer.streams["alpha"].source is not None
    for dsn in (lab.source_dsn("alpha"), producer.streams["alpha"].source.dsn):
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT balance FROM account WHERE owner = 'kept'").fetchone() == (7,)
    with psycopg.connect(lab.source_dsn("beta")) as connection:
        assert connection.execute("SELECT count(*) FROM account").fetchone() == (1,)
    with psycopg.connect(lab.replica_dsn("embassy-1", "beta")) as connection:
        assert connection.execute("SELECT to_regclass('account')").fetchone() == (None,)

    pids = [daemon.pid for daemon in servers(lab.state)]
    assert [daemon.pid for daemon in servers(Lab.up().state)] == pids

    running = servers(lab.state)
    lab.down(keep_data=True)
    assert [daemon.alive for daemon in running] == [False] * 4
    assert lab.status()["state"] == "down"
    assert (lab.home.postgres.data / "PG_VERSION").is_file()


def test_an_interrupted_start_leaves_nothing(folder: Path) -> None:
    with start_in_background(folder) as start:
        running = wait_for_servers(folder, 1)
        start.send_signal(signal.SIGINT)
        assert start.wait(180) != 0
    assert not any(daemon.alive for daemon in running)
    assert still_running(folder / "lab") == []
    assert not (folder / "lab").exists()


def test_a_killed_start_is_taken_over_by_the_next(folder: Path) -> None:
    with start_in_background(folder) as start:
        running = wait_for_servers(folder, 3)
        start.kill()
    lab = Lab.up(registries=write_registries(folder, "alpha"))
    assert lab.status()["state"] == "up"
    assert {daemon for daemon in running if daemon.alive} <= set(servers(lab.state))


def test_a_broken_schema_is_named_and_leaves_nothing(folder: Path) -> None:
    registries = write_registries(folder, "alpha")
    (folder / "small.sql").write_text("CREATE TABLE fine (id int);\nCREATE TABEL wrong ();")
    with pytest.raises(ConfigurationError, match=r'syntax error at or near "TABEL".*small.sql, database alpha'):
        Lab.up(registries=registries)
    assert still_running(folder / "lab") == []
    assert not (folder / "lab").exists()


def test_a_failed_addition_leaves_the_lab_as_it_was(folder: Path) -> None:
    registries = write_registries(folder, "alpha")
    lab = Lab.up(registries=registries)
    before = lab.state
    (folder / "broken.sql").write_text("CREATE TABEL wrong ();")
    with registries.open("a") as file:
        file.write('[registries.beta]\nschema = "broken.sql"\n')
    with pytest.raises(ConfigurationError, match="database beta"):
        Lab.up(registries=registries, embassies=2)
    assert lab.state == before
    assert lab.status()["state"] == "up"


def test_a_second_command_is_refused_while_one_is_at_work(folder: Path) -> None:
    registries = write_registries(folder, "alpha")
    with locked(folder / "lab" / "lab.lock"):
        with pytest.raises(RefusedError, match="at work"):
            Lab.up(registries=registries)
        with pytest.raises(RefusedError, match="at work"):
            Lab.here().down()
