"""``embassy provision``: what the streams need in databases and clusters, planned or made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import click
from rich.console import Console
from rich.progress import Progress as ProgressBar

from embassy.cli.options import Options, pass_options
from embassy.model.errors import RefusedError
from embassy.pg import progress_store, publication, replica_schema, slots, source_schema
from embassy.pg.connection import connect, place_of
from embassy.runtime.config import KafkaCluster, Settings, Stream
from embassy.wire.enrolment import load_enrolment
from embassy.wire.kafka_topics import SETTINGS, Topics

_APPLICATION = "embassy-provision"


class Step(NamedTuple):
    """One thing that is there or is to be made."""

    place: str
    what: str
    make: Callable[[], None] | None
    """None: it is there."""
    refresh: Callable[[], None] | None = None
    """Brings what is there up to date; changes nothing that counts."""


class _Wish(NamedTuple):
    producer_role: str
    replica_is_level: bool
    retention_hours: int


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
]


def _provisioning(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_options):
        command = option(command)
    return command


@click.group()
def provision() -> None:
    """Make what the streams need in databases and clusters.

    Works on what the configuration names: kafka.home and kafka.foreign (topics), streams.NAME.source (schema,
    publication, slot) and streams.NAME.replica (schema, guards, progress). Repeatable; it never drops anything.
    """


@provision.command()
@_provisioning
@pass_options
def plan(options: Options, producer_role: str, *, replica_is_level: bool, retention_hours: int) -> None:
    """Show what is missing; change nothing."""
    wish = _Wish(producer_role, replica_is_level, retention_hours)
    steps = [step for steps in _work(options, wish) for step in steps]
    _report(options, steps, done=False)


@provision.command()
@_provisioning
@pass_options
def apply(options: Options, producer_role: str, *, replica_is_level: bool, retention_hours: int) -> None:
    """Make what is missing."""
    wish = _Wish(producer_role, replica_is_level, retention_hours)
    taken: list[Step] = []
    console = Console(stderr=True)
    with ProgressBar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("provisioning", total=None)
        for steps in _work(options, wish):
            for step in steps:
                action = step.make or step.refresh
                if action is not None:
                    action()
                taken.append(step)
                bar.update(task, advance=1, description=step.place)
    _report(options, taken, done=True)


def _report(options: Options, steps: list[Step], *, done: bool) -> None:
    missing = [step for step in steps if step.make is not None]
    unchanged = len(steps) - len(missing)
    if options.as_json:
        items = [{"place": step.place, "what": step.what, "missing": step.make is not None} for step in steps]
        click.echo(json.dumps({"schema": 1, "applied": done, "steps": items}))
        return
    for step in missing:
        click.echo(f"+ {step.place}: {step.what}")
    click.echo(f"{'created' if done else 'to create'} {len(missing)}, unchanged {unchanged}")


def _work(options: Options, wish: _Wish) -> Iterator[Iterator[Step]]:
    settings = options.settings()
    streams = options.streams(settings)
    clusters = {"home": settings.kafka.home, "foreign": settings.kafka.foreign}
    for name, cluster in clusters.items():
        if cluster is not None:
            yield _topics(f"{name} Kafka", cluster, settings, streams, wish)
    for stream in streams.values():
        if stream.source is not None:
            yield _source(stream, wish)
    for stream in streams.values():
        if stream.replica is not None:
            yield _replica(options, settings, stream)


def _topics(
    place: str, cluster: KafkaCluster, settings: Settings, streams: dict[str, Stream], wish: _Wish
) -> Iterator[Step]:
    topics = Topics(cluster, _APPLICATION)
    present = topics.describe([stream.topic for stream in streams.values()])
    for stream in streams.values():
        found = present.get(stream.topic)
        if found is None:
            yield Step(
                place,
                f"topic {stream.topic}",
                partial(
                    topics.create,
                    stream.topic,
                    record_bytes=settings.producer.record_bytes,
                    retention_ms=wish.retention_hours * 3_600_000,
                ),
            )
            continue
        policy = found.settings.get("cleanup.policy")
        if found.partitions != 1 or policy != SETTINGS["cleanup.policy"]:
            raise RefusedError(
                f"the topic has {found.partitions} partitions and cleanup.policy={policy}",
                place=f"{place}: {stream.topic}",
                hint="a stream's topic has one partition and cleanup.policy=delete: it was made by something else",
            )
        yield Step(place, f"topic {stream.topic}", None)


def _source(stream: Stream, wish: _Wish) -> Iterator[Step]:
    assert stream.source is not None, "the caller has looked"
    name = stream.source.publication
    with connect(stream.source.dsn, application_name=_APPLICATION, autocommit=True) as connection:
        place = place_of(stream.source.dsn)
        ensured = source_schema.is_provisioned(connection)
        begun = ensured and source_schema.genesis_at(connection, bytes.fromhex(stream.stream)) is not None
        ensure = partial(source_schema.ensure, connection, producer_role=wish.producer_role)
        yield Step(place, "schema embassy", None if ensured else ensure, refresh=ensure)
        slot_there = slots.slot_exists(connection, stream.slot)
        if begun and not slot_there:
            raise RefusedError(
                f"the stream has begun, and its slot {stream.slot} is gone: what was committed since is not in it",
                place=place,
                hint="resync the stream under a new enrolment; a second slot is never made for one that has begun",
            )
        tables = publication.source_tables(connection, name)
        fresh = [table for table in tables if not table.published]
        filled = publication.holding_rows(connection, [table for table in fresh if table.schema != "embassy"])
        if filled and not wish.replica_is_level:
            raise RefusedError(
                f"tables hold rows that the stream does not: {', '.join(map(str, filled[:10]))}"
                + (f" and {len(filled) - 10} more" if len(filled) > 10 else ""),
                place=place,
                hint="load the same rows into the replica and pass --replica-is-level; nothing was changed",
            )
        for table in fresh:
            if not table.identifies_rows and not table.partitioned:
                yield Step(
                    place,
                    f"replica identity FULL of {table}",
                    partial(publication.identify_by_whole_row, connection, table),
                )
        if not publication.exists(connection, name):
            yield Step(place, f"publication {name}", lambda: publication.create(connection, name))
        else:
            yield Step(place, f"publication {name}", None)
        for table in tables:
            yield Step(
                place,
                f"table {table} in the publication",
                None if table.published else partial(publication.add, connection, name, [table]),
            )
        yield Step(
            place,
            f"slot {stream.slot}",
            None if slot_there else lambda: _drop(slots.create_slot(connection, stream.slot)),
        )


def _replica(options: Options, settings: Settings, stream: Stream) -> Iterator[Step]:
    assert stream.replica is not None, "the caller has looked"
    operators = options.need(settings.keys.operators, "keys.operators")
    enrolment = load_enrolment(
        stream.enrolment, operators=operators, threshold=settings.keys.threshold, stream=stream.stream
    )
    with connect(stream.replica.dsn, application_name=_APPLICATION, autocommit=True) as connection:
        place = place_of(stream.replica.dsn)
        there = replica_schema.is_provisioned(connection)
        ensure = partial(replica_schema.ensure, connection)
        yield Step(place, "schema embassy", None if there else ensure, refresh=ensure)
        for schema, table in replica_schema.unguarded(connection):
            yield Step(
                place,
                f"guard of {schema}.{table}",
                partial(replica_schema.guard, connection, schema, table),
            )
        for found in replica_schema.firing(connection):
            yield Step(
                place,
                f"{found.kind} {found.name} of {found.schema}.{found.table} disabled until promotion",
                partial(replica_schema.silence, connection, found),
            )
        enrolled = there and progress_store.read(connection, enrolment.stream) is not None
        yield Step(
            place,
            f"progress of stream {stream.stream}",
            None
            if enrolled
            else lambda: _drop(progress_store.enrol(connection, enrolment.stream, enrolment.genesis())),
        )


def _drop(_result: object) -> None:
    """A step returns nothing."""
