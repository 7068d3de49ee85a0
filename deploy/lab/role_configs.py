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

_METRICS: Value = {"linger_seconds": 0}
"""A service whose streams have all halted ends at once: who works with the lab waits for that."""

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


def reverse_producer_config(layout: Layout, embassy: str) -> Path:
    """Where the configuration of a promoted embassy's producer is."""
    return layout.config / f"{embassy}-producer.toml"


def reverse_bridge_config(layout: Layout, embassy: str) -> Path:
    """Where the configuration of the bridge from an embassy home is."""
    return layout.config / f"bridge-{embassy}-home.toml"


def reverse_consumer_config(layout: Layout, embassy: str) -> Path:
    """Where the configuration of home's consumer is, for what an embassy sends."""
    return layout.config / f"home-consumer-{embassy}.toml"


def source_admin_config(layout: Layout, embassy: str) -> Path:
    """Where the configuration of a promoted embassy's administrator is: its databases are sources."""
    return layout.config / f"{embassy}-source-admin.toml"


def replica_admin_config(layout: Layout, embassy: str) -> Path:
    """Where the configuration of home's administrator is while its databases are an embassy's replicas."""
    return layout.config / f"home-replica-{embassy}-admin.toml"


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
        _write_reverse(layout, state, home, embassy)


def _write_reverse(layout: Layout, state: LabState, home: Site, embassy: Site) -> None:
    """The same roles with the sites changed about: from an embassy home."""
    name = embassy.name
    source = {"dsn": embassy.postgres.dsn(databases.PRODUCER, "{}")}
    admin_source = {"dsn": embassy.postgres.dsn(databases.ADMIN, "{}")}
    admin_replica = {"dsn": home.postgres.dsn(databases.ADMIN, "{}")}
    own_key = {"identity": str(embassy_identity(layout, name))}
    home_keys = {"identity": str(next_identity(layout)), "recipient": str(recipient(layout, HOME))}
    contents: dict[Path, dict[str, Value]] = {
        reverse_producer_config(layout, name): {
            "site": name,
            "metrics": _METRICS,
            "kafka": {"home": _kafka(embassy, "producer")},
            "keys": {**own_key, "recipients": [str(public(recipient(layout, HOME)))], **_operators(layout)},
            "streams": _reverse_streams(layout, state, name, {"source": source}),
        },
        reverse_bridge_config(layout, name): {
            "site": HOME,
            "metrics": _METRICS,
            "kafka": {"home": _kafka(embassy, "bridge"), "foreign": _kafka(home, "bridge")},
            "keys": _operators(layout),
            "streams": {
                registry.stream: _stream(layout, registry.stream, name) for registry in state.registries.values()
            },
        },
        reverse_consumer_config(layout, name): {
            "site": HOME,
            "metrics": _METRICS,
            "kafka": {"foreign": _kafka(home, "consumer")},
            "keys": {"recipient": str(recipient(layout, HOME)), **_operators(layout)},
            "streams": _reverse_streams(
                layout, state, name, {"replica": {"dsn": home.postgres.dsn(databases.CONSUMER, "{}")}}
            ),
        },
        source_admin_config(layout, name): {
            "site": name,
            "kafka": {"home": _kafka(embassy, "admin")},
            "keys": {**own_key, **_operators(layout)},
            "promotion": _promotion(),
            "streams": _reverse_streams(layout, state, name, {"source": admin_source}),
        },
        replica_admin_config(layout, name): {
            "site": HOME,
            "kafka": {"foreign": _kafka(home, "admin")},
            "keys": {**home_keys, **_operators(layout)},
            "promotion": _promotion(),
            "streams": _reverse_streams(
                layout, state, name, {"replica": admin_replica, "source": admin_source}, superseded=True
            ),
        },
    }
    for path, content in contents.items():
        _write(path, content)


def _reverse_streams(
    layout: Layout,
    state: LabState,
    embassy: str,
    ends: Mapping[str, Mapping[str, str]],
    *,
    superseded: bool = False,
) -> dict[str, Value]:
    return {
        name: {
            **_stream(layout, registry.stream, embassy),
            **({"superseded": str(enrolment(layout, registry.stream))} if superseded else {}),
            **{end: {"dsn": value["dsn"].replace("{}", name)} for end, value in ends.items()},
        }
        for name, registry in state.registries.items()
    }


def _promotion() -> dict[str, Value]:
    return {"application_roles": [databases.OWNER], "reverse_role": databases.PRODUCER}


def enrolment(layout: Layout, stream: str) -> Path:
    """Where a stream's enrolment is: that of the epoch that home writes."""
    return layout.keys / "enrolments" / f"{stream}.json"


def reverse_enrolment(layout: Layout, stream: str, embassy: str) -> Path:
    """Where the enrolment is by which an embassy writes a stream once it was promoted, signed beforehand."""
    return layout.keys / "enrolments" / f"{stream}.{embassy}.json"


def next_enrolment(layout: Layout, stream: str) -> Path:
    """Where the enrolment is by which home writes again, promoted in its turn; it takes the first one's place."""
    return layout.keys / "enrolments" / "next" / f"{stream}.json"


def identity(layout: Layout) -> Path:
    """Where the home producer's secret identity is."""
    return layout.keys / "home.identity.json"


def next_identity(layout: Layout) -> Path:
    """Where the identity is that home writes with after its return: one that no captor of the first can have."""
    return layout.keys / "home-next.identity.json"


def recipient(layout: Layout, site: str) -> Path:
    """Where a site's secret recipient key is."""
    return layout.keys / f"{site}.recipient.json"


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
        "metrics": _METRICS,
        "kafka": {"home": _kafka(home, "producer")},
        "keys": {
            "identity": [str(identity(layout)), str(next_identity(layout))],
            # home's own key too: by it home can read its topic, should it ever have shipped what no embassy took
            "recipients": [str(public(recipient(layout, site))) for site in (HOME, *state.embassies)],
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
        "metrics": _METRICS,
        "kafka": {"home": _kafka(home, "bridge"), "foreign": _kafka(embassy, "bridge")},
        "keys": _operators(layout),
        "streams": {registry.stream: _stream(layout, registry.stream) for registry in state.registries.values()},
    }


def _consumer(layout: Layout, state: LabState, embassy: Site) -> dict[str, Value]:
    return {
        "site": embassy.name,
        "metrics": _METRICS,
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
    # The recipient's key: in an embassy to apply what has arrived where no consumer runs; at home to open its own topic,
    # if home has shipped what no embassy took.
    own: dict[str, Value] = {"recipient": str(recipient(layout, site.name))}
    if not site.is_home:
        own["identity"] = str(embassy_identity(layout, site.name))  # signs the report of a promotion
    return {
        "site": site.name,
        "kafka": {cluster: _kafka(site, "admin")},
        "keys": {**own, **_operators(layout)},
        "promotion": _promotion(),
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


def _stream(layout: Layout, stream: str, embassy: str = "") -> dict[str, Value]:
    path = reverse_enrolment(layout, stream, embassy) if embassy else enrolment(layout, stream)
    return {"stream": stream, "enrolment": str(path)}


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
