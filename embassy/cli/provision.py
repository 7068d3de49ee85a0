"""``embassy provision``: what the streams need in databases and clusters, planned or made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.progress import Progress as ProgressBar

from embassy.cli.auditing import audited
from embassy.cli.options import Options, pass_options
from embassy.cli.provision_schema import schema, schema_of
from embassy.model.errors import EmbassyError
from embassy.model.schema_file import SchemaFile
from embassy.model.step import Step
from embassy.pg.connection import place_of
from embassy.pg.replica_setup import ReplicaWish, replica_steps
from embassy.pg.setup_errors import explained
from embassy.pg.source_setup import SourceWish, source_steps
from embassy.runtime.audit_line import JSON
from embassy.runtime.config import Settings, Stream
from embassy.runtime.exit_codes import ExitCode, exit_code, worst
from embassy.wire.enrolment import load_enrolment
from embassy.wire.kafka_topics import TopicWish, topic_steps

_SCHEMA = "embassy.provision/1"


class _Wish(NamedTuple):
    producer_role: str
    replica_is_level: bool
    retention_hours: int
    schema: Path | None


class _Part(NamedTuple):
    """A database or a cluster: when something is refused there, the others go on."""

    steps: Callable[[], Iterator[Step]]
    guarded: AbstractContextManager[None]


class _Outcome(NamedTuple):
    steps: list[Step]
    errors: list[EmbassyError]


_options = [
    click.option(
        "--producer-role",
        default="embassy_producer",
        show_default=True,
        help="The role that the producer connects as; it must exist.",
    ),
    click.option(
        "--replica-is-level",
        is_flag=True,
        help="Assert that the replica holds the same rows as the source's tables do now.",
    ),
    click.option(
        "--retention-hours",
        type=click.IntRange(1),
        default=168,
        show_default=True,
        help="How long topics keep records: at least twice the longest outage to survive.",
    ),
    click.option(
        "--schema",
        type=click.Path(exists=True, path_type=Path),
        help="What a replica without tables is made from: the file of embassy provision schema, or the folder of "
        "several streams' files. Not needed where the configuration names source and replica of a stream.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
]


def _provisioning(command: Callable[..., ExitCode]) -> Callable[..., ExitCode]:
    for option in reversed(_options):
        command = option(command)
    return command


@click.group()
def provision() -> None:
    """Make what the streams need in databases and clusters.

    Works on what the configuration names: kafka.home and kafka.foreign (topics), streams.NAME.source (schema,
    publication, slot) and streams.NAME.replica (the source's schema, guards, progress). Repeatable; it never drops
    anything.

    \b
    embassy -c home-admin.toml provision plan
    embassy -c home-admin.toml provision apply
    embassy -c home-admin.toml provision schema -o schema/
    embassy -c embassy-1-admin.toml provision apply --schema schema/
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


provision.add_command(schema)


@provision.command()
@_provisioning
@pass_options
def plan(
    options: Options,
    producer_role: str,
    *,
    replica_is_level: bool,
    retention_hours: int,
    schema: Path | None,
    as_json: bool,
) -> ExitCode:
    """Show what is missing; change nothing."""
    parts = _parts(options, _Wish(producer_role, replica_is_level, retention_hours, schema))
    return _report(_work(parts, lambda _step: None), as_json=as_json or options.as_json, done=False)


@provision.command()
@_provisioning
@pass_options
def apply(
    options: Options,
    producer_role: str,
    *,
    replica_is_level: bool,
    retention_hours: int,
    schema: Path | None,
    as_json: bool,
) -> ExitCode:
    """Make what is missing.

    Tables that hold rows already are copied by the producer, while home writes on. If the replica holds the same rows
    (pg_dump), keep writers out meanwhile, and pass --replica-is-level: nothing is copied. Tables that were added since
    are published by applying again.
    """
    parts = _parts(options, _Wish(producer_role, replica_is_level, retention_hours, schema))
    console = Console(stderr=True)
    details: dict[str, JSON] = {
        "streams": list(options.streams(options.settings())),
        "producer_role": producer_role,
        "replica_is_level": replica_is_level,
        "retention_hours": retention_hours,
    }
    with (
        audited(options, "provision.apply", details) as under_way,
        ProgressBar(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("provisioning", total=None)

        def take(step: Step) -> None:
            bar.update(task, advance=1, description=f"{step.place}: {step.what}")
            step.take()

        outcome = _work(parts, take)
        under_way.note(
            created=sum(step.make is not None for step in outcome.steps),
            errors=[str(error.args[0]) for error in outcome.errors],
        )
        under_way.ended(worst(frozenset(map(exit_code, outcome.errors))))
    return _report(outcome, as_json=as_json or options.as_json, done=True)


def _parts(options: Options, wish: _Wish) -> list[_Part]:
    settings = options.settings()
    streams = options.streams(settings)
    names = [stream.topic for stream in streams.values()]
    topic = TopicWish(settings.producer.record_bytes, wish.retention_hours)
    parts = [
        _Part(partial(topic_steps, site, cluster, names, topic), nullcontext())
        for site, cluster in (("home", settings.kafka.home), ("foreign", settings.kafka.foreign))
        if cluster is not None
    ]
    for stream in streams.values():
        if stream.source is not None:
            source = SourceWish(
                stream.source.dsn,
                bytes.fromhex(stream.stream),
                stream.slot,
                stream.source.publication,
                wish.producer_role,
                wish.replica_is_level,
            )
            parts.append(_Part(partial(source_steps, source), explained(place_of(source.dsn))))
    for name, stream in streams.items():
        if stream.replica is not None:
            place = place_of(stream.replica.dsn)
            schema = schema_of(name, stream, wish.schema)
            parts.append(_Part(partial(_replica, options, settings, stream, schema), explained(place)))
    return parts


def _replica(
    options: Options, settings: Settings, stream: Stream, schema: Callable[[], SchemaFile] | None
) -> Iterator[Step]:
    replica = options.need(stream.replica, "replica")
    enrolment = load_enrolment(
        stream.enrolment,
        operators=options.need(settings.keys.operators, "keys.operators"),
        threshold=settings.keys.threshold,
        stream=stream.stream,
    )
    return replica_steps(ReplicaWish(replica.dsn, enrolment.stream, enrolment.genesis(), schema))


def _work(parts: list[_Part], take: Callable[[Step], None]) -> _Outcome:
    outcome = _Outcome([], [])
    for part in parts:
        try:
            with part.guarded:
                for step in part.steps():
                    take(step)
                    outcome.steps.append(step)
        except EmbassyError as error:
            outcome.errors.append(error)
    return outcome


def _report(outcome: _Outcome, *, as_json: bool, done: bool) -> ExitCode:
    missing = [step for step in outcome.steps if step.make is not None]
    unchanged = len(outcome.steps) - len(missing)
    if as_json:
        report = {
            "schema": _SCHEMA,
            "applied": done,
            "created" if done else "to_create": len(missing),
            "unchanged": unchanged,
            "steps": [
                {
                    "place": step.place,
                    "what": step.what,
                    "missing": step.make is not None,
                    "warning": step.warning,
                }
                for step in outcome.steps
            ],
            "errors": [
                {"place": error.place, "error": error.args[0], "hint": error.hint} for error in outcome.errors
            ],
        }
        click.echo(json.dumps(report, indent=2))
    else:
        for step in missing:
            click.echo(f"+ {step.place}: {step.what}")
        for step in outcome.steps:
            if step.warning:
                click.echo(f"! {step.place}: {step.warning}")
        click.echo(f"{'created' if done else 'to create'} {len(missing)}, unchanged {unchanged}")
    for error in outcome.errors:
        click.echo(f"error: {error}", err=True)
    return worst(frozenset(map(exit_code, outcome.errors)))
