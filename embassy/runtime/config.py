"""The configuration: one TOML file, parsed once into frozen values.

A role's file holds only the sections that the role needs; a command that misses one says which. Unknown
keys are errors, relative paths are relative to the file, and ``EMBASSY_<SECTION>__<KEY>`` in the
environment overrides a value (``EMBASSY_METRICS__LISTEN=127.0.0.1:9464``). Secrets are never values of
this file: it names key files.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from embassy.model.errors import ConfigurationError
from embassy.model.measures import MISSED_BEATS
from embassy.runtime.config_section import FilePath, Section, beside
from embassy.runtime.console_config import Console
from embassy.runtime.key_files import public_files, secret_files

MIB = 1 << 20
_IDLE_BEATS_A_SECOND = 10
"""Of all streams of a file together: each beat is a transaction that goes the whole way."""

StreamId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class KafkaCluster(Section):
    """One Kafka cluster, reached with mutual TLS."""

    bootstrap: str
    ca: FilePath
    certificate: FilePath
    key: FilePath


class Kafka(Section):
    """The clusters of the two sites."""

    home: KafkaCluster | None = None
    foreign: KafkaCluster | None = None


class Keys(Section):
    """Key files; see docs/wire-format.md for their roles."""

    identity: FilePath | tuple[FilePath, ...] | None = None
    """The producer's secret signing identity. While it is being replaced: both, or a folder of them."""
    recipient: FilePath | tuple[FilePath, ...] | None = None
    """The consumer's secret recipient key. While it is being replaced: both, or a folder of them."""
    recipients: tuple[FilePath, ...] = ()
    """Public recipient keys for whom the producer wraps each data key; a folder stands for those in it."""
    operators: tuple[FilePath, ...] = ()
    """The operators' public keys: the roster that signs enrolments."""
    threshold: int = Field(default=2, ge=1)
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


class Keyd(Section):
    """The process that holds the recipient keys: where it listens, and where a consumer without keys.recipient asks."""

    socket: FilePath
    users: tuple[str, ...] = ()
    """Who may ask, besides the user that keyd runs as."""


class Audit(Section):
    """Where operators' actions are recorded."""

    file: FilePath = Field(default=Path("audit.jsonl"), validate_default=True)
    """The audit log; made when first needed, its owner's alone. By default beside this file."""


class Metrics(Section):
    """Where /metrics, /livez and /readyz are served; port 0 picks a free one."""

    listen: str = "127.0.0.1:0"
    linger_seconds: float = Field(default=900, ge=0)
    """How long a service whose last stream has halted still tells of it before it ends, if no restart would help. Longer
    than the slowest alert takes that rests on what it tells (EmbassyPromotionStuck: ten minutes)."""


class Source(Section):
    """A stream's database at home."""

    dsn: str
    slot: str = ""
    publication: str = "embassy"


class Replica(Section):
    """A stream's replica in the embassy."""

    dsn: str
    apply_delay_seconds: float = Field(default=0, ge=0)
    """How old a commit must be before it is applied: for a second replica, to be kept behind on purpose."""


Reaction = Literal["allow", "freeze"]


class Protection(Section):
    """What in one transaction, or one chunk of a copy, freezes the stream before it is applied, until two let it pass."""

    max_deletes_per_transaction: int | None = Field(default=None, ge=0)
    """Rows, of all the registry's tables together; of a chunk, those that its table loses."""
    max_changed_share: float | None = Field(default=None, gt=0, le=1)
    """Updated and deleted rows of one table, as a share of the rows that it had."""
    share_from_rows: int = Field(default=1000, ge=1)
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


class Stream(Section):
    """One registry's stream. ``stream`` is its opaque identity: 16 bytes in hexadecimal."""

    stream: StreamId
    enrolment: FilePath
    source: Source | None = None
    replica: Replica | None = None
    superseded: FilePath | None = None
    """Coming home: the enrolment of the epoch that ended, to read what home shipped and no embassy took."""
    protection: Protection = Protection()
    rpo_seconds: float = Field(default=60, gt=0)

    @property
    def topic(self) -> str:
        """The stream's topic, in both clusters; it tells nothing about the registry."""
        return f"s-{self.stream}"

    @property
    def slot(self) -> str:
        """The stream's replication slot at the source."""
        return (self.source.slot if self.source else "") or f"embassy_{self.stream}"


class ProducerTuning(Section):
    """The producer's limits; the defaults suit any load."""

    batch_bytes: int = Field(default=4 * MIB, ge=1024)
    """Values gathered in a batch before it ships although the last one is unacknowledged."""
    record_bytes: int = Field(default=900_000, ge=4096)
    """A sealed record's limit; a larger batch is cut into parts. Keep below the topics' max.message.bytes."""
    inflight_bytes: int = Field(default=32 * MIB, ge=1024)
    """Sealed bytes sent and not yet acknowledged; beyond it the producer stops reading its slot."""
    rotate_seconds: float = Field(default=300, gt=0)
    """Age of a data key after which a new incarnation begins."""
    rotate_bytes: int = Field(default=256 * MIB, ge=1024)
    """Sealed bytes after which a new incarnation begins: a successor reads about as much to find where to go on."""
    backlog_bytes: int = Field(default=16 * MIB, ge=1)
    """Log behind a producer that is late with small transactions, from which on it reads its slot by query."""
    decoding_bytes: int = Field(default=512 * MIB, ge=0)
    """Memory that the streams on one source server may ask it for together, 256 MiB each at most, to decode large
    transactions in; a server whose logical_decoding_work_mem is more keeps its own."""
    heartbeat_seconds: float = Field(default=1, gt=0)
    """Between two beats of a stream's heart, while its registry commits."""
    idle_heartbeat_seconds: float = Field(default=5, gt=0)
    """Between two beats once nothing else was committed for five seconds; longer where a file has more than fifty streams
    (`Settings.slowest_beat_seconds`). An idle replica's RPO≤ grows to so much between two beats."""
    confirm_delay_seconds: float = Field(default=30, ge=0)
    """How long after the cluster's acknowledgement a position is confirmed to the slot. An acknowledgement is not
    an fsync: until the brokers' pages are on disk, the source must be able to send again."""
    copy_tables: int = Field(default=2, ge=1, le=16)
    """Tables that are copied at the same time."""
    copy_chunk_bytes: int = Field(default=4 * MIB, ge=1024)
    """About how much of a table is read at once; each chunk is one short transaction at the source."""
    release_seconds: float = Field(default=10, gt=0)
    """How long a server that shuts down is kept waiting for what the home cluster does not acknowledge."""


class ConsumerTuning(Section):
    """The consumer's limits; the defaults suit any load."""

    hold_seconds: float = Field(default=60, gt=0)
    """How long records that do not link may keep coming before the stream halts."""
    queue_bytes: int = Field(default=16 * MIB, ge=1024)
    """Sealed bytes fetched ahead of the applier, per stream."""


class Promotion(Section):
    """What opening a replica to the registry's application means here."""

    application_roles: tuple[str, ...] = ()
    """Roles that may not log in while the site follows; promotion lets them in."""
    sequence_headroom: int = Field(default=1000, ge=0)
    """How many increments beyond what is known sequences are set: what home may have handed out unseen."""
    drain_seconds: float = Field(default=60, gt=0)
    """How long nothing may be applied before draining counts as stuck."""
    reverse_role: str | None = None
    """The role that the reverse stream's producer connects as. If it is set, promotion makes what that stream needs, a
    slot above all, before anyone can write; nothing that is committed then can be missed on the way home."""


class Settings(BaseSettings):
    """The whole file."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="EMBASSY_", env_nested_delimiter="__"
    )

    site: str
    """The name of this site in logs and metrics."""
    kafka: Kafka = Kafka()
    keys: Keys = Keys()
    keyd: Keyd | None = None
    audit: Audit = Field(default_factory=Audit)
    metrics: Metrics = Metrics()
    console: Console = Console()
    producer: ProducerTuning = ProducerTuning()
    consumer: ConsumerTuning = ConsumerTuning()
    promotion: Promotion = Promotion()
    streams: dict[str, Stream] = {}

    def slowest_beat_seconds(self, stream: Stream) -> float:
        """The longest time between two beats of a stream: for its heart, and for whoever judges the age of a beat.

        However many streams there are, their idle hearts beat no more than ten times a second together, as long as three
        beats of each fit into its rpo_seconds.
        """
        tuning = self.producer
        idle = max(tuning.idle_heartbeat_seconds, len(self.streams) / _IDLE_BEATS_A_SECOND)
        return max(tuning.heartbeat_seconds, min(idle, stream.rpo_seconds / MISSED_BEATS))

    @model_validator(mode="after")
    def _streams_are_distinct(self) -> Self:
        seen: dict[str, str] = {}
        for name, stream in self.streams.items():
            other = seen.setdefault(stream.stream, name)
            if other != name:
                raise ValueError(f"streams {other!r} and {name!r} have the same identity")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment overrides the file, and nothing else counts."""
        return env_settings, init_settings


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
        with beside(path):
            return Settings(**values)
    except ValidationError as error:
        raise ConfigurationError(
            "; ".join(_complaint(entry["loc"], entry["type"], entry["msg"]) for entry in error.errors()),
            place=str(path),
            hint="embassy config check -c FILE lists every key",
        ) from error
    except SettingsError as error:
        raise ConfigurationError(
            f"a variable of the environment is not JSON: {error}",
            place="the environment",
            hint="a whole table, EMBASSY_PRODUCER say, is an object in JSON; one key is EMBASSY_PRODUCER__BATCH_BYTES",
        ) from error


def _complaint(location: tuple[int | str, ...], kind: str, message: str) -> str:
    key = ".".join(map(str, location)) or "the file"
    if kind != "extra_forbidden":
        return f"{key}: {message}"
    known = _known_keys(location[:-1])
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"{key}: unknown key" + (f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}")


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:  # the name of a stream: streams is a table of tables
            continue
        candidates = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
        model = next((a for a in candidates if issubclass(a, BaseModel)), model)
    return sorted(model.model_fields)
