"""One registry during a demonstration: its clients at home, its observers abroad, and the judgement at the end."""

from __future__ import annotations

import contextlib
from datetime import datetime

import psycopg
from psycopg import sql

from deploy.demo.report import RegistryResult, ReplicaResult, judged
from deploy.demo.shared_ledger import SharedLedger
from deploy.demo.standing import shows, source_time
from deploy.lab import databases
from deploy.lab.lab import Lab
from deploy.lab.state import RegistryState
from deploy.workload import catalogue
from deploy.workload.client import Client, crew
from deploy.workload.comparison import compare_tables
from deploy.workload.ledger import Ledger, Standing
from deploy.workload.observer import Observer
from deploy.workload.registry import RegistryWorkload, Scale
from deploy.workload.verdict import ledger_verdict, resolve_unknown

_OBSERVE_SECONDS = 0.05
_CHECK_SECONDS = 1.0


class RegistryRun:
    """A registry and everyone who uses it."""

    def __init__(self, name: str, lab: Lab, *, seed: int, clients: int, rate: float, scale: Scale) -> None:
        self.name = name
        self.stream = lab.registries[name].stream
        self.workload = _workload(name, lab.registries[name])
        self._source = lab.source_dsn(name)
        self._source_admin = lab.source_dsn(name, databases.ADMIN)
        self._replicas = {embassy: lab.replica_dsn(embassy, name) for embassy in lab.embassies}
        self._admins = {embassy: lab.replica_dsn(embassy, name, databases.ADMIN) for embassy in lab.embassies}
        self._seed = seed
        self._scale = scale
        self._ledgers = {embassy: Ledger() for embassy in self._replicas}
        self._told = (
            next(iter(self._ledgers.values()))
            if len(self._ledgers) == 1
            else SharedLedger([*self._ledgers.values()])
        )
        self._working = self._watching = False
        self._clients: tuple[Client, ...] = ()
        self._observers: tuple[Observer, ...] = ()
        if self.workload.has_transactions:
            self._clients = crew(
                self.workload,
                self._source,
                self._told,
                clients=clients,
                seed=seed,
                rate_per_second=rate,
                scale=scale,
            )
            self._observers = tuple(
                Observer(
                    self.workload,
                    dsn,
                    self._ledgers[embassy],
                    interval_seconds=_OBSERVE_SECONDS,
                    check_interval_seconds=_CHECK_SECONDS,
                )
                for embassy, dsn in self._replicas.items()
            )

    @property
    def told(self) -> Ledger:
        """What its clients were told."""
        return self._told

    @property
    def embassies(self) -> tuple[str, ...]:
        """Where its replicas are."""
        return tuple(self._replicas)

    def fill(self) -> None:
        """Give an empty registry its first rows; one that has any is left alone.

        Raises:
            psycopg.Error: the source is unreachable.
        """
        if self.workload.has_transactions and not self._holds_rows():
            catalogue.seed(self._source, self.workload, seed=self._seed, scale=self._scale)

    def start_observers(self) -> None:
        """Begin to watch the replicas; they must show the first rows by now."""
        self._watching = True
        for observer in self._observers:
            observer.start()

    def start_clients(self) -> None:
        """Begin to do business."""
        self._working = True
        for client in self._clients:
            client.start()

    def tell_clients_to_stop(self) -> None:
        """Let the clients finish what they are at; returns at once."""
        for client in self._clients:
            client.ask_to_stop()

    def stop_clients(self) -> None:
        """Wait for the clients' end.

        Raises:
            TimeoutError: one does not end.
        """
        for client in self._clients if self._working else ():
            client.stop()

    def stop_observers(self) -> None:
        """Watch no longer.

        Raises:
            TimeoutError: an observer does not end.
        """
        for observer in self._observers if self._watching else ():
            observer.stop()

    def settle(self) -> None:
        """Find out at the source what became of commits that were never answered; if it is away, they stay open."""
        with contextlib.suppress(psycopg.OperationalError):
            self._settle()

    def _settle(self) -> None:
        for ledger in {id(ledger): ledger for ledger in (self._told, *self._ledgers.values())}.values():
            resolve_unknown(ledger, self.workload, self._source_admin)

    def standing(self, embassy: str) -> Standing | None:
        """How far a replica is behind what clients were told; None of a registry without clients."""
        return self._ledgers[embassy].standing() if self._clients else None

    def now(self) -> datetime:
        """The present by the source's clock.

        Raises:
            psycopg.Error: it is unreachable.
        """
        return source_time(self._source_admin)

    def shows(self, embassy: str, moment: datetime) -> bool:
        """Whether a replica shows all that was committed before a moment, to its observer too."""
        return self._ledgers[embassy].unseen() == 0 and shows(self._admins[embassy], moment)

    def judge(self, behind: set[str]) -> RegistryResult:
        """Compare every replica with the source and with what clients were told; once nobody writes any more.

        Args:
            behind: embassies whose replica did not catch up.
        """
        return RegistryResult(self.name, tuple(self._judge(embassy, behind) for embassy in self._replicas))

    def _judge(self, embassy: str, behind: set[str]) -> ReplicaResult:
        ledger = self._ledgers[embassy]
        try:
            verdict = (
                ledger_verdict(ledger, self.workload, self._source_admin, self._admins[embassy])
                if self._clients
                else None
            )
            tables = compare_tables(self._source_admin, self._admins[embassy])
        except psycopg.Error as error:
            return ReplicaResult(embassy, complaints=(f"the sides cannot be compared: {error}",))
        return judged(
            embassy,
            verdict=verdict,
            tables=tables,
            caught_up=embassy not in behind,
            failures=self._told.failures(),
            business_expected=bool(self._clients),
        )

    def _holds_rows(self) -> bool:
        with psycopg.connect(self._source_admin) as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = %s", (self.workload.schema,)
            ).fetchall()
            return any(
                connection.execute(
                    sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(self.workload.schema, table))
                ).fetchone()
                is not None
                for (table,) in tables
            )


def _workload(name: str, registry: RegistryState) -> RegistryWorkload:
    """The business of a registry, if its tables are those that the business is done with."""
    known = catalogue.workload(name)
    if known.has_transactions and registry.schema_file is not None:
        same = registry.schema_file.read_text(encoding="utf-8") == catalogue.schema_sql(name)
        if same:
            return known
    return catalogue.without_business(name)
