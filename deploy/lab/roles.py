"""The roles that the lab's sites call for, and how each is started and found again."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.lab import role_configs
from deploy.lab.daemons import Daemon, running_as
from deploy.lab.layout import Layout
from deploy.lab.state import LabState
from deploy.lab.waiting import Patience

_DRAIN_SECONDS = 20
_ADDRESS_FILE = "--address-file"


@dataclass(frozen=True, slots=True)
class Role:
    """One process that carries all streams of a site: a producer, a bridge or a consumer.

    Attributes:
        name: for people, "bridge embassy-1".
        config: its configuration file.
        stage: the command that runs it.
        folder: where its log and its address are.
        options: global ones of its command line, such as ``-r NAME``.
    """

    name: str
    config: Path
    stage: str
    folder: Path
    options: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / f"{self.config.stem}.log"

    @property
    def address(self) -> Path:
        """The file in which it writes where its metrics and its health are served."""
        return self.folder / f"{self.config.stem}.address"

    @property
    def command(self) -> list[str]:
        """Its command line; it ends with a path of the lab, by which the role is found again."""
        own = [*program(), "-c", str(self.config), *self.options]
        return [*own, self.stage, "run", _ADDRESS_FILE, str(self.address)]

    def running(self) -> list[Daemon]:
        """The processes that run it now, whoever started them."""
        return running_as(_ADDRESS_FILE, str(self.address))

    def end(self, patience: Patience) -> None:
        """Let every process that runs it drain and end; kill one that does not."""
        running = self.running()
        for daemon in running:
            daemon.send(signal.SIGCONT)
            daemon.send(signal.SIGTERM)  # once: a second one means at once
        for _ in patience.looks(_DRAIN_SECONDS):
            if not any(daemon.alive for daemon in running):
                return
        for daemon in running:
            daemon.cut_power(patience)


def program() -> list[str]:
    """The command ``embassy`` of this very Python."""
    return [sys.executable, "-P", "-m", "embassy"]


def roles(layout: Layout, state: LabState) -> tuple[Role, ...]:
    """The roles of a lab: one producer, and a bridge and a consumer of each embassy."""
    folder = layout.roles
    found = [Role("producer", role_configs.producer_config(layout), "producer", folder)]
    for name in state.embassies:
        found.append(Role(f"bridge {name}", role_configs.bridge_config(layout, name), "bridge", folder))
        found.append(Role(f"consumer {name}", role_configs.consumer_config(layout, name), "consumer", folder))
    return tuple(found)


def reverse_roles(layout: Layout, embassy: str) -> tuple[Role, ...]:
    """The roles of the way home from an embassy: a producer there, a bridge, a consumer at home."""
    folder = layout.roles
    return (
        Role(f"producer {embassy}", role_configs.reverse_producer_config(layout, embassy), "producer", folder),
        Role(f"bridge {embassy} home", role_configs.reverse_bridge_config(layout, embassy), "bridge", folder),
        Role(
            f"consumer home {embassy}", role_configs.reverse_consumer_config(layout, embassy), "consumer", folder
        ),
    )
