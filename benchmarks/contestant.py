"""A replicator as the benchmark sees it: two databases, a sender that can be frozen, and what it has used."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from contextlib import suppress

from psycopg import sql

from benchmarks import marks
from benchmarks.machine import family_cpu_seconds
from benchmarks.workloads import Connection
from deploy.lab.databases import ADMIN
from deploy.lab.lab import Lab
from deploy.lab.postgres_server import PostgresServer
from deploy.workload.comparison import compare_tables
from embassy.model.errors import IntegrityError, TransientError

_LEVEL_SECONDS = 600.0


class Contestant(ABC):
    """Replicates a database of the home server to one of the same name in the embassy.

    It is held back by freezing (SIGSTOP) its walsender at the source: nothing is read from the log, and nothing has to
    be started, connected or found again when it is let go. Both contestants are held back in the same way.
    """

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

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time used so far, by part."""
        return {
            "postgres home": family_cpu_seconds(self.home.pid or 0),
            "postgres embassy": family_cpu_seconds(self.abroad.pid or 0),
        }

    def hop_bytes(self) -> dict[str, int]:
        """Bytes stored so far, by hop."""
        return {}

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

    def freeze(self) -> None:
        """Hold the sender back."""
        os.kill(self._sender(), signal.SIGSTOP)

    def let_go(self) -> None:
        """Let the sender go on."""
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
            self.await_mark(replica, marks.send(source))

    def await_mark(self, replica: Connection, mark: int) -> float:
        """Wait for a mark; returns when it was visible.

        Raises:
            TransientError: it is not, within the limit.
        """
        try:
            return marks.await_arrival(replica, mark, _LEVEL_SECONDS)
        except TransientError:
            self.check()
            raise

    def compared(self) -> dict[str, int]:
        """The rows of each table, once every one of both sides has been compared.

        Raises:
            IntegrityError: a table differs.
        """
        compared = compare_tables(self.source_dsn, self.replica_dsn)
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
