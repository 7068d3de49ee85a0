"""``embassy events``: the records of topics, by their metadata. Nothing is decrypted."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain

import click

from embassy.cli.options import Options, pass_options
from embassy.cli.stream_options import stream_options
from embassy.cli.topic_view import Event, TopicView
from embassy.model.errors import ConfigurationError, IntegrityError, TransientError
from embassy.model.record import RecordKind, SealedRecord
from embassy.model.wording import iso
from embassy.runtime.config import KafkaCluster
from embassy.runtime.exit_codes import ExitCode
from embassy.wire.enrolment import load_enrolment
from embassy.wire.key_record import decode_key_body

_FOLLOW_SECONDS = 0.5
_RETRY_SECONDS = 2.0
_LINE = (
    "{at} {registry} {offset:>8} {kind:<4} {sequence:>8} {epoch:>3} {incarnation:<8} {part:<6} {resume:<14} {bytes:>9} "
    "{standing}"
)
_TITLES = {
    "at": "APPENDED                ",
    "registry": "REGISTRY",
    "offset": "OFFSET",
    "kind": "KIND",
    "sequence": "SEQ",
    "epoch": "EP",
    "incarnation": "INCARN",
    "part": "PART",
    "resume": "RESUME-LSN",
    "bytes": "BYTES",
    "standing": "COUNTS",
}

_cluster_option = click.option(
    "--cluster",
    type=click.Choice(["home", "foreign"]),
    help="Whose topic; default: the one that is configured, of two the embassy's.",
)


@click.group()
def events() -> None:
    """Look at the records of topics, by their metadata; nothing is decrypted.

    COUNTS says what a reader of the stream makes of a record:

    \b
    yes         it is part of the chain, proven back to a data key that was taken into use
    links       it continues the record before it; what was read does not prove more
    no: ...     unsigned (not by the enrolled producer), stray (it does not name the head: a fenced producer's last
                words, a lost race), repeated (a copy), malformed (no record at all)
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


@events.command()
@click.option("-n", "--last", type=click.IntRange(0), default=20, show_default=True, help="The last N records.")
@click.option("--from-start", is_flag=True, help="All that the topic holds.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@_cluster_option
@pass_options
@stream_options
def tail(options: Options, last: int, *, from_start: bool, follow: bool, cluster: str | None) -> ExitCode:
    """Show the last records of each stream's topic.

    With --json, one object a line.

    \b
    embassy -c consumer.toml -r land_register events tail --follow
    embassy -c bridge.toml events tail --from-start --json | jq 'select(.counts == false)'
    """  # noqa: D301
    with _views(options, cluster) as views:
        width = max(len(view.registry) for view in views)
        if not options.as_json:
            click.echo(_LINE.format(**{**_TITLES, "registry": "REGISTRY".ljust(width)}))
        found: Iterator[Event] = chain.from_iterable(
            view.first() if from_start else view.last(last) for view in views
        )
        if not from_start and len(views) > 1:
            found = iter(sorted(found, key=lambda event: event.entry.timestamp_ms))
        for event in found:
            _tell(event, options, width)
        if follow:
            sys.stdout.flush()
            _follow(views, options, width)
    return ExitCode.OK


@events.command()
@click.argument("offset", type=click.IntRange(0))
@_cluster_option
@pass_options
@stream_options
def inspect(options: Options, offset: int, cluster: str | None) -> ExitCode:
    """Show one record's header, whose it is, and whether it counts.

    Exit code 9 if it is no record, or not of the enrolled producer.

    \b
    embassy -c consumer.toml events inspect 1204 -r land_register
    """  # noqa: D301
    with _views(options, cluster) as views:
        if len(views) != 1:
            known = ", ".join(view.registry for view in views)
            raise ConfigurationError("several streams are configured", hint=f"name one with -r: {known}")
        view = views[0]
        low, high = view.bounds()
        if not low <= offset < high:
            held = f"it holds {low} to {high - 1}" if low < high else "it is empty"
            raise ConfigurationError(f"the topic has no record at offset {offset}: {held}", place=view.topic)
        event, record = view.at(offset)
    report = event.as_json() | (_key_body(record) if record is not None else {})
    if options.as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        for key, value in report.items():
            if key != "schema":
                click.echo(f"{key:<18} {value if isinstance(value, str) else json.dumps(value)}")
    return ExitCode.OK if event.entry.signed else ExitCode.INTEGRITY


@contextmanager
def _views(options: Options, cluster: str | None) -> Iterator[list[TopicView]]:
    settings = options.settings()
    streams = options.streams(settings)
    chosen = _cluster(options, cluster)
    operators = options.need(settings.keys.operators, "keys.operators")
    with ExitStack() as closing:
        views = []
        for name, stream in streams.items():
            enrolment = load_enrolment(
                stream.enrolment, operators=operators, threshold=settings.keys.threshold, stream=stream.stream
            )
            views.append(closing.enter_context(TopicView(name, stream.topic, chosen, enrolment)))
        yield views


def _cluster(options: Options, name: str | None) -> KafkaCluster:
    kafka = options.settings().kafka
    if name == "home":
        return options.need(kafka.home, "kafka.home")
    if name == "foreign":
        return options.need(kafka.foreign, "kafka.foreign")
    return options.need(kafka.foreign or kafka.home, "kafka.foreign or kafka.home")


def _follow(views: list[TopicView], options: Options, width: int) -> None:
    """Until interrupted; a cluster that is away is waited for."""
    pause = threading.Event()
    while True:
        try:
            for view in views:
                for event in view.more():
                    _tell(event, options, width)
            sys.stdout.flush()
            pause.wait(_FOLLOW_SECONDS)
        except TransientError as error:
            click.echo(f"waiting: {error}", err=True)
            pause.wait(_RETRY_SECONDS)


def _tell(event: Event, options: Options, width: int) -> None:
    if options.as_json:
        click.echo(json.dumps(event.as_json()))
        return
    entry = event.entry
    header = entry.record.header if entry.record is not None else None
    click.echo(
        _LINE.format(
            at=iso(entry.timestamp_ms / 1000),
            registry=event.registry.ljust(width),
            offset=entry.offset,
            kind=header.kind.name if header else "-",
            sequence=header.sequence if header else "-",
            epoch=header.epoch if header else "-",
            incarnation=header.incarnation.hex()[:8] if header else "-",
            part=f"{header.part}{'' if header.last else '…'}" if header else "-",
            resume=str(header.resume_lsn) if header else "-",
            bytes=entry.value_bytes,
            standing=_standing(event),
        )
    )


def _standing(event: Event) -> str:
    if event.counts:
        return "yes"
    mark = event.entry.mark.value
    return f"no: {mark}" if event.counts is False else mark


def _key_body(record: SealedRecord) -> dict[str, object]:
    """What a KEY record says in clear: it names the source, and for whom the data key is wrapped."""
    if record.header.kind is not RecordKind.KEY:
        return {}
    try:
        body = decode_key_body(record.body)
    except IntegrityError as error:
        return {"key_body": str(error.args[0])}
    return {
        "system_identifier": body.system_identifier,
        "timeline": body.timeline,
        "suite": body.suite,
        "recipients": [wrap.recipient.hex() for wrap in body.wraps],
    }
