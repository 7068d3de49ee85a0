"""The configuration: one TOML file, parsed once into frozen values.

A role's file holds only the sections that the role needs; a command that misses one says which. Unknown
keys are errors, relative paths are relative to the file, and ``EMBASSY_<SECTION>__<KEY>`` in the
environment overrides a value (``EMBASSY_METRICS__LISTEN=127.0.0.1:9464``). Secrets are never values of
this file: it names key files.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from embassy.model.errors import ConfigurationError
from embassy.model.measures import MISSED_BEATS
from embassy.runtime.key_files import public_files, secret_files
from embassy.runtime.sections import Bounds, Form, InvalidSectionError, keys_of, read

MIB = 1 << 20


PUBLICATION = "embassy"
"""A source's publication, unless it names another."""
PREFIX = "EMBASSY_"
"""Of environment variables that override values."""

StreamId = Annotated[str, Form("[0-9a-f]{32}", "32 hexadecimal digits in small letters")]
Count = Annotated[int, Bounds(least=0)]
Number = Annotated[int, Bounds(least=1)]
Size = Annotated[int, Bounds(least=1024)]
Duration = Annotated[float, Bounds(above=0)]
Pause = Annotated[float, Bounds(least=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaCluster:
    """One Kafka cluster, reached with mutual TLS."""

    bootstrap: str
    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka:
    """The clusters of the two sites."""

    home: KafkaCluster | None = None
    foreign: KafkaCluster | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Key files; see docs/wire-format.md for their roles."""

    identity: Path | tuple[Path, ...] | None = None
    """The producer's secret signing identity. While it is being replaced: both, or a folder of them."""
    recipient: Path | tuple[Path, ...] | None = None
    """The consumer's secret recipient key. While it is being replaced: both, or a folder of them."""
    recipients: tuple[Path, ...] = ()
    """Public recipient keys for whom the producer wraps each data key; a folder stands for those in it."""
    operators: tuple[Path, ...] = ()
    """The operators' public keys: the roster that signs enrolments."""
    threshold: Number = 2
    """Distinct persons who must have signed an enrolment."""

    @staticmethod
    def named(paths: Path | tuple[Path, ...] | None) -> tuple[Path, ...]:
        """What one of the values names, as a list: files, and folders of them."""
        return (paths,) if isinstance(paths, Path) else paths or ()

    @property
    def identity_files(self) -> tuple[Path, ...]:
        """The producer's secret files."""
        return secret_files(self.named(self.identity))

    @property
    def recipient_files(self) -> tuple[Path, ...]:
        """The consumer's secret files."""
        return secret_files(self.named(self.recipient))

    @property
    def recipients_files(self) -> tuple[Path, ...]:
        """The public files of those for whom data keys are wrapped."""
        return public_files(self.recipients)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyd:
    """The process that holds the recipient keys: where it listens, and where a consumer without keys.recipient asks."""

    socket: Path
    users: tuple[str, ...] = ()
    """Who may ask, besides the user that keyd runs as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Where operators' actions are recorded."""

    file: Path = Path("audit.jsonl")
    """The audit log; made when first needed, its owner's alone. By default beside this file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Where /metrics, /livez and /readyz are served; port 0 picks a free one."""

    listen: str = "127.0.0.1:0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A stream's database at home."""

    dsn: str
    slot: str = ""
    publication: str = PUBLICATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A stream's replica in the embassy."""

    dsn: str
    apply_delay_seconds: Pause = 0
    """How old a commit must be before it is applied: for a second replica, to be kept behind on purpose."""


Reaction = Literal["allow", "freeze"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What in one transaction freezes the stream before it is applied, until two persons let it pass."""

    max_deletes_per_transaction: Count | None = None
    """Rows, of all the registry's tables together."""
    max_changed_share: Annotated[float, Bounds(above=0, most=1)] | None = None
    """Updated and deleted rows of one table, as a share of the rows that it had."""
    share_from_rows: Number = 1000
    """Fewer rows of a table are no reason, whatever their share."""
    truncate: Reaction = "allow"
    ddl: Reaction = "allow"
    """Statements that change the schema."""

    @property
    def any(self) -> bool:
        """Whether there is any threshold."""
        return (
            self.max_deletes_per_transaction is not None
            or self.max_changed_share is not None
            or "freeze" in (self.truncate, self.ddl)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One registry's stream. ``stream`` is its opaque identity: 16 bytes in hexadecimal."""

    stream: StreamId
    enrolment: Path
    source: Source | None = None
    replica: Replica | None = None
    superseded: Path | None = None
    """Coming home: the enrolment of the epoch that ended, to read what home shipped and no embassy took."""
    protection: Protection = Protection()
    rpo_seconds: Duration = 60

    @property
    def topic(self) -> str:
        """The stream's topic, in both clusters; it tells nothing about the registry."""
        return f"s-{self.stream}"

    @property
    def slot(self) -> str:
        """The stream's replication slot at the source."""
        return (self.source.slot if self.source else "") or f"embassy_{self.stream}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerTuning:
    """The producer's limits; the defaults suit any load."""

    batch_bytes: Size = 4 * MIB
    """Values gathered in a batch before it ships although the last one is unacknowledged."""
    record_bytes: Annotated[int, Bounds(least=4096)] = 900_000
    """A sealed record's limit; a larger batch is cut into parts. Keep below the topics' max.message.bytes."""
    inflight_bytes: Size = 32 * MIB
    """Sealed bytes sent and not yet acknowledged; beyond it the producer stops reading its slot."""
    rotate_seconds: Duration = 300
    """Age of a data key after which a new incarnation begins."""
    rotate_bytes: Size = 256 * MIB
    """Sealed bytes after which a new incarnation begins: a successor reads about as much to find where to go on."""
    backlog_bytes: Number = 16 * MIB
    """Log behind a producer that is late with small transactions, from which on it reads its slot by query."""
    decoding_bytes: Count = 512 * MIB
    """Memory that the streams on one source server may ask it for together, 256 MiB each at most, to decode large
    transactions in; a server whose logical_decoding_work_mem is more keeps its own."""
    heartbeat_seconds: Duration = 1
    """Between two beats of a stream's heart, while its registry commits."""
    idle_heartbeat_seconds: Duration = 5
    """Between two beats once nothing else was committed for five seconds; three always fit into the stream's rpo_seconds.
    An idle replica's RPO≤ grows to so much between two beats."""
    confirm_delay_seconds: Pause = 30
    """How long after the cluster's acknowledgement a position is confirmed to the slot. An acknowledgement is not
    an fsync: until the brokers' pages are on disk, the source must be able to send again."""
    copy_tables: Annotated[int, Bounds(least=1, most=16)] = 2
    """Tables that are copied at the same time."""
    copy_chunk_bytes: Size = 4 * MIB
    """About how much of a table is read at once; each chunk is one short transaction at the source."""
    release_seconds: Duration = 10
    """How long a server that shuts down is kept waiting for what the home cluster does not acknowledge."""

    def slowest_beat_seconds(self, rpo_seconds: float) -> float:
        """The longest time between two beats of a stream: for its heart, and for whoever judges the age of a beat.

        Slow beats never make a stream look older than it may be, unless the quick ones do too.
        """
        return max(self.heartbeat_seconds, min(self.idle_heartbeat_seconds, rpo_seconds / MISSED_BEATS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerTuning:
    """The consumer's limits; the defaults suit any load."""

    hold_seconds: Duration = 60
    """How long records that do not link may keep coming before the stream halts."""
    queue_bytes: Size = 16 * MIB
    """Sealed bytes fetched ahead of the applier, per stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What opening a replica to the registry's application means here."""

    application_roles: tuple[str, ...] = ()
    """Roles that may not log in while the site follows; promotion lets them in."""
    sequence_headroom: Count = 1000
    """How many increments beyond what is known sequences are set: what home may have handed out unseen."""
    drain_seconds: Duration = 60
    """How long nothing may be applied before draining counts as stuck."""
    reverse_role: str | None = None
    """The role that the reverse stream's producer connects as. If it is set, promotion makes what that stream needs, a
    slot above all, before anyone can write; nothing that is committed then can be missed on the way home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole file."""

    site: str
    """The name of this site in logs and metrics."""
    kafka: Kafka = Kafka()
    keys: Keys = Keys()
    keyd: Keyd | None = None
    audit: Audit = Audit()
    metrics: Metrics = Metrics()
    producer: ProducerTuning = ProducerTuning()
    consumer: ConsumerTuning = ConsumerTuning()
    promotion: Promotion = Promotion()
    streams: dict[str, Stream] = field(default_factory=dict)


def load(path: Path) -> Settings:
    """Read and check a configuration file.

    Raises:
        ConfigurationError: the file is missing, is not TOML, has an unknown key or a value out of range;
            the message names each key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the configuration: {error.strerror}",
            place=str(path),
            hint="pass the file with -c FILE",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"not valid TOML: {error}", place=str(path)) from error
    try:
        settings = read(Settings, overridden(values, os.environ), path.absolute().parent)
    except InvalidSectionError as error:
        raise ConfigurationError(
            str(error), place=str(path), hint="embassy config check -c FILE lists every key"
        ) from error
    seen: dict[str, str] = {}
    for name, stream in settings.streams.items():
        other = seen.setdefault(stream.stream, name)
        if other != name:
            raise ConfigurationError(
                f"streams {other!r} and {name!r} have the same identity",
                place=str(path),
                hint="each registry has a stream of its own: correct streams.NAME.stream",
            )
    return settings


def overridden(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The file's tables with what the environment says instead.

    ``EMBASSY_A__B`` is the value of key b in table a, whatever the case of its letters. An object in JSON is a table: it
    replaces what it names. A longer name counts more than a shorter one.

    Raises:
        ConfigurationError: a value begins like an object in JSON, and is none.
    """
    sections = keys_of(Settings)
    tables = dict(values)
    for name in sorted(environment, key=lambda name: name.count("__")):
        keys = name[len(PREFIX) :].lower().split("__")
        if name.upper().startswith(PREFIX) and keys[0] in sections:
            value = _table_or_text(name, environment[name])
            for key in reversed(keys):
                value = {key: value}
            tables = _merged(tables, value)
    return tables


def _table_or_text(name: str, text: str) -> Any:
    try:
        return json.loads(text) if text.startswith("{") else text
    except ValueError as error:
        raise ConfigurationError("not an object in JSON", place=name) from error


def _merged(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in over.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(before, value)
        else:
            merged[key] = value
    return merged
