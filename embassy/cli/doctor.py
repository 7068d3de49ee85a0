"""``embassy doctor``: what is wrong, where, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.text import Text

from embassy.cli.key_checks import key_remarks
from embassy.cli.options import Options, pass_options
from embassy.model.diagnosis import CHECKS, Level, Remark, worst_level
from embassy.model.errors import ConfigurationError, EmbassyError, TransientError
from embassy.model.record import Head
from embassy.pg.connection import place_of
from embassy.pg.replica_checks import ReplicaSubject, replica_remarks
from embassy.pg.setup_errors import explained
from embassy.pg.source_checks import SourceSubject, source_remarks
from embassy.runtime.config import Settings, Stream
from embassy.runtime.exit_codes import ExitCode
from embassy.wire.enrolment import load_enrolment
from embassy.wire.kafka_checks import ClusterSubject, cluster_remarks

_SCHEMA = "embassy.doctor/1"
_AT_ONCE = 4
_SECTIONS = ("home", "kafka", "embassy", "keys")
_STYLES = {Level.OK: "green", Level.UNSEEN: "dim", Level.WARN: "yellow", Level.FAIL: "bold red"}


class _Place(NamedTuple):
    """A database, a cluster, or the files: examined by itself, whatever the others say."""

    name: str
    code: str
    """Of the remark if it cannot be examined at all."""
    examine: Callable[[], Iterator[Remark]]


class _Wish(NamedTuple):
    producer_role: str
    consumer_role: str
    outage_hours: float


class _Found(NamedTuple):
    remarks: list[Remark]
    unreachable: bool


@click.command()
@click.argument("sections", nargs=-1, type=click.Choice(_SECTIONS), metavar="[home|kafka|embassy|keys]...")
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--all", "-a", "show_all", is_flag=True, help="Also show what is well.")
@click.option("--list", "list_checks", is_flag=True, help="Show every check with its code, and examine nothing.")
@click.option(
    "--producer-role", default="embassy_producer", show_default=True, help="The producer's role at home."
)
@click.option("--consumer-role", default="embassy_consumer", show_default=True, help="The consumer's role abroad.")
@click.option(
    "--outage-hours",
    type=click.FloatRange(min=0, min_open=True),
    default=24.0,
    show_default=True,
    help="The longest outage to survive.",
)
@pass_options
def doctor(
    options: Options,
    sections: Sequence[str],
    producer_role: str,
    consumer_role: str,
    outage_hours: float,
    *,
    strict: bool,
    as_json: bool,
    show_all: bool,
    list_checks: bool,
) -> ExitCode:
    """Examine databases, clusters and keys, and say what to change.

    Examines what the configuration names: the sources (home), the clusters (kafka), the replicas (embassy) and the
    key files and certificates (keys), or only the sections given. Changes nothing. A service's configuration is
    examined as that service: with its role and its certificates.

    \b
    embassy -c home-admin.toml doctor
    embassy -c producer.toml doctor home keys --strict
    embassy doctor --list
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    if list_checks:
        for code, text in CHECKS.items():
            click.echo(f"{code}  {text}")
        return ExitCode.OK
    places = _places(options, frozenset(sections or _SECTIONS), _Wish(producer_role, consumer_role, outage_hours))
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="doctor") as pool:
        found = list(pool.map(_examined, places))
    remarks = [remark for one in found for remark in one.remarks]
    _report(remarks, as_json=as_json or options.as_json, show_all=show_all)
    if worst_level(remark for one in found if not one.unreachable for remark in one.remarks) >= (
        Level.WARN if strict else Level.FAIL
    ):
        return ExitCode.CHECK_FAILED
    return ExitCode.UNREACHABLE if any(one.unreachable for one in found) else ExitCode.OK


def _places(options: Options, sections: frozenset[str], wish: _Wish) -> list[_Place]:
    settings = options.settings()
    streams = options.streams(settings)
    config = Path(options.place)
    places: list[_Place] = []
    if "keys" in sections:
        places.append(_Place("keys", "KY01", partial(key_remarks, settings, streams, config)))
    if "kafka" in sections:
        places += _clusters(settings, streams, wish)
    for name, stream in streams.items():
        if "home" in sections and stream.source is not None:
            source = SourceSubject(
                stream.source.dsn,
                bytes.fromhex(stream.stream),
                stream.slot,
                stream.source.publication,
                "" if settings.keys.identity is not None else wish.producer_role,
            )
            places.append(_database(f"streams.{name}.source", "PG01", source.dsn, partial(source_remarks, source)))
        if "embassy" in sections and stream.replica is not None:
            replica = ReplicaSubject(
                stream.replica.dsn,
                bytes.fromhex(stream.stream),
                _genesis(settings, stream),
                "" if settings.keys.recipient is not None else wish.consumer_role,
            )
            places.append(
                _database(f"streams.{name}.replica", "RP01", replica.dsn, partial(replica_remarks, replica))
            )
    if not places:
        raise ConfigurationError(
            f"the configuration names nothing of {', '.join(sorted(sections))}",
            place=options.place,
            hint="leave the section out to examine all that it names",
        )
    return places


def _clusters(settings: Settings, streams: dict[str, Stream], wish: _Wish) -> list[_Place]:
    places = []
    for site, cluster in (("home", settings.kafka.home), ("foreign", settings.kafka.foreign)):
        if cluster is not None:
            subject = ClusterSubject(
                site,
                cluster,
                tuple(stream.topic for stream in streams.values()),
                settings.producer.record_bytes,
                wish.outage_hours,
            )
            places.append(_Place(f"{site} Kafka", "KA01", partial(cluster_remarks, subject)))
    return places


def _database(key: str, code: str, dsn: str, remarks: Callable[[], Iterator[Remark]]) -> _Place:
    def examine() -> Iterator[Remark]:
        with explained(place_of(dsn)):
            yield from remarks()

    return _Place(key, code, examine)


def _genesis(settings: Settings, stream: Stream) -> Head | None:
    try:
        return load_enrolment(
            stream.enrolment,
            operators=settings.keys.operators,
            threshold=settings.keys.threshold,
            stream=stream.stream,
        ).genesis()
    except EmbassyError:
        return None


def _examined(place: _Place) -> _Found:
    remarks: list[Remark] = []
    try:
        remarks += place.examine()
    except EmbassyError as error:
        text = str(error.args[0])
        remarks.append(Remark(place.code, Level.FAIL, error.place or place.name, text, error.hint))
        return _Found(remarks, unreachable=isinstance(error, TransientError))
    return _Found(remarks, unreachable=False)


def _report(remarks: list[Remark], *, as_json: bool, show_all: bool) -> None:
    counts = {level.name.lower(): sum(remark.level is level for remark in remarks) for level in Level}
    if as_json:
        listed = [
            {
                "code": remark.code,
                "level": remark.level.name.lower(),
                "place": remark.place,
                "text": remark.text,
                "fix": remark.fix,
            }
            for remark in remarks
        ]
        click.echo(json.dumps({"schema": _SCHEMA, **counts, "remarks": listed}, indent=2, ensure_ascii=False))
        return
    console = Console(soft_wrap=True, highlight=False)
    for remark in _grouped(remarks):
        if show_all or remark.level > Level.UNSEEN:
            line = str(remark)
            console.print(Text(line[:6], style=_STYLES[remark.level]) + Text(line[6:]))
    console.print(
        Text(f"{counts['fail']} fail, {counts['warn']} warn, {counts['ok']} ok, {counts['unseen']} unseen")
    )


def _grouped(remarks: list[Remark]) -> Iterator[Remark]:
    """The same said of many places, said once."""
    places: dict[Remark, list[str]] = {}
    for remark in remarks:
        places.setdefault(remark._replace(place=""), []).append(remark.place)
    for remark, found in places.items():
        rest = f" and {len(found) - 1} more" if len(found) > 1 else ""
        yield remark._replace(place=found[0] + rest)
