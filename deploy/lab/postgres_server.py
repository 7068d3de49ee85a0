"""One real PostgreSQL server on a loopback port, opened only by client certificates."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from deploy.lab.account import Account
from deploy.lab.artifacts import PostgresPrograms
from deploy.lab.certificates import Authority, now_utc
from deploy.lab.daemons import Daemon, last_lines, running_with, spawn
from deploy.lab.ports import free_port
from deploy.lab.state import Ledger
from deploy.lab.waiting import Announce, Patience
from embassy.model.errors import ConfigurationError, TransientError

SUPERUSER = "postgres"
_START_SECONDS = 60
_RESPAWN_AFTER = ("still in use", "lock file")

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
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m %u@%d %a ",
    "lc_messages": "C",
}


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server of a site: its folder, its process and the ways to connect to it.

    Attributes:
        site: the site's name, for messages.
        folder: everything the server writes.
        authority: signs the server's certificate and those of the roles.
        extra_settings: settings beyond what every server of the lab has.
    """

    site: str
    folder: Path
    authority: Authority
    ledger: Ledger
    account: Account
    patience: Patience
    announce: Announce
    programs: Callable[[], PostgresPrograms]
    extra_settings: tuple[tuple[str, str], ...] = ()

    @property
    def data(self) -> Path:
        """The cluster's folder (PGDATA)."""
        return self.folder / "cluster"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.folder / "server.log"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.ledger.server.port

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, running or not; None if it was stopped."""
        return self.ledger.server.pid

    @property
    def alive(self) -> bool:
        """Whether the postmaster runs."""
        return self._daemon() is not None

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
        self._write("postgresql.conf", "".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        self._write("pg_hba.conf", _HBA)

    def relocate(self, taken: set[int]) -> None:
        """Choose another port, for a server that does not run."""
        self.ledger.move(free_port(taken))

    def start(self, limit_seconds: float = _START_SECONDS) -> None:
        """Start the server and wait until it answers; one that runs already is kept.

        Right after a kill, dying children may still hold the shared memory: the start is tried again.

        Raises:
            TransientError: it does not answer within the limit; the message has the log's last lines.
        """
        if not self.alive:
            self._spawn()
        for left in self.patience.looks(limit_seconds):
            if self._answers(left):
                return
            if not self.alive:
                last = last_lines(self.log)
                if not any(reason in last for reason in _RESPAWN_AFTER):
                    raise TransientError(f"PostgreSQL of {self.site} ended at start: {last}", place=str(self.log))
                self._spawn()
        raise self._silent(limit_seconds)

    def wait_ready(self, limit_seconds: float = _START_SECONDS) -> None:
        """Wait until the server answers.

        Raises:
            TransientError: it does not within the limit.
        """
        for left in self.patience.looks(limit_seconds):
            if self._answers(left):
                return
        raise self._silent(limit_seconds)

    def stop(self) -> None:
        """Shut down, cleanly if possible, and wait until the process is gone."""
        daemon = self._daemon()
        if daemon is not None:
            daemon.signal(signal.SIGCONT)
            for number, limit_seconds in ((signal.SIGINT, 15), (signal.SIGQUIT, 10)):
                daemon.signal(number)
                try:
                    daemon.wait_gone(self.patience, limit_seconds)
                    break
                except TransientError:
                    continue
            else:
                daemon.cut_power(self.patience)
        self.ledger.record(None)

    def kill9(self) -> None:
        """End the postmaster and all its children as a power cut would."""
        daemon = self._daemon()
        if daemon is not None:
            daemon.cut_power(self.patience)

    def erase(self) -> None:
        """Remove everything a stopped server wrote."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _daemon(self) -> Daemon | None:
        daemon = self.ledger.server.daemon
        if daemon is not None and daemon.alive:
            return daemon
        return running_with("postgres", str(self.data))

    def _spawn(self) -> None:
        self._forget_stranger()
        binary = self.programs().bin / "postgres"
        daemon = spawn([binary, "-D", self.data], account=self.account, folder=self.data, log=self.log)
        self.ledger.record(daemon)

    def _forget_stranger(self) -> None:
        """Remove a lock file whose process id another program got since, for instance after a reboot.

        PostgreSQL would take that program for a running server. While a server of this cluster may run, or its
        children still die, the file stays: it protects the data.
        """
        lock = self.data / "postmaster.pid"
        try:
            daemon = Daemon.find(int(lock.read_text(encoding="utf-8").split("\n", 1)[0]))
        except (OSError, ValueError):
            return
        if daemon is not None and "postgres" not in daemon.command_line():
            lock.unlink()

    def _answers(self, left_seconds: float) -> bool:
        try:
            with psycopg.connect(
                self.dsn(SUPERUSER, "postgres"), connect_timeout=max(2, min(10, int(left_seconds)))
            ) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _silent(self, limit_seconds: float) -> TransientError:
        return TransientError(
            f"PostgreSQL of {self.site} does not answer after {limit_seconds:g} s: {last_lines(self.log)}",
            place=str(self.log),
        )

    def _initialise(self) -> None:
        self.announce(f"{self.site} postgres", "making the cluster")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.account.own(self.folder)
        fresh = self.folder / "cluster.new"
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
        ca = self.authority.ca.read_bytes()
        mine = self.data / "ca.pem"
        if mine.is_file() and mine.read_bytes() == ca and self.authority.is_current(now_utc()):
            return
        key, chain = self.authority.issue_server("localhost")
        self._write("server.key", key.decode("ascii"))
        self._write("server.pem", chain.decode("ascii"))
        self._write("ca.pem", ca.decode("ascii"))

    def _write(self, name: str, text: str) -> None:
        path = self.data / name
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(text, encoding="utf-8")
        self.account.own(path)
