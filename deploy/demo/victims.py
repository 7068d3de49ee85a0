"""What can be broken: the servers of every site, and the roles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from deploy.demo.faults import Victim
from deploy.demo.supervised_role import SupervisedRole
from deploy.lab.lab import Lab
from deploy.lab.server import Server
from deploy.lab.waiting import Patience
from embassy.model.errors import RefusedError


@dataclass(frozen=True, slots=True)
class ServerVictim:
    """A server of a site; nobody but us starts it again."""

    name: str
    server: Server

    def kill9(self) -> None:
        """End it and its children as a power cut would."""
        self.server.kill9()

    def pause(self) -> None:
        """Servers are not paused: only roles are asked to survive that.

        Raises:
            RefusedError: always.
        """
        raise RefusedError(f"{self.name} cannot be paused", hint="pause a role")

    def resume(self) -> None:
        """Nothing was paused."""

    def come_back(self, patience: Patience, limit_seconds: float) -> None:
        """Start it and wait until it answers."""
        replace(self.server, patience=patience).start(limit_seconds)

    def serve(self, patience: Patience, limit_seconds: float) -> None:
        """It answered already."""


def victims(lab: Lab, roles: Iterable[SupervisedRole]) -> dict[str, Victim]:
    """Everything that can be killed, by name: ``producer``, ``kafka home``, ``postgres embassy-1``, ..."""
    found: dict[str, Victim] = {role.name: role for role in roles}
    for name in lab.state.sites:
        site = lab.site(name)
        servers: tuple[tuple[str, Server], ...] = (("kafka", site.kafka), ("postgres", site.postgres))
        for title, server in servers:
            found[f"{title} {name}"] = ServerVictim(f"{title} {name}", server)
    return found
