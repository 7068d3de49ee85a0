"""``embassy resync``: a table's rows anew, while everything goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from embassy.cli.auditing import audited
from embassy.cli.options import Options, pass_options
from embassy.cli.stream_options import stream_options
from embassy.model.errors import ConfigurationError, TransientError
from embassy.pg import table_copies
from embassy.pg.connection import connect, place_of
from embassy.pg.setup_errors import explained
from embassy.pg.table_copies import CopyState
from embassy.runtime.exit_codes import ExitCode

_SCHEMA = "embassy.resync/1"
_APPLICATION = "embassy-resync"
_POLL_SECONDS = 0.5
_LINE_SECONDS = 5.0
_MIB = 1 << 20


@click.command()
@click.argument("table", required=False)
@click.option("--all", "every", is_flag=True, help="Every table of the registry, in the place of TABLE.")
@click.option("--reason", required=True, help="Why; it is kept with the copy, and in the audit log.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the rows are in home's Kafka.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Wait no longer: exit 3; the copy goes on.",
)
@pass_options
@stream_options
def resync(
    options: Options, table: str | None, *, every: bool, reason: str, wait: bool, timeout: float | None
) -> ExitCode:
    """Copy the rows of TABLE anew from the source, through the stream.

    The table stays readable in the replica, and the stream goes on; status says snapshotting until the last row is
    there. What was interrupted goes on where it was. TABLE is a name as SQL writes it; a partitioned table means all
    of its partitions. A table without a key is read in one piece: until that is done, DDL on it waits at home.

    With a configuration that names streams.NAME.source it asks for the copy and shows how far it is. With one that names
    streams.NAME.replica it tells the replica that one will come: a stream that has halted because a row of the table
    is missing goes on to it. A halted stream needs both, at home and in the embassy, and its consumer started again.

    \b
    embassy -c home-admin.toml -r land_register resync public.deed --reason 'ticket 4711'
    embassy -c embassy-1-admin.toml -r land_register resync public.deed --reason 'ticket 4711'
    embassy -c home-replica-admin.toml -r land_register resync --all --no-wait --reason 'home is made anew'
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    if every == (table is not None):
        raise click.UsageError("name a TABLE, or pass --all")
    streams = options.streams(options.settings())
    if len(streams) != 1:
        raise click.UsageError(f"name one stream: -r {' | '.join(streams)}")
    ((name, stream),) = streams.items()
    details = {"registry": name, "stream": stream.stream, "table": table or "all", "reason": reason}
    with audited(options, "resync", details) as under_way:
        if stream.source is None and stream.replica is None:
            raise ConfigurationError(
                f"streams.{name} names neither source.dsn nor replica.dsn", place=options.place, hint="add one"
            )
        report: dict[str, Any] = {"schema": _SCHEMA, "registry": name}
        if stream.replica is not None:
            with explained(place_of(stream.replica.dsn)), _session(stream.replica.dsn) as connection:
                leaves = _leaves(connection, table)
                for schema, leaf in leaves:
                    table_copies.await_copy(connection, schema, leaf)
            report["awaited"] = [f"{schema}.{leaf}" for schema, leaf in leaves]
        code = ExitCode.OK
        if stream.source is not None:
            with explained(place_of(stream.source.dsn)), _session(stream.source.dsn) as connection:
                copies = {
                    f"{schema}.{leaf}": table_copies.request(connection, schema, leaf, reason=reason)
                    for schema, leaf in _leaves(connection, table)
                }
                under_way.note(copies=list(copies.values()))
                found = (
                    _watch(connection, copies, timeout, quiet=options.as_json)
                    if wait
                    else _states(connection, copies)
                )
            report["copies"] = {leaf: {"copy": copies[leaf], **found[leaf]._asdict()} for leaf in copies}
            report["done"] = all(copy.state == "done" for copy in found.values())
    if options.as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for leaf, copy in report.get("copies", {}).items():
            click.echo(f"{leaf}: {copy['state']}, {copy['rows']} rows, {copy['bytes'] / _MIB:.1f} MiB")
        for leaf in report.get("awaited", []):
            click.echo(f"{leaf}: the replica awaits a copy")
    return code


def _leaves(connection: psycopg.Connection[Any], table: str | None) -> list[tuple[str, str]]:
    """The tables that hold the rows of one; None: of the registry."""
    if table is None:
        return table_copies.registry_tables(connection)
    return table_copies.table_and_leaves(connection, table)


@contextmanager
def _session(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    connection = connect(dsn, application_name=_APPLICATION, autocommit=True)
    try:
        yield connection
    finally:
        connection.close()


def _states(connection: psycopg.Connection[Any], copies: Mapping[str, int]) -> dict[str, CopyState]:
    found = {leaf: table_copies.state(connection, copy) for leaf, copy in copies.items()}
    return {leaf: state for leaf, state in found.items() if state is not None}


@contextmanager
def _copy_goes_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        click.echo("hint: the copy goes on; embassy status shows how far it is", err=True)
        raise


def _watch(
    connection: psycopg.Connection[Any], copies: Mapping[str, int], timeout: float | None, *, quiet: bool
) -> dict[str, CopyState]:
    """Show how far it is until all is done."""
    console = Console(stderr=True)
    began = time.monotonic()
    first = _states(connection, copies)
    told = began
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with (
        _copy_goes_on(),
        Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars,
    ):
        tasks = {leaf: bars.add_task(leaf, total=None, rate="") for leaf in copies}
        while True:
            found = _states(connection, copies)
            seconds = max(time.monotonic() - began, _POLL_SECONDS)
            for leaf, state in found.items():
                rate = (state.bytes - first[leaf].bytes) / seconds / _MIB
                total = None if state.rows_expected is None else max(state.rows_expected, state.rows)
                bars.update(tasks[leaf], completed=state.rows, total=total, rate=f"{rate:.1f} MiB/s")
            if not (quiet or console.is_terminal) and time.monotonic() - told >= _LINE_SECONDS:
                told = time.monotonic()
                for leaf, state in found.items():
                    click.echo(
                        f"{leaf}: {state.state}, {state.rows} of about {state.rows_expected or '?'} rows", err=True
                    )
            if all(state.state == "done" for state in found.values()):
                return found
            if timeout is not None and seconds > timeout:
                raise TransientError(
                    f"not done within {timeout:g} s; the copy goes on",
                    hint="is the producer running? embassy status shows how far it is",
                )
            time.sleep(_POLL_SECONDS)
