"""What a lab should consist of: the wish of the command, joined with what is there already."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.lab.artifacts import POSTGRES_VERSIONS
from deploy.lab.ports import free_port
from deploy.lab.registries_file import Registry, default_registries_file, read_registries
from deploy.lab.site import HOME
from deploy.lab.state import LabState, Purpose, RegistryState, ServerState, SiteState
from embassy.model.errors import ConfigurationError, RefusedError

_NEWEST = max(POSTGRES_VERSIONS, key=int)
_MOST_EMBASSIES = 9
_HINT = "run embassy lab down first"


@dataclass(frozen=True, slots=True)
class Wish:
    """What ``up`` was asked for; None leaves it as it is, or takes the default for a new lab.

    Attributes:
        registries: a registries file.
        embassies: number of foreign sites.
        postgres: PostgreSQL's major version.
        purpose: what a new lab is for; ``demo`` accepts no lab that was made for anything else.
    """

    registries: Path | None = None
    embassies: int | None = None
    postgres: str | None = None
    purpose: Purpose = "lab"

    def checked(self) -> Wish:
        """Itself, if it can be had.

        Raises:
            ConfigurationError: a version that is not offered, or a bad number of embassies.
        """
        if self.postgres is not None and self.postgres not in POSTGRES_VERSIONS:
            raise ConfigurationError(
                f"PostgreSQL {self.postgres} is not offered", hint=f"choose one of {', '.join(POSTGRES_VERSIONS)}"
            )
        if self.embassies is not None and not 1 <= self.embassies <= _MOST_EMBASSIES:
            raise ConfigurationError(
                f"{self.embassies} embassies cannot be had", hint=f"choose from 1 to {_MOST_EMBASSIES}"
            )
        return self


def planned(before: LabState | None, wish: Wish, account: str) -> LabState:
    """The lab to bring up.

    A lab that exists only grows: registries and embassies are added, none is dropped.

    Raises:
        ConfigurationError: the wish or its registries file is wrong.
        RefusedError: the lab that exists would have to lose something.
    """
    wish.checked()
    if before is None:
        registries = read_registries(wish.registries or default_registries_file())
        names = _site_names(wish.embassies or 1)
        return LabState(
            purpose=wish.purpose,
            postgres=wish.postgres or _NEWEST,
            account=account,
            sites=_with_sites({}, names),
            registries=_with_registries({}, registries),
        )
    _refuse_losses(before, wish, account)
    sites = _with_sites(before.sites, _site_names(wish.embassies or len(before.embassies)))
    if wish.registries is None:
        return before.model_copy(update={"sites": sites})
    registries = read_registries(wish.registries)
    if lost := sorted(before.registries.keys() - registries.keys()):
        raise RefusedError(f"the lab has registries that the file does not name: {', '.join(lost)}", hint=_HINT)
    return before.model_copy(
        update={"sites": sites, "registries": _with_registries(before.registries, registries)}
    )


def _refuse_losses(before: LabState, wish: Wish, account: str) -> None:
    if wish.purpose == "demo" and before.purpose != "demo":
        raise RefusedError(
            "there is a lab here that was not made by the demonstration",
            hint="remove it with embassy lab down, or set EMBASSY_LAB_HOME to another folder for the demonstration",
        )
    if before.account != account:
        raise RefusedError(f"the servers of this lab run as {before.account!r}, not as {account!r}", hint=_HINT)
    if wish.postgres not in (None, before.postgres):
        raise RefusedError(f"the lab has PostgreSQL {before.postgres}, not {wish.postgres}", hint=_HINT)
    if wish.embassies is not None and wish.embassies < len(before.embassies):
        raise RefusedError(f"the lab has {len(before.embassies)} embassies, not {wish.embassies}", hint=_HINT)


def _site_names(embassies: int) -> list[str]:
    return [HOME, *(f"embassy-{number}" for number in range(1, embassies + 1))]


def _with_sites(present: Mapping[str, SiteState], names: list[str]) -> dict[str, SiteState]:
    taken = {port for site in present.values() for server in (site.kafka, site.postgres) for port in server.ports}
    sites = dict(present)
    for name in names:
        if name not in sites:
            ports = []
            for _ in range(3):
                ports.append(free_port(taken))
                taken.add(ports[-1])
            kafka = ServerState(port=ports[0], controller_port=ports[1])
            sites[name] = SiteState(kafka=kafka, postgres=ServerState(port=ports[2]))
    return sites


def _with_registries(
    present: Mapping[str, RegistryState], wished: Mapping[str, Registry]
) -> dict[str, RegistryState]:
    return {
        name: RegistryState(
            title=registry.title,
            schema_file=registry.schema_file,
            stream=present[name].stream if name in present else secrets.token_hex(16),
        )
        for name, registry in wished.items()
    }
