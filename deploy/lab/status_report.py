"""The lab's state as one JSON object, for people's own clients and for scripts."""

from __future__ import annotations

from typing import Any

from deploy.lab import databases, role_configs
from deploy.lab.construction import Workshop
from deploy.lab.ports import accepts
from deploy.lab.site import HOME, Site
from deploy.lab.state import LabState

SCHEMA = 1


def report(workshop: Workshop, state: LabState | None) -> dict[str, Any]:
    """What ``lab status --json`` prints; a contract, numbered by ``schema``.

    ``state`` is ``up`` if every server runs, ``down`` if none does or there is no lab, else ``degraded``.
    """
    if state is None:
        return {"schema": SCHEMA, "state": "down", "folder": str(workshop.layout.home)}
    home = workshop.site(HOME)
    embassies = {name: workshop.site(name) for name in state.embassies}
    servers = {HOME: _servers(home)} | {name: _servers(site) for name, site in embassies.items()}
    alive = [servers[site][kind]["alive"] for site in servers for kind in ("kafka", "postgres")]
    layout = workshop.layout
    return {
        "schema": SCHEMA,
        "state": "up" if all(alive) else "degraded" if any(alive) else "down",
        "folder": str(layout.home),
        "postgres": state.postgres,
        "home": servers[HOME],
        "embassies": {name: servers[name] for name in embassies},
        "registries": {
            name: {
                "title": registry.title,
                "stream": registry.stream,
                "topic": registry.topic,
                "source_dsn": home.postgres.dsn(databases.OWNER, name),
                "source_admin_dsn": home.postgres.dsn(databases.ADMIN, name),
                "replica_dsn": _dsns(embassies, databases.READER, name),
                "replica_owner_dsn": _dsns(embassies, databases.OWNER, name),
                "replica_admin_dsn": _dsns(embassies, databases.ADMIN, name),
            }
            for name, registry in state.registries.items()
        },
        "configs": {
            "producer": str(role_configs.producer_config(layout)),
            "bridge": {name: str(role_configs.bridge_config(layout, name)) for name in embassies},
            "consumer": {name: str(role_configs.consumer_config(layout, name)) for name in embassies},
            "admin": {name: str(role_configs.admin_config(layout, name)) for name in (HOME, *embassies)},
        },
        "certificates": {
            "folder": str(layout.certificates),
            "kafka": {site.name: _kafka_certificates(site) for site in (home, *embassies.values())},
        },
    }


def _servers(site: Site) -> dict[str, Any]:
    kafka, postgres = site.kafka, site.postgres
    return {
        "kafka": {
            "bootstrap": kafka.bootstrap,
            "port": kafka.port,
            "pid": kafka.pid,
            "alive": kafka.alive,
            "listening": accepts(kafka.port),
            "log_dirs": [str(path) for path in kafka.log_dirs],
            "log": str(kafka.log),
        },
        "postgres": {
            "port": postgres.port,
            "pid": postgres.pid,
            "alive": postgres.alive,
            "listening": accepts(postgres.port),
            "folder": str(postgres.data),
            "log": str(postgres.log),
        },
    }


def _dsns(embassies: dict[str, Site], role: str, registry: str) -> dict[str, str]:
    return {name: site.postgres.dsn(role, registry) for name, site in embassies.items()}


def _kafka_certificates(site: Site) -> dict[str, dict[str, str]]:
    files = {role: site.kafka.authority.client(role) for role in site.kafka_roles}
    return {
        role: {"certificate": str(own.certificate), "key": str(own.key), "ca": str(own.ca)}
        for role, own in files.items()
    }
