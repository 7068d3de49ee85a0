"""The configuration file of each role of the lab, and the keys and enrolments they name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from deploy.lab import databases
from deploy.lab.construction import Workshop
from deploy.lab.layout import Layout
from deploy.lab.site import HOME, Site
from deploy.lab.state import LabState

OPERATORS = ("anna", "bert")
THRESHOLD = 2

Value = str | int | list[str] | Mapping[str, "Value"]


def producer_config(layout: Layout) -> Path:
    """Where the home producer's configuration is."""
    return layout.config / "home-producer.toml"


def bridge_config(layout: Layout, embassy: str) -> Path:
    """Where the configuration of the bridge to an embassy is."""
    return layout.config / f"bridge-{embassy}.toml"


def consumer_config(layout: Layout, embassy: str) -> Path:
    """Where the configuration of an embassy's consumer is."""
    return layout.config / f"{embassy}-consumer.toml"


def admin_config(layout: Layout, site: str) -> Path:
    """Where the configuration of a site's administrator is."""
    return layout.config / f"{site}-admin.toml"


def write(workshop: Workshop) -> None:
    """Write every role's file anew, with the present ports."""
    state = workshop.file.must_read()
    layout = workshop.layout
    layout.config.mkdir(parents=True, exist_ok=True)
    home = workshop.site(HOME)
    _write(producer_config(layout), _producer(layout, state, home))
    _write(admin_config(layout, HOME), _admin(layout, state, home))
    for name in state.embassies:
        embassy = workshop.site(name)
        _write(bridge_config(layout, name), _bridge(layout, state, home, embassy))
        _write(consumer_config(layout, name), _consumer(layout, state, embassy))
        _write(admin_config(layout, name), _admin(layout, state, embassy))


def enrolment(layout: Layout, stream: str) -> Path:
    """Where a stream's enrolment is."""
    return layout.keys / "enrolments" / f"{stream}.json"


def identity(layout: Layout) -> Path:
    """Where the home producer's secret identity is."""
    return layout.keys / "home.identity.json"


def recipient(layout: Layout, embassy: str) -> Path:
    """Where an embassy's secret recipient key is."""
    return layout.keys / f"{embassy}.recipient.json"


def embassy_identity(layout: Layout, embassy: str) -> Path:
    """Where an embassy's own secret identity is."""
    return layout.keys / f"{embassy}.identity.json"


def operator(layout: Layout, person: str) -> Path:
    """Where a person's secret operator key is."""
    return layout.keys / f"{person}.operator.json"


def public(secret: Path) -> Path:
    """The public file beside a secret one."""
    return secret.with_suffix(".pub.json")


def _producer(layout: Layout, state: LabState, home: Site) -> dict[str, Value]:
    return {
        "site": HOME,
        "kafka": {"home": _kafka(home, "producer")},
        "keys": {
            "identity": str(identity(layout)),
            "recipients": [str(public(recipient(layout, embassy))) for embassy in state.embassies],
            **_operators(layout),
        },
        "streams": {
            name: {
                **_stream(layout, registry.stream),
                "source": {"dsn": home.postgres.dsn(databases.PRODUCER, name)},
            }
            for name, registry in state.registries.items()
        },
    }


def _bridge(layout: Layout, state: LabState, home: Site, embassy: Site) -> dict[str, Value]:
    """The bridge stands outside the circle that may know which registry a stream is of."""
    return {
        "site": embassy.name,
        "kafka": {"home": _kafka(home, "bridge"), "foreign": _kafka(embassy, "bridge")},
        "keys": _operators(layout),
        "streams": {registry.stream: _stream(layout, registry.stream) for registry in state.registries.values()},
    }


def _consumer(layout: Layout, state: LabState, embassy: Site) -> dict[str, Value]:
    return {
        "site": embassy.name,
        "kafka": {"foreign": _kafka(embassy, "consumer")},
        "keys": {"recipient": str(recipient(layout, embassy.name)), **_operators(layout)},
        "streams": {
            name: {
                **_stream(layout, registry.stream),
                "replica": {"dsn": embassy.postgres.dsn(databases.CONSUMER, name)},
            }
            for name, registry in state.registries.items()
        },
    }


def _admin(layout: Layout, state: LabState, site: Site) -> dict[str, Value]:
    cluster, database = ("home", "source") if site.is_home else ("foreign", "replica")
    own: dict[str, Value] = {}
    if not site.is_home:  # promotion: to sign its report, and to apply what has arrived where no consumer runs
        own = {
            "identity": str(embassy_identity(layout, site.name)),
            "recipient": str(recipient(layout, site.name)),
        }
    return {
        "site": site.name,
        "kafka": {cluster: _kafka(site, "admin")},
        "keys": {**own, **_operators(layout)},
        "promotion": {"application_roles": [databases.OWNER]},
        "streams": {
            name: {
                **_stream(layout, registry.stream),
                database: {"dsn": site.postgres.dsn(databases.ADMIN, name)},
            }
            for name, registry in state.registries.items()
        },
    }


def _kafka(site: Site, role: str) -> dict[str, Value]:
    files = site.kafka.authority.client(role)
    return {
        "bootstrap": site.kafka.bootstrap,
        "ca": str(files.ca),
        "certificate": str(files.certificate),
        "key": str(files.key),
    }


def _operators(layout: Layout) -> dict[str, Value]:
    return {
        "operators": [str(public(operator(layout, person))) for person in OPERATORS],
        "threshold": THRESHOLD,
    }


def _stream(layout: Layout, stream: str) -> dict[str, Value]:
    return {"stream": stream, "enrolment": str(enrolment(layout, stream))}


def _write(path: Path, content: Mapping[str, Value]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(_table("", content)).lstrip("\n") + "\n", encoding="utf-8")
    fresh.replace(path)


def _table(name: str, content: Mapping[str, Value]) -> list[str]:
    """TOML lines; a JSON string is a TOML string, and so is a list of them."""
    plain = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
    lines = ["", f"[{name}]"] if name and plain else []
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for key, value in content.items():
        if isinstance(value, Mapping):
            lines += _table(f"{name}.{key}" if name else key, value)
    return lines
