"""One stream of its own on the session's lab: databases, topics, keys, and the roles as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, LiteralString, Protocol

import psycopg
import pytest
from click.testing import CliRunner

from deploy.lab import databases, key_material, role_configs
from deploy.lab.lab import Lab
from deploy.lab.postgres_server import PostgresServer
from deploy.lab.roles import program
from deploy.workload.comparison import TableComparison, compare_tables
from embassy.cli.options import Options
from embassy.cli.provision import provision
from embassy.runtime.failpoints import ENVIRONMENT
from tests.harness.lab import MakeDatabase

Stage = Literal["producer", "bridge", "consumer"]
_FORWARD = ("producer", "bridge", "consumer", "home-admin", "embassy-admin")
STAGES: tuple[Stage, ...] = ("producer", "bridge", "consumer")
Connection = psycopg.Connection[Any]
Sections = Mapping[str, Mapping[str, Any]]

_SETTLE_SECONDS = 60.0
_POLL_SECONDS = 0.02
_BUSY = 3.0
"""Deadlines are for a quiet machine; a busy one may take this many times as long, which no test is about."""


def poll_until(reached: Callable[[], bool], what: str, seconds: float = _SETTLE_SECONDS) -> None:
    """Wait for something; fail with its name when the deadline passes."""
    end = time.monotonic() + seconds * _BUSY
    while not reached():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(_POLL_SECONDS)


@dataclass
class RoleProcess:
    """A role that runs, or ran."""

    stage: Stage
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of its log that are JSON."""
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    def tail(self) -> str:
        """The end of its log, for a failure's message."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def exit_code(self, seconds: float = _SETTLE_SECONDS) -> int:
        """How it ended; negative for a signal."""
        try:
            return self.popen.wait(seconds * _BUSY)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the {self.stage} still runs after {seconds:g} s:\n{self.tail()}")


@dataclass
class Pipeline:
    """One stream from a source database to its replica."""

    lab: Lab
    folder: Path
    name: str
    stream: str
    names: Mapping[str, str]
    """Per site, the database's name."""
    embassy: str
    sections: Sections
    running: list[RoleProcess] = field(default_factory=list)

    @property
    def topic(self) -> str:
        """The stream's topic."""
        return f"s-{self.stream}"

    @property
    def slot(self) -> str:
        """The stream's slot."""
        return f"embassy_{self.stream}"

    @property
    def source_dsn(self) -> str:
        """The registry's owner at home."""
        return self.lab.home.postgres.dsn(databases.OWNER, self.names["home"])

    @property
    def replica_dsn(self) -> str:
        """A reader of the replica."""
        return self.lab.site(self.embassy).postgres.dsn(databases.READER, self.names[self.embassy])

    def source(self, role: str = databases.OWNER) -> Connection:
        """Connect to the source, in autocommit mode."""
        return self.lab.home.postgres.connect(role, self.names["home"])

    def replica(self, role: str = databases.READER) -> Connection:
        """Connect to the replica, in autocommit mode."""
        return self.lab.site(self.embassy).postgres.connect(role, self.names[self.embassy])

    def config(self, role: str) -> Path:
        """The configuration file of ``producer``, ``bridge``, ``consumer``, ``home-admin`` or ``embassy-admin``."""
        return self.folder / f"{role}.toml"

    def write_configs(self, **sections: Mapping[str, Any]) -> None:
        """Write every role's file with the present ports; ``sections`` adds to or overrides whole sections."""
        layout = self.lab.layout
        templates = {
            "producer": role_configs.producer_config(layout),
            "bridge": role_configs.bridge_config(layout, self.embassy),
            "consumer": role_configs.consumer_config(layout, self.embassy),
            "home-admin": role_configs.admin_config(layout, "home"),
            "embassy-admin": role_configs.admin_config(layout, self.embassy),
            "reverse-producer": role_configs.reverse_producer_config(layout, self.embassy),
            "reverse-bridge": role_configs.reverse_bridge_config(layout, self.embassy),
            "reverse-consumer": role_configs.reverse_consumer_config(layout, self.embassy),
            "embassy-source-admin": role_configs.source_admin_config(layout, self.embassy),
            "home-replica-admin": role_configs.replica_admin_config(layout, self.embassy),
        }
        home, abroad = self.lab.home.postgres, self.lab.site(self.embassy).postgres
        ends: dict[str, dict[str, Any]] = {
            "producer": {"source": {"dsn": home.dsn(databases.PRODUCER, self.names["home"])}},
            "bridge": {},
            "consumer": {"replica": {"dsn": abroad.dsn(databases.CONSUMER, self.names[self.embassy])}},
            "home-admin": {"source": {"dsn": home.dsn(databases.ADMIN, self.names["home"])}},
            "embassy-admin": {"replica": {"dsn": abroad.dsn(databases.ADMIN, self.names[self.embassy])}},
            "reverse-producer": {"source": {"dsn": abroad.dsn(databases.PRODUCER, self.names[self.embassy])}},
            "reverse-bridge": {},
            "reverse-consumer": {"replica": {"dsn": home.dsn(databases.CONSUMER, self.names["home"])}},
            "embassy-source-admin": {"source": {"dsn": abroad.dsn(databases.ADMIN, self.names[self.embassy])}},
            "home-replica-admin": {
                "source": {"dsn": abroad.dsn(databases.ADMIN, self.names[self.embassy])},
                "replica": {"dsn": home.dsn(databases.ADMIN, self.names["home"])},
            },
        }
        forth = role_configs.enrolment(layout, self.stream)
        back = role_configs.reverse_enrolment(layout, self.stream, self.embassy)
        for role, template in templates.items():
            content = tomllib.loads(template.read_text(encoding="utf-8"))
            content.update({**self.sections, **sections})
            content["streams"] = {
                self.name: {
                    "stream": self.stream,
                    "enrolment": str(forth if role in _FORWARD else back),
                    **({"superseded": str(forth)} if role == "home-replica-admin" else {}),
                    **ends[role],
                }
            }
            role_configs._write(self.config(role), content)

    def embassy_command(self, role: str, *arguments: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
        """Run one ``embassy`` command with a role's configuration."""
        return subprocess.run(
            [*program(), "-c", str(self.config(role)), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, ENVIRONMENT: failpoint},
        )

    def provision(self, *arguments: str) -> None:
        """Make what both sides need, as the command does, but in this process: nearly every test begins with it."""
        for role in ("home-admin", "embassy-admin"):
            own = arguments if role == "home-admin" else ()
            options = Options(self.config(role))
            done = CliRunner().invoke(provision, ["apply", *own], obj=options, standalone_mode=False)
            assert (done.exception, done.return_value) == (None, 0), done.output

    def start(
        self, stage: Stage, *, failpoint: str = "", reverse: bool = False, **environment: str
    ) -> RoleProcess:
        """Start a role; ``reverse`` is that of the way home."""
        config = self.config(f"reverse-{stage}" if reverse else stage)
        log = self.folder / f"{stage}-{len(self.running)}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [*program(), "-c", str(config), stage, "run"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, ENVIRONMENT: failpoint, **environment},
            )
        found = RoleProcess(stage, popen, log)
        self.running.append(found)
        return found

    def start_all(self, *, reverse: bool = False) -> dict[Stage, RoleProcess]:
        """Start the three roles."""
        return {stage: self.start(stage, reverse=reverse) for stage in STAGES}

    def stop(self, role: RoleProcess) -> int:
        """Ask a role to drain and end."""
        role.popen.terminate()
        return role.exit_code(30)

    def kill(self, role: RoleProcess) -> None:
        """Kill -9."""
        role.popen.send_signal(signal.SIGKILL)
        role.popen.wait(10)

    def kill_all(self) -> None:
        """End every role that still runs."""
        for role in self.running:
            if role.popen.poll() is None:
                self.kill(role)

    def alive(self, role: RoleProcess) -> bool:
        """Whether a role runs."""
        return role.popen.poll() is None

    def wait_level(self, seconds: float = _SETTLE_SECONDS) -> None:
        """Wait until the replica shows what the source has committed by now, then compare every table."""
        with self.source(databases.ADMIN) as connection:
            connection.execute("INSERT INTO public.sentinel SELECT coalesce(max(id), 0) + 1 FROM public.sentinel")
            (sentinel,) = connection.execute("SELECT max(id) FROM public.sentinel").fetchone() or (0,)
        self.wait_replica("SELECT max(id) FROM public.sentinel", sentinel, seconds)
        unequal = [table for table in self.compare() if not table.equal]
        assert not unequal, unequal

    def wait_replica(self, query: str, value: object, seconds: float = _SETTLE_SECONDS) -> None:
        """Wait until a query on the replica returns a value."""
        with contextlib.ExitStack() as stack:
            session: list[Connection] = []

            def reached() -> bool:
                try:
                    if not session:
                        session.append(stack.enter_context(self.replica()))
                    row = session[-1].execute(query.encode()).fetchone()
                except psycopg.OperationalError:
                    session.clear()
                    return False  # the server may be on its way back
                return row is not None and row[0] == value

            end = time.monotonic() + seconds * _BUSY
            while not reached():
                if time.monotonic() > end:
                    tails = "\n".join(
                        f"--- {role.stage} ({role.popen.poll()})\n{role.tail()}" for role in self.running[-6:]
                    )
                    pytest.fail(f"the replica did not reach {value!r} within {seconds:g} s: {query}\n{tails}")
                time.sleep(_POLL_SECONDS)

    def compare(self) -> list[TableComparison]:
        """Compare every table outside the product's schema."""
        return compare_tables(self.source_dsn_all, self.replica_dsn)

    @contextlib.contextmanager
    def forgetful_replica(self) -> Iterator[PostgresServer]:
        """The replica's server, which writes its log to disk only when a commit waits for it, or every ten seconds."""
        server = self.lab.site(self.embassy).postgres

        def alter(what: LiteralString) -> None:
            with server.connect() as connection:
                connection.execute(what)
                connection.execute("SELECT pg_reload_conf()")

        alter("ALTER SYSTEM SET wal_writer_delay = '10s'")
        try:
            yield server
        finally:
            alter("ALTER SYSTEM RESET wal_writer_delay")

    @property
    def source_dsn_all(self) -> str:
        """A role at home that may read everything."""
        return self.lab.home.postgres.dsn(databases.ADMIN, self.names["home"])


_SENTINEL = "CREATE TABLE public.sentinel (id bigint PRIMARY KEY);"


class MakePipeline(Protocol):
    """Called with the SQL that makes the tables on both sides."""

    def __call__(
        self, schema: str, sections: Sections | None = None, *, provision: bool = True, empty_replica: bool = False
    ) -> Pipeline:
        """Make databases, an enrolled stream and configurations; ``sections`` go into every configuration."""


@pytest.fixture
def make_pipeline(lab: Lab, make_database: MakeDatabase, tmp_path: Path) -> Iterator[MakePipeline]:
    """A maker of streams; their roles end with the test."""
    made: list[Pipeline] = []

    def make(
        schema: str, sections: Sections | None = None, *, provision: bool = True, empty_replica: bool = False
    ) -> Pipeline:
        embassy = lab.embassies[0]
        names = {site: make_database(site) for site in ("home", embassy)}
        for site, name in names.items():
            if empty_replica and site == embassy:
                continue
            with lab.site(site).postgres.connect(databases.OWNER, name) as connection:
                connection.execute((_SENTINEL + schema).encode())
        stream = os.urandom(16).hex()
        key_material.enrol(lab.layout, stream, lab.embassies)
        folder = tmp_path / stream[:8]
        folder.mkdir()
        found = Pipeline(lab, folder, "registry", stream, names, embassy, sections or {})
        found.write_configs()
        if provision:
            found.provision()
        made.append(found)
        return found

    yield make
    for pipeline in made:
        pipeline.kill_all()
