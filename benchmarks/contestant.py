"""A replicator as the benchmark sees it: two databases, a sender that can be frozen, and what it has used."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from psycopg import sql

from benchmarks import marks
from benchmarks.machine import cpu_seconds, family_cpu_seconds
from benchmarks.workloads import Connection
from deploy.lab.databases import ADMIN, OWNER
from deploy.lab.kafka_broker import KafkaBroker
from deploy.lab.lab import Lab
from deploy.lab.postgres_server import PostgresServer
from deploy.workload.comparison import TableComparison, compare_tables
from embassy.model.errors import IntegrityError, TransientError

LEVEL_SECONDS = 600.0
SETTLE_SECONDS = 180.0
_SETTLE_POLL_SECONDS = 1.0
_SETTLED = """
SELECT confirmed_flush_lsn >= %s::pg_lsn AND restart_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"""


class Contestant(ABC):
    """Replicates a database of the home server to one of the same name in the embassy.

    It is held back by freezing (SIGSTOP) its walsender at the source: nothing is read from the log, and nothing has to
    be started, connected or found again when it is let go. All contestants are held back in the same way.
    """

    warms_up: ClassVar[bool] = False
    """Whether it does everything once before it is measured."""
    vouches: ClassVar[bool] = True
    """Whether a table that differs makes the run worthless; else it is a result."""

    def __init__(self, name: str, lab: Lab, slot: str) -> None:
        self.name = name
        self._lab = lab
        self._slot = slot
        self.home: PostgresServer = lab.home.postgres
        self.abroad: PostgresServer = lab.site(lab.embassies[0]).postgres

    @abstractmethod
    def start(self) -> None:
        """Set everything up, and replicate from now on."""

    @abstractmethod
    def stop(self) -> None:
        """End what `start` has started; never fails because there is nothing to end."""

    @abstractmethod
    def check(self) -> None:
        """Make sure that it is still at work.

        Raises:
            TransientError: it is not.
        """

    def own_cpu_seconds(self) -> dict[str, float]:
        """CPU time that its own processes have used so far, by part."""
        return {}

    def cpu_seconds(self) -> dict[str, float]:
        """The same, and that of the servers: the brokers only if there is something that could use them."""
        own = self.own_cpu_seconds()
        sites = ("home", "embassy")
        brokers = zip(sites, self.brokers if own else (), strict=False)
        return {
            **own,
            **{f"kafka {site}": cpu_seconds(broker.pid or 0) for site, broker in brokers},
            **{
                f"postgres {site}": family_cpu_seconds(server.pid or 0)
                for site, server in zip(sites, (self.home, self.abroad), strict=True)
            },
        }

    def hop_bytes(self) -> dict[str, int]:
        """Bytes stored so far, by hop."""
        return {}

    def topic_bytes(self, topics: Iterable[str]) -> dict[str, int]:
        """What the brokers store of topics of one partition: all that travels, Kafka's own framing included."""
        folders = [f"{topic}-0" for topic in topics]
        return {
            hop: sum(
                file.stat().st_size
                for logs in broker.log_dirs
                for folder in folders
                for file in (logs / folder).glob("*.log")
            )
            for hop, broker in zip(("home topic", "foreign topic"), self.brokers, strict=True)
        }

    def peak_rss_mb(self) -> dict[str, float]:
        """The most memory that each process has had, by part."""
        return {}

    def source(self) -> Connection:
        """A session with the source that may do anything, in autocommit mode."""
        return self.home.connect(ADMIN, self.name)

    def replica(self) -> Connection:
        """The same with the replica."""
        return self.abroad.connect(ADMIN, self.name)

    @property
    def source_dsn(self) -> str:
        """How to connect to the source."""
        return self.home.dsn(ADMIN, self.name)

    @property
    def replica_dsn(self) -> str:
        """How to connect to the replica."""
        return self.abroad.dsn(ADMIN, self.name)

    @property
    def brokers(self) -> tuple[KafkaBroker, KafkaBroker]:
        """The broker at home and that of the embassy."""
        return self._lab.home.kafka, self._lab.site(self._lab.embassies[0]).kafka

    def make_databases(self) -> None:
        """Make an empty database of the benchmark's tables on both sides, in the place of what there is."""
        schema = Path(__file__).with_name("registry.sql").read_bytes()
        for server in (self.home, self.abroad):
            with server.connect(ADMIN) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")
                connection.execute(f"CREATE DATABASE {self.name} OWNER {OWNER} TEMPLATE template0")
            with server.connect(OWNER, self.name) as connection:
                connection.execute(schema)

    def await_sender(self, limit_seconds: float) -> None:
        """Wait until somebody reads its slot.

        Raises:
            TransientError: nobody does.
        """
        end = time.monotonic() + limit_seconds
        while True:
            try:
                self._sender()
            except TransientError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return

    def freeze(self) -> None:
        """Hold the sender back."""
        os.kill(self._sender(), signal.SIGSTOP)

    def set_aside(self) -> None:
        """Freeze its sender, and what else costs something while it idles."""
        self.freeze()

    def let_go(self) -> None:
        """Let the sender go on, and whatever was set aside."""
        os.kill(self._sender(), signal.SIGCONT)

    def release(self) -> None:
        """Let the sender go on, if there is one: a frozen one would keep its server from stopping."""
        with suppress(TransientError):
            self.let_go()

    def await_level(self) -> None:
        """Wait until the replica shows what the source has committed by now.

        Raises:
            TransientError: it does not.
        """
        with self.source() as source, self.replica() as replica:
            self.await_mark(replica, self.send_mark(source))

    def settle(self) -> None:
        """Wait until its slot keeps none of the log that there is by now, as that of a stream that keeps up.

        What is confirmed moves as the replicator moves it, ours 30 s behind. From where the log is kept follows, but only
        to where the server has noted which transactions run: each 15 s at most, so it is asked to now and then.

        Raises:
            TransientError: it still does at the deadline.
        """
        end = time.monotonic() + SETTLE_SECONDS
        with self.home.connect(ADMIN) as connection, self.source() as source, self.replica() as replica:
            (upto,) = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone() or ("",)
            while connection.execute(_SETTLED, (upto, upto, self._slot)).fetchone() != (True,):
                if time.monotonic() > end:
                    raise TransientError(
                        f"{self.name}: the slot {self._slot} still keeps log from before {upto} after "
                        f"{SETTLE_SECONDS:g} s"
                    )
                connection.execute("SELECT pg_log_standby_snapshot()")
                mark = self.send_mark(source)  # who is sent nothing may confirm nothing
                time.sleep(_SETTLE_POLL_SECONDS)
                self.await_mark(replica, mark)

    def send_mark(self, source: Connection) -> int:
        """Write what is visible at the replica only after all before it; returns its number."""
        return marks.send(source)

    def await_mark(self, replica: Connection, mark: int) -> float:
        """Wait for a mark; returns when it was visible.

        Raises:
            TransientError: it is not, within the limit.
        """
        try:
            return marks.await_arrival(replica, mark, LEVEL_SECONDS)
        except TransientError:
            self.check()
            raise

    def compared(self) -> list[TableComparison]:
        """Every row of each table of both sides, compared."""
        return compare_tables(self.source_dsn, self.replica_dsn)

    def equal_rows(self) -> dict[str, int]:
        """The rows of each table, once every one of both sides has been compared.

        Raises:
            IntegrityError: a table differs.
        """
        compared = self.compared()
        if unequal := [table for table in compared if not table.equal]:
            raise IntegrityError(
                f"{self.name}: {len(unequal)} of {len(compared)} tables differ: {unequal[0]}",
                place=self.name,
                hint="whatever was measured is worthless",
            )
        return {table.table: table.source_rows or 0 for table in compared}

    def tidy(self) -> None:
        """Vacuum, analyse and checkpoint both sides, so that no measurement pays for what was before it."""
        for session in (self.source, self.replica):
            with session() as connection:
                connection.execute("VACUUM (ANALYZE)")
                connection.execute("CHECKPOINT")

    def _sender(self) -> int:
        with self.home.connect(ADMIN) as connection:
            row = connection.execute(
                sql.SQL("SELECT active_pid FROM pg_replication_slots WHERE slot_name = {}").format(self._slot)
            ).fetchone()
        if row is None or row[0] is None:
            self.check()
            raise TransientError(f"{self.name}: nobody holds the slot {self._slot}")
        return int(row[0])
