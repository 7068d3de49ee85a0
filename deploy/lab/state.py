"""What the lab remembers between commands: one JSON file, replaced atomically under a lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from deploy.lab.daemons import Daemon
from embassy.model.errors import ConfigurationError, RefusedError

ServerKind = Literal["kafka", "postgres"]
Purpose = Literal["lab", "demo"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerState(_Entry):
    """One server.

    Attributes:
        port: where clients connect.
        controller_port: Kafka's second listener; 0 for PostgreSQL.
        pid: the process started last; None before the first start and after a stop.
        started: its start time, as ``Daemon`` writes it.
    """

    port: int
    controller_port: int = 0
    pid: int | None = None
    started: str = ""

    @property
    def daemon(self) -> Daemon | None:
        """The process started last, running or not."""
        return None if self.pid is None else Daemon(self.pid, self.started)

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port the server listens on."""
        return (self.port, self.controller_port) if self.controller_port else (self.port,)


class SiteState(_Entry):
    """The two servers of a site."""

    kafka: ServerState
    postgres: ServerState

    def server(self, kind: ServerKind) -> ServerState:
        """One of them."""
        return self.kafka if kind == "kafka" else self.postgres


class RegistryState(_Entry):
    """A registry.

    Attributes:
        stream: its stream's opaque identity, 32 hexadecimal digits, chosen at random.
        schema_file: the SQL that makes its tables, or None.
    """

    title: str
    stream: str
    schema_file: Path | None = None

    @property
    def topic(self) -> str:
        """The stream's topic in every cluster."""
        return f"s-{self.stream}"


class SupervisorState(_Entry):
    """The command that watches over the roles.

    Attributes:
        pid: its process.
        started: its start time, as ``Daemon`` writes it.
    """

    pid: int
    started: str

    @property
    def daemon(self) -> Daemon:
        """The process, running or not."""
        return Daemon(self.pid, self.started)


class LabState(_Entry):
    """The whole lab.

    Attributes:
        purpose: ``demo`` if the demonstration made it for itself; it never touches any other.
        supervisor: the demonstration that runs in it, or ran.
    """

    version: Literal[1] = 1
    purpose: Purpose = "lab"
    postgres: str
    account: str
    sites: dict[str, SiteState]
    registries: dict[str, RegistryState]
    supervisor: SupervisorState | None = None

    @property
    def embassies(self) -> tuple[str, ...]:
        """The names of the foreign sites."""
        return tuple(name for name in self.sites if name != "home")

    def with_server(self, site: str, kind: ServerKind, server: ServerState) -> LabState:
        """The same with one server's entry replaced."""
        changed = self.sites[site].model_copy(update={kind: server})
        return self.model_copy(update={"sites": {**self.sites, site: changed}})


@dataclass(frozen=True, slots=True)
class StateFile:
    """The file that holds a ``LabState``."""

    path: Path

    def read(self) -> LabState | None:
        """The present state, or None if there is no lab.

        Raises:
            ConfigurationError: the file is not a state file of this version.
        """
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return LabState.model_validate_json(text)
        except ValidationError as error:
            raise ConfigurationError(
                "the lab's state cannot be read; another version wrote it",
                place=str(self.path),
                hint=f"stop the servers it names by pid, then remove {self.path.parent}",
            ) from error

    def must_read(self) -> LabState:
        """The present state.

        Raises:
            RefusedError: there is no lab.
        """
        state = self.read()
        if state is None:
            raise RefusedError("there is no lab here", place=str(self.path.parent), hint="run embassy lab up")
        return state

    def write(self, state: LabState) -> None:
        """Replace the file; a reader sees the old state or the new one."""
        fresh = self.path.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
        fresh.replace(self.path)

    def update(self, change: Callable[[LabState], LabState]) -> None:
        """Read, change and replace, alone."""
        with locked(self.path.with_suffix(".lock")):
            self.write(change(self.must_read()))


@contextmanager
def locked(path: Path, *, refusal: str = "") -> Iterator[None]:
    """Hold a lock file; wait for it, or, if ``refusal`` is given, refuse at once with it.

    Raises:
        RefusedError: someone else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError as error:
            raise RefusedError(refusal, place=str(path), hint="wait until it is done") from error
        yield


@dataclass(frozen=True, slots=True)
class Ledger:
    """One server's entry in the state file."""

    file: StateFile
    site: str
    kind: ServerKind

    @property
    def server(self) -> ServerState:
        """The present entry."""
        return self.file.must_read().sites[self.site].server(self.kind)

    def record(self, daemon: Daemon | None) -> None:
        """Remember the process that now is the server, or that there is none."""
        pid, started = (daemon.pid, daemon.started) if daemon else (None, "")
        self._change(lambda entry: entry.model_copy(update={"pid": pid, "started": started}))

    def move(self, *ports: int) -> None:
        """Remember other ports: the client port, then Kafka's controller port."""
        moved = dict(zip(("port", "controller_port"), ports, strict=False))
        self._change(lambda entry: entry.model_copy(update=moved))

    def _change(self, change: Callable[[ServerState], ServerState]) -> None:
        self.file.update(
            lambda state: state.with_server(self.site, self.kind, change(state.sites[self.site].server(self.kind)))
        )
