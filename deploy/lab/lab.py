"""The local lab: home and its embassies on real servers, for the demo, the tests and anyone's own clients."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from deploy.lab import databases, key_material, role_configs, status_report
from deploy.lab.account import remove_sheltered, sheltered
from deploy.lab.construction import Workshop
from deploy.lab.daemons import Daemon
from deploy.lab.layout import Layout
from deploy.lab.plan import Wish, planned
from deploy.lab.roles import roles
from deploy.lab.server import Server
from deploy.lab.site import HOME, Site
from deploy.lab.state import LabState, Purpose, RegistryState, ServerKind, SupervisorState, locked
from deploy.lab.waiting import Announce, silent
from embassy.model.errors import RefusedError

_BUSY = "another embassy lab command is at work here"
_KINDS: tuple[ServerKind, ...] = ("kafka", "postgres")


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that is up, or was."""

    workshop: Workshop

    @classmethod
    def up(
        cls,
        home: Path | None = None,
        *,
        registries: Path | None = None,
        embassies: int | None = None,
        postgres: str | None = None,
        cache: Path | None = None,
        purpose: Purpose = "lab",
        announce: Announce = silent,
    ) -> Lab:
        """Bring a lab up, or back up; what runs already is kept, and what is missing is added.

        Args:
            home: the lab's folder; default EMBASSY_LAB_HOME or ``.lab`` of the project.
            registries: a registries file; default the ten of the demo, or those of the lab that exists.
            embassies: number of foreign sites, default 1 or those that exist.
            postgres: PostgreSQL's major version, default the newest or the one that exists.
            cache: folder of the unpacked servers; default EMBASSY_LAB_CACHE or ``.lab/cache`` of the project.
            purpose: what the lab is for; see ``LabState``.
            announce: told of each step.

        Raises:
            ConfigurationError: the wish cannot be had on this machine.
            RefusedError: the lab that exists is another one, or another command is at work.
            TransientError: a server did not start.
        """
        layout = Layout.choose(home, cache)
        workshop = Workshop.at(layout, announce)
        with locked(layout.lock, refusal=_BUSY):
            before = workshop.file.read()
            running = _running(workshop, before)
            if purpose == "demo":
                _refuse_if_supervised(before)
            after = planned(before, Wish(registries, embassies, postgres, purpose), workshop.account.name)
            workshop.file.write(after)
            try:
                _bring_up(workshop, after)
            except BaseException:
                announce("lab", "stopping what was started")
                _undo(Workshop.at(layout, announce), before, running)
                raise
        return cls(workshop)

    @classmethod
    def here(cls, home: Path | None = None, *, cache: Path | None = None, announce: Announce = silent) -> Lab:
        """The lab of a folder, whether there is one or not: only ``status`` and ``down`` make sense without."""
        return cls(Workshop.at(Layout.choose(home, cache), announce))

    @classmethod
    def attach(cls, home: Path | None = None, *, cache: Path | None = None, announce: Announce = silent) -> Lab:
        """A lab that another command brought up.

        Raises:
            RefusedError: there is none.
        """
        found = cls.here(home, cache=cache, announce=announce)
        found.workshop.file.must_read()
        return found

    def down(self, *, keep_data: bool = False) -> None:
        """Stop every role and server, and remove everything but the cache unless the data is to be kept.

        Does nothing where there is no lab.

        Raises:
            RefusedError: another command is at work, or a demonstration.
        """
        if not self.layout.home.is_dir():
            return
        with locked(self.layout.lock, refusal=_BUSY):
            state = self.workshop.file.read()
            if state is not None:
                _refuse_if_supervised(state)
                self.end_roles()
                _stop(self.workshop, [(site, kind) for site in state.sites for kind in _KINDS])
            if not keep_data:
                _remove(self.layout)

    def left(self) -> list[str]:
        """What others have put into the folder: `down` does not touch it."""
        home = self.layout.home
        own = {folder.name for folder in (*_own_folders(self.layout), self.layout.sites)}
        kept = {
            "cache",
            "demo-logs",
            self.layout.state.name,
            self.layout.lock.name,
            f"{self.layout.state.stem}.lock",
        }
        return sorted(path.name for path in home.iterdir() if path.name not in own | kept) if home.is_dir() else []

    def take_charge(self) -> None:
        """Note that this process watches over the roles: while it runs, no other command takes the lab down.

        Raises:
            RefusedError: another process does that already.
        """
        me = Daemon.me()

        def noted(state: LabState) -> LabState:
            _refuse_if_supervised(state)
            return state.model_copy(update={"supervisor": SupervisorState(pid=me.pid, started=me.started)})

        self.workshop.file.update(noted)

    def end_roles(self) -> None:
        """End every process that runs a role of this lab, whoever started it."""
        found = roles(self.layout, self.state)
        _together(self.workshop, [lambda role=role: role.end(self.workshop.patience) for role in found])  # type: ignore[misc]

    @property
    def layout(self) -> Layout:
        """The lab's folders."""
        return self.workshop.layout

    @property
    def state(self) -> LabState:
        """What the lab consists of now."""
        return self.workshop.file.must_read()

    @property
    def registries(self) -> dict[str, RegistryState]:
        """The registries by name."""
        return self.state.registries

    @property
    def embassies(self) -> tuple[str, ...]:
        """The names of the foreign sites."""
        return self.state.embassies

    def site(self, name: str) -> Site:
        """A site by name.

        Raises:
            RefusedError: the lab has no such site.
        """
        known = self.state.sites
        if name not in known:
            raise RefusedError(f"the lab has no site {name!r}", hint=f"it has {', '.join(known)}")
        return self.workshop.site(name)

    @property
    def home(self) -> Site:
        """The site of the registries."""
        return self.site(HOME)

    def source_dsn(self, registry: str, role: str = databases.OWNER) -> str:
        """How a role connects to a registry's source."""
        return self.home.postgres.dsn(role, registry)

    def replica_dsn(self, embassy: str, registry: str, role: str = databases.READER) -> str:
        """How a role connects to a registry's replica."""
        return self.site(embassy).postgres.dsn(role, registry)

    def client_config(self, site: str, role: str) -> dict[str, str | int | float | bool]:
        """The configuration of librdkafka for a role on a site's cluster."""
        return self.site(site).kafka.client_config(role)

    def admin_client(self, site: str) -> AdminClient:
        """A client that may do anything on a site's cluster."""
        return self.site(site).kafka.admin_client()

    def status(self) -> dict[str, Any]:
        """The report that ``lab status --json`` prints."""
        return status_report.report(self.workshop, self.workshop.file.read())


def _bring_up(workshop: Workshop, state: LabState) -> None:
    sheltered(workshop.layout.sites, workshop.account)
    sites = [workshop.site(name) for name in state.sites]
    taken = {port for site in state.sites.values() for kind in _KINDS for port in site.server(kind).ports}
    steps: list[Callable[[], None]] = []
    for site in sites:
        steps.append(lambda site=site: site.bring_up_kafka(taken))  # type: ignore[misc]
        steps.append(lambda site=site: site.bring_up_postgres(state.registries, taken))  # type: ignore[misc]
    _together(workshop, steps)
    key_material.ensure(workshop.layout, state)
    role_configs.write(workshop)


def _together(workshop: Workshop, steps: Iterable[Callable[[], None]]) -> None:
    """Run all steps at once; the first failure or an interrupt ends the others."""
    with ThreadPoolExecutor(max_workers=32, thread_name_prefix="lab") as pool:
        futures = [pool.submit(step) for step in steps]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            workshop.patience.abandoned.set()
            raise


def _running(workshop: Workshop, state: LabState | None) -> set[tuple[str, ServerKind]]:
    if state is None:
        return set()
    return {(name, kind) for name in state.sites for kind in _KINDS if _server(workshop, name, kind).alive}


def _undo(workshop: Workshop, before: LabState | None, running: set[tuple[str, ServerKind]]) -> None:
    """Stop what a failed start has started, and forget what it was to add."""
    sites = workshop.file.must_read().sites
    _stop(workshop, [(site, kind) for site in sites for kind in _KINDS if (site, kind) not in running])
    if before is None:
        _remove(workshop.layout)
        return
    workshop.file.update(
        lambda state: state.model_copy(
            update={
                "registries": before.registries,
                "sites": {name: site for name, site in state.sites.items() if name in before.sites},
            }
        )
    )


def _stop(workshop: Workshop, servers: Iterable[tuple[str, ServerKind]]) -> None:
    steps = []
    for site, kind in servers:
        workshop.announce(f"{site} {kind}", "stopping")
        steps.append(_server(workshop, site, kind).stop)
    _together(workshop, steps)


def _server(workshop: Workshop, site: str, kind: ServerKind) -> Server:
    found = workshop.site(site)
    return found.kafka if kind == "kafka" else found.postgres


def _refuse_if_supervised(state: LabState | None) -> None:
    supervisor = state.supervisor.daemon if state and state.supervisor else None
    if supervisor and supervisor.alive and supervisor != Daemon.me():
        raise RefusedError(
            f"a demonstration runs in this lab (process {supervisor.pid})",
            hint="wait for it, or end it with Ctrl-C",
        )


def _own_folders(layout: Layout) -> tuple[Path, ...]:
    return layout.config, layout.keys, layout.certificates, layout.schemas, layout.roles, layout.promotion


def _remove(layout: Layout) -> None:
    remove_sheltered(layout.sites)
    for folder in _own_folders(layout):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (layout.state, layout.state.with_suffix(".lock"), layout.lock):
        file.unlink(missing_ok=True)
    if layout.home.is_dir() and not any(layout.home.iterdir()):
        layout.home.rmdir()
