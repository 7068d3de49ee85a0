"""One real PostgreSQL server on a loopback port, opened only by client certificates."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from psycopg.conninfo import make_conninfo

from deploy.lab.artifacts import PostgresPrograms
from deploy.lab.ports import free_port
from deploy.lab.server import Server
from embassy.model.errors import ConfigurationError

SUPERUSER = "postgres"
_STOP_SIGNALS = ((signal.SIGINT, 15), (signal.SIGQUIT, 10))
"""Fast shutdown, then immediate shutdown, each with its limit in seconds."""

_HBA = """\
# Every connection shows a certificate whose common name is its role.
hostssl all,replication all 127.0.0.1/32 cert
"""

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # there is one way in, and it is the one that production has
    "ssl": "on",
    "ssl_ca_file": "ca.pem",
    "ssl_cert_file": "server.pem",
    "ssl_key_file": "server.key",
    "ssl_min_protocol_version": "TLSv1.3",
    "wal_level": "logical",
    "fsync": "on",
    "max_wal_senders": "40",
    "max_replication_slots": "40",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m %u@%d %a ",
    "lc_messages": "C",
}


@dataclass(frozen=True, slots=True)
class PostgresServer(Server):
    """The database server of a site and the ways to connect to it.

    Attributes:
        extra_settings: settings beyond what every server of the lab has.
    """

    title: ClassVar[str] = "PostgreSQL"
    program: ClassVar[str] = "postgres"

    programs: Callable[[], PostgresPrograms]
    extra_settings: tuple[tuple[str, str], ...] = ()

    @property
    def data(self) -> Path:
        """The cluster's folder (PGDATA)."""
        return self.folder / "cluster"

    @property
    def last_argument(self) -> Path:
        """The cluster's folder."""
        return self.data

    @property
    def working_folder(self) -> Path:
        """The cluster's folder; the children of the postmaster run there too."""
        return self.data

    @property
    def traces(self) -> tuple[tuple[Path, str], ...]:
        """The postmaster and its children, and initdb with the servers that it starts."""
        return ((self.data, self.program), (self.folder, "initdb"), (self._fresh, self.program))

    def dsn(self, role: str, database: str, **options: str) -> str:
        """A libpq connection string for a role of this server."""
        files = self.authority.client(role)
        return make_conninfo(
            host="localhost",
            port=self.port,
            dbname=database,
            user=role,
            sslmode="verify-full",
            sslrootcert=str(files.ca),
            sslcert=str(files.certificate),
            sslkey=str(files.key),
            **options,
        )

    def connect(self, role: str = SUPERUSER, database: str = "postgres") -> psycopg.Connection[Any]:
        """Connect as a role, in autocommit mode."""
        return psycopg.connect(self.dsn(role, database), autocommit=True, connect_timeout=10)

    def prepare(self) -> None:
        """Make the cluster if there is none, and write its configuration for the present port and certificates."""
        if not self.data.is_dir():
            self._initialise()
        self._issue_certificate()
        settings = {**_SETTINGS, **dict(self.extra_settings), "port": str(self.port)}
        self.write(
            self.data / "postgresql.conf", "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        )
        self.write(self.data / "pg_hba.conf", _HBA)

    def relocate(self, taken: set[int]) -> None:
        """Choose another port, for a server that does not run."""
        self.ledger.move(free_port(taken))

    def command(self) -> list[str | Path]:
        """A postmaster in the foreground.

        No process of this cluster runs now, so a lock file left by a killed one is stale. It is removed because
        PostgreSQL would trust the process id in it, which may be another program's by now, or that of a dead
        process that nobody has reaped.
        """
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        return [self.programs().bin / "postgres", "-D", self.data]

    def answers(self, left_seconds: float) -> bool:
        """Whether a client can run a query."""
        limit = max(2, min(10, int(left_seconds)))
        try:
            with psycopg.connect(self.dsn(SUPERUSER, "postgres"), connect_timeout=limit) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Shut down, cleanly if possible, and wait until every process is gone."""
        if daemon := self.daemon:
            daemon.send(signal.SIGCONT)
            any(daemon.ask(number, self.patience, limit) for number, limit in _STOP_SIGNALS)
        self.kill9()
        self.ledger.record(None)

    @property
    def _fresh(self) -> Path:
        """The cluster while it is being made."""
        return self.folder / "cluster.new"

    def _initialise(self) -> None:
        self.announce(f"{self.site} postgres", "making the cluster")
        self.make_folder()
        fresh = self._fresh
        shutil.rmtree(fresh, ignore_errors=True)
        made = subprocess.run(
            [
                self.programs().bin / "initdb", "-D", fresh, "-U", SUPERUSER, "--auth=reject", "--encoding=UTF8",
                "--locale=C.UTF-8", "--data-checksums", "--no-sync", "--no-instructions",
            ],
            cwd=self.folder,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self.account.identity,
        )  # fmt: skip
        if made.returncode != 0:
            said = made.stdout.decode(errors="replace").strip().splitlines()
            raise ConfigurationError(f"initdb failed: {' | '.join(said[-3:])}", place=str(fresh))
        fresh.rename(self.data)

    def _issue_certificate(self) -> None:
        ca = self.authority.ca.read_text(encoding="ascii")
        mine = self.data / "ca.pem"
        if not mine.is_file() or mine.read_text(encoding="ascii") != ca:
            key, chain = self.authority.issue_server("localhost")
            self.write(self.data / "server.key", key)
            self.write(self.data / "server.pem", chain)
            self.write(mine, ca)
