"""What a PostgreSQL server and a Kafka broker of the lab have in common: a folder, a process, a certificate."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from deploy.lab.account import Account
from deploy.lab.certificates import Authority
from deploy.lab.daemons import Daemon, last_lines, running_in, running_with, spawn
from deploy.lab.ports import is_free
from deploy.lab.state import Ledger
from deploy.lab.waiting import Announce, Patience
from embassy.model.errors import TransientError

START_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Server(ABC):
    """A server of a site.

    Attributes:
        site: the site's name, for messages.
        folder: everything the server writes.
        authority: signs the server's certificate and those of its clients.
        ledger: where its ports and its process are remembered.
    """

    title: ClassVar[str]
    program: ClassVar[str]

    site: str
    folder: Path
    authority: Authority
    ledger: Ledger
    account: Account
    patience: Patience
    announce: Announce

    @property
    @abstractmethod
    def last_argument(self) -> Path:
        """The path of the lab that ends the server's command line, and no other's."""

    @property
    @abstractmethod
    def working_folder(self) -> Path:
        """Where the server and its children run."""

    @property
    def traces(self) -> tuple[tuple[Path, str], ...]:
        """Where its processes run, and of what program: the server, its children, and whatever prepares it."""
        return ((self.working_folder, self.program),)

    @abstractmethod
    def prepare(self) -> None:
        """Make what the server needs on disk; what is there already stays, but for its configuration."""

    @abstractmethod
    def relocate(self, taken: set[int]) -> None:
        """Choose other ports, for a server that does not run."""

    @abstractmethod
    def answers(self, left_seconds: float) -> bool:
        """Whether the server serves clients now."""

    @abstractmethod
    def stop(self) -> None:
        """Shut down, cleanly if possible, and wait until every process is gone."""

    @abstractmethod
    def command(self) -> list[str | Path]:
        """The command line that starts it."""

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.folder / "server.log"

    @property
    def port(self) -> int:
        """Where it listens for clients."""
        return self.ledger.server.port

    @property
    def ports_are_free(self) -> bool:
        """Whether it could listen, were it started now."""
        return all(is_free(port) for port in self.ledger.server.ports)

    @property
    def pid(self) -> int | None:
        """The id of its process, running or not; None if it was stopped."""
        return self.ledger.server.pid

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.daemon is not None

    @property
    def daemon(self) -> Daemon | None:
        """Its process if it runs, also one that was started but, for an interruption, never remembered."""
        daemon = self.ledger.server.daemon
        if daemon is not None and daemon.alive:
            return daemon
        return running_with(self.program, str(self.last_argument))

    def start(self, limit_seconds: float = START_SECONDS) -> None:
        """Start the server and wait until it answers; one that runs already is kept.

        Children of a killed predecessor that still die are waited for.

        Raises:
            TransientError: children of the predecessor do not end, or the server ends or does not answer within the
                limit; the message has the log's last lines.
        """
        running = self.daemon
        if running is not None:
            self.ledger.record(running)
        else:
            self.await_predecessors(limit_seconds)
            self._spawn()
        self.wait_ready(limit_seconds)

    def await_predecessors(self, limit_seconds: float = START_SECONDS) -> None:
        """Wait until nothing runs of a killed predecessor, nor of what a killed command was preparing.

        Raises:
            TransientError: something still runs after the limit.
        """
        for _ in self.patience.looks(limit_seconds):
            if not self._leftovers():
                return
        raise TransientError(f"processes of the killed {self} still run", place=str(self.working_folder))

    def wait_ready(self, limit_seconds: float = START_SECONDS) -> None:
        """Wait until the server answers.

        Raises:
            TransientError: its process is gone, or it does not answer within the limit.
        """
        for left in self.patience.looks(limit_seconds):
            if self.answers(left):
                return
            if not self.alive:
                raise TransientError(f"{self} does not run: {last_lines(self.log)}", place=str(self.log))
        raise TransientError(
            f"{self} does not answer after {limit_seconds:g} s: {last_lines(self.log)}", place=str(self.log)
        )

    def kill9(self) -> None:
        """End the server and all its children as a power cut would."""
        if daemon := self.daemon:
            daemon.cut_power(self.patience)
        for orphan in self._leftovers():
            orphan.cut_power(self.patience)

    def write(self, name: Path, text: str) -> None:
        """Write a file that only the server's account can read."""
        name.touch(mode=0o600)
        name.chmod(0o600)
        name.write_text(text, encoding="utf-8")
        self.account.own(name)

    def make_folder(self) -> None:
        """Make the server's folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.account.own(self.folder)

    def erase(self) -> None:
        """Remove everything a stopped server wrote."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _leftovers(self) -> list[Daemon]:
        return [daemon for folder, program in self.traces for daemon in running_in(folder, program)]

    def _spawn(self) -> None:
        daemon = spawn(self.command(), account=self.account, folder=self.working_folder, log=self.log)
        self.ledger.record(daemon)

    def __str__(self) -> str:
        return f"{self.title} of {self.site}"
