"""A PostgreSQL server that is not as the product needs it: passwords, and settings of one's own."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from deploy.lab.account import Account
from deploy.lab.lab import Lab
from deploy.lab.ports import free_port
from tests.harness.lab import lab_folder

PASSWORD = "correct horse"
_START_SECONDS = 90.0


@dataclass
class PlainPostgres:
    """A running server without TLS."""

    port: int

    def dsn(self, **parameters: str) -> str:
        """A connection string of its superuser; ``parameters`` override."""
        given = {"host": "127.0.0.1", "dbname": "postgres", "user": "postgres", "password": PASSWORD}
        return make_conninfo(**{**given, "port": str(self.port), **parameters})


MakePlainPostgres = Callable[[Mapping[str, str]], PlainPostgres]
"""Called with settings; returns a server of its own."""


class PlainServers:
    """Servers that run until they are all stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._account = Account.for_servers()
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, programs: Path, settings: Mapping[str, str]) -> PlainPostgres:
        """Start one.

        Args:
            programs: the folder of initdb and postgres.
            settings: beyond its defaults.
        """
        home = self._folder / str(len(self._running))
        home.mkdir()
        self._account.own(home)
        data = _initialised(programs, home, self._account)
        port = free_port(())
        given = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": str(port), **settings}
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        log = self._folder / f"{len(self._running)}.log"
        with log.open("wb") as output:
            self._running.append(
                subprocess.Popen(
                    [programs / "postgres", "-D", data, *options],
                    stdout=output,
                    stderr=output,
                    cwd=home,
                    **self._account.identity,
                )
            )
        server = PlainPostgres(port)
        _await(server, self._running[-1], log)
        return server

    def stop(self) -> None:
        """Stop them all."""
        for server in self._running:
            server.send_signal(signal.SIGINT)
            server.wait(90)


@pytest.fixture(scope="module")
def make_plain_postgres(lab: Lab) -> Iterator[MakePlainPostgres]:
    """A maker of servers; they end with the module."""
    programs = lab.home.postgres.programs().bin
    with lab_folder() as folder:
        servers = PlainServers(folder)
        yield lambda settings: servers.start(programs, settings)
        servers.stop()


def _initialised(programs: Path, home: Path, account: Account) -> Path:
    password = home / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    account.own(password)
    subprocess.run(
        [
            programs / "initdb", "-D", home / "data", "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={password}",
            "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
        ],
        check=True,
        cwd=home,
        stdout=subprocess.DEVNULL,
        **account.identity,
    )  # fmt: skip
    return home / "data"


def _await(server: PlainPostgres, running: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(server.dsn(), connect_timeout=5).close()
        except psycopg.OperationalError:
            if running.poll() is not None or time.monotonic() > end:
                pytest.fail(log.read_text(errors="replace")[-2000:])
            time.sleep(0.05)
        else:
            return
