"""The second half of a drill: home follows the embassy while that works on, and becomes the registry again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from deploy.demo.homecoming_report import Homecoming, Told, judged_at_home
from deploy.demo.registry_run import RegistryRun
from deploy.demo.supervised_role import SupervisedRole
from deploy.lab import databases, role_configs
from deploy.lab.lab import Lab
from deploy.lab.roles import Role, reverse_roles, roles
from deploy.lab.waiting import Patience
from deploy.workload.client import Client, stop_all
from deploy.workload.comparison import compare_tables
from deploy.workload.ledger import Ledger

_ABROAD_NUMBER, _HOME_NUMBER = 1002, 1003
"""Numbers of the clients: other ones than before."""
_BUSINESS_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0

Command = Callable[..., str]
"""Called with a configuration and arguments; returns what the command printed, and raises if it was refused."""
MakeClient = Callable[[RegistryRun, str, Ledger, int], Client]
"""Called with a registry, where it lives, a ledger and the client's number."""


class Before(NamedTuple):
    """What has happened to one registry so far."""

    run: RegistryRun
    told_abroad: Ledger
    never_shipped: Collection[UUID]
    """Tokens of what clients were told at home, and the embassy never got."""


class WayHome:
    """Walks it once."""

    def __init__(
        self,
        lab: Lab,
        before: Sequence[Before],
        *,
        command: Command,
        client: MakeClient,
        phase: Callable[[str], None],
    ) -> None:
        self._lab = lab
        self._embassy = lab.embassies[0]
        self._before = before
        self._command = command
        self._client = client
        self._phase = phase
        self._patience = Patience(pause_seconds=0.1)
        self._roles: list[SupervisedRole] = []
        self._doubly_writable: set[str] = set()
        self.bundles: tuple[Mapping[str, Any], ...] = ()
        """What became of what home never shipped, by registry."""

    def walk(self, report: Path, bundle: Path, confirmation: str) -> Homecoming:
        """From a home that is shut to one that is the registry, with the embassy behind it.

        Args:
            report: the promotion's.
            bundle: a folder for what home never shipped.
            confirmation: what ``promote run`` wants to be told.

        Raises:
            RefusedError: a command was refused; the message has its words.
        """
        home, abroad = self._home_admin, role_configs.admin_config(self._lab.layout, self._embassy)
        ledgers = {before.run.name: Told((before.told_abroad, Ledger()), Ledger()) for before in self._before}
        self._phase("home follows the embassy")
        self._start(reverse_roles(self._lab.layout, self._embassy))
        clients = self._clients(ledgers, _ABROAD_NUMBER)
        began = time.monotonic()
        said = self._command(
            home,
            *("failback", "run", str(report), "-o", str(bundle), "--reason", "home is back", "--json"),
            codes=(0, 4),
        )
        self.bundles = tuple(entry["bundle"] for entry in json.loads(said)["registries"])
        failback = time.monotonic() - began
        self._look_for_two()
        self._phase("two persons approve the way back")
        self._enrol_home_again()
        self._start(roles(self._lab.layout, self._lab.state))
        plan = self._plan(report.with_name("back.json"))
        clients += self._clients(ledgers, _HOME_NUMBER)
        self._phase("home becomes the registry again")
        fenced_ns = time.time_ns()
        source = role_configs.source_admin_config(self._lab.layout, self._embassy)
        self._command(source, "home", "fence", str(plan), "--reason", "planned")
        self._look_for_two()
        began = time.monotonic()
        self._command(home, "promote", "run", str(plan), "--confirm", confirmation)
        switching = time.monotonic() - began
        self._look_for_two()
        began = time.monotonic()
        self._command(abroad, "failback", "run", str(plan.with_suffix(".report.json")), "--reason", "planned")
        following = time.monotonic() - began
        self._look_for_two()
        self._until_each_has_written(ledgers)
        time.sleep(_BUSINESS_SECONDS)
        stop_all(clients)
        self._phase("comparing both sides, and with what clients were told")
        self._until_level()
        return Homecoming(
            failback_seconds=failback,
            switching_seconds=switching,
            following_seconds=following,
            writable=tuple(sorted(self._doubly_writable)),
            registries=tuple(
                judged_at_home(
                    before.run.name,
                    before.run.workload,
                    ledgers[before.run.name],
                    home=self._dsn(before.run, databases.ADMIN, at_home=True),
                    abroad=self._dsn(before.run, databases.ADMIN, at_home=False),
                    never_shipped=before.never_shipped,
                    fenced_ns=fenced_ns,
                )
                for before in self._before
            ),
        )

    def close(self, *, keep: bool) -> None:
        """End the roles that were started, or leave them running."""
        for role in self._roles:
            if keep:
                role.let_go()
            else:
                role.end()

    @property
    def _home_admin(self) -> Path:
        return role_configs.replica_admin_config(self._lab.layout, self._embassy)

    def _start(self, wanted: Sequence[Role]) -> None:
        for role in wanted:
            supervised = SupervisedRole(role)
            self._roles.append(supervised)
            supervised.start()

    def _clients(self, ledgers: Mapping[str, Told], number: int) -> list[Client]:
        """Clients that write as soon as they may: abroad, or at home once it is the registry again."""
        found = []
        for before in self._before:
            told = ledgers[before.run.name]
            at_home = number == _HOME_NUMBER
            dsn = self._dsn(before.run, databases.OWNER, at_home=at_home)
            client = self._client(before.run, dsn, told.home if at_home else told.abroad[-1], number)
            client.start()
            found.append(client)
        return found

    def _plan(self, plan: Path) -> Path:
        for file in (plan, plan.with_suffix(".report.json")):
            file.unlink(missing_ok=True)
        self._command(self._home_admin, "promote", "plan", "--mode", "switchover", "-o", str(plan))
        for person in role_configs.OPERATORS[: role_configs.THRESHOLD]:
            key = role_configs.operator(self._lab.layout, person)
            self._command(self._home_admin, "promote", "approve", str(plan), "--key", str(key), "--yes")
        return plan

    def _enrol_home_again(self) -> None:
        """The enrolment of home's next epoch takes the place of its first one's; it was signed long ago."""
        layout = self._lab.layout
        for registry in self._lab.registries.values():
            after = role_configs.next_enrolment(layout, registry.stream).read_text(encoding="utf-8")
            role_configs.enrolment(layout, registry.stream).write_text(after, encoding="utf-8")

    def _until_each_has_written(self, ledgers: Mapping[str, Told]) -> None:
        for _ in self._patience.looks(_PATIENCE_SECONDS):
            if all(told.home.standing().committed for told in ledgers.values()):
                return

    def _until_level(self) -> None:
        for before in self._before:
            ends = [self._dsn(before.run, databases.ADMIN, at_home=at_home) for at_home in (True, False)]
            for _ in self._patience.looks(_PATIENCE_SECONDS):
                # What is still applied may truncate tables in another order than these are looked at.
                with suppress(psycopg.errors.DeadlockDetected):
                    if all(table.equal for table in compare_tables(*ends)):
                        break

    def _look_for_two(self) -> None:
        """Whether an administrator could write to a registry on both sides at this moment."""
        for before in self._before:
            if all(self._may_write(before.run, at_home=at_home) for at_home in (True, False)):
                self._doubly_writable.add(before.run.name)

    def _may_write(self, run: RegistryRun, *, at_home: bool) -> bool:
        try:
            with psycopg.connect(self._dsn(run, databases.ADMIN, at_home=at_home), autocommit=True) as connection:
                connection.execute("SET default_transaction_read_only = off")
                connection.execute(f'DELETE FROM "{run.workload.schema}".journal WHERE false'.encode())
        except psycopg.errors.ReadOnlySqlTransaction:
            return False
        return True

    def _dsn(self, run: RegistryRun, role: str, *, at_home: bool) -> str:
        if at_home:
            return self._lab.source_dsn(run.name, role)
        return self._lab.replica_dsn(self._embassy, run.name, role)
