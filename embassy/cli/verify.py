"""``embassy verify``: home tells of its rows, the embassy compares its own, and whoever asks sees what was found."""

from __future__ import annotations

import difflib
import json
import random
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embassy.cli.options import Options, pass_options
from embassy.cli.stream_options import stream_options
from embassy.cli.verify_report import Report, reports
from embassy.model.errors import ConfigurationError
from embassy.model.large_objects import TABLES
from embassy.model.verification import TableName
from embassy.pg import large_objects, verify_source
from embassy.pg.catalog import source_tables
from embassy.pg.connection import place_of
from embassy.pg.setup_errors import explained
from embassy.runtime.config import Source, Stream
from embassy.runtime.exit_codes import ExitCode
from producers.verification import Told, Verification, Wish

_SCHEMA = "embassy.verify/1"
_STATUS_SCHEMA = "embassy.verify-status/1"
_POLL_SECONDS = 0.5


@click.group(invoke_without_command=True)
@click.option("--table", "tables", multiple=True, metavar="SCHEMA.TABLE", help="Only this table; may be repeated.")
@click.option(
    "--sample",
    "percent",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="P",
    help="Only P percent of each table, in pieces taken at random.",
)
@click.option("--full", is_flag=True, help="Every row: what is done without --sample.")
@click.option(
    "--patience",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    metavar="S",
    help="How long to wait, as a table begins, for those who write to it just then.",
)
@click.option(
    "--by-digest",
    is_flag=True,
    help="Compare tables whose keys a collation orders as if they had none: for sides whose collations differ.",
)
@pass_options
@stream_options
@click.pass_context
def verify(
    ctx: click.Context,
    options: Options,
    tables: tuple[str, ...],
    percent: float | None,
    patience: float,
    *,
    full: bool,
    by_digest: bool,
) -> ExitCode | None:
    """Compare the replicas with home, row by row, while the load goes on.

    Run it at home. It reads each table in small pieces, and sends digests of the rows, with their keys, through the
    stream; the consumer compares them with its own rows at the same place of the stream. Nothing is locked, no
    connection between the sites is needed, and no row leaves home but as the stream carries it. Rows that change
    meanwhile are told again; those that changed each time are reported as in flight, never as equal.

    What was found is in the embassy: embassy verify status there, the metrics embassy_verify_rows and
    embassy_verify_last_success_timestamp_seconds, and the VERIFIED column of embassy status.

    A table whose key is ordered by another collation, or another version of it, than in the replica is undecided: a
    piece of it would hold other rows there. With --by-digest such tables are read in one snapshot each, and their
    rows are named by digests.

    Large objects are compared like rows, by page and as a whole: as pg_catalog.pg_largeobject, and with their owners,
    rights and comments as pg_catalog.pg_largeobject_metadata.

    The source's role needs SELECT on the tables and on pg_largeobject, and BYPASSRLS where they have row security.

    \b
    embassy -c home-admin.toml verify
    embassy -c home-admin.toml verify -r land_register --table public.parcel
    embassy -c home-admin.toml verify --sample 5 --json
    embassy -c embassy-admin.toml verify status --wait 600
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    if ctx.invoked_subcommand is not None:
        ctx.obj = options
        return None
    if full and percent is not None:
        raise click.UsageError("--full and --sample contradict each other")
    asked = _Asked(tables, 1.0 if percent is None else percent / 100, patience, by_digest)
    found = {}
    for name, stream in options.streams(options.settings()).items():
        source = options.need(stream.source, f"streams.{name}.source")
        with _shown(name) as shown:
            found[name] = _tell(name, bytes.fromhex(stream.stream), source, asked, shown)
    if options.as_json:
        click.echo(
            json.dumps({"schema": _SCHEMA, "registries": {n: _told(*f) for n, f in found.items()}}, indent=2)
        )
    else:
        for name, (run, told) in found.items():
            rows = sum(table.rows for table in told)
            click.echo(f"{name}: told of {rows:,} rows of {len(told)} tables; verification {run}")
            for table in told:
                if table.skipped:
                    click.echo(f"! {name}: {table.table} was left out: {table.skipped}")
    return ExitCode.OK


@verify.command()
@click.option(
    "--wait", type=click.FloatRange(0), metavar="S", help="Wait up to S seconds for the verification to end."
)
@click.option("--run", "run", metavar="ID", type=click.UUID, help="This verification; without it, the newest.")
@click.option("--keys", is_flag=True, help="Name the rows that differ by their keys. Keys are row data.")
@pass_options
@stream_options
def status(options: Options, wait: float | None, run: uuid.UUID | None, *, keys: bool) -> ExitCode:
    """Show how the replicas compare with home. Run it in the embassy.

    Exit codes: 0 if the verification has ended, each of its tables was compared and all rows are alike; 4 if rows differ,
    or if it is not known that they do not; 3 if it has not ended within --wait.

    \b
    embassy -c embassy-admin.toml verify status
    embassy -c embassy-admin.toml verify status --wait 600 --run 3e0c… --json
    embassy -c embassy-admin.toml verify status --keys
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    streams = options.streams(options.settings())
    found = _awaited(options, streams, run, time.monotonic() + (wait or 0.0), keys=keys)
    if options.as_json:
        registries = {report.registry: report.as_json() for report in found}
        click.echo(json.dumps({"schema": _STATUS_SCHEMA, "registries": registries}, indent=2))
    else:
        console = Console(soft_wrap=True, highlight=False)
        for report in found:
            for line in report.lines():
                console.print(line)
    if wait is not None and not all(report.ended for report in found):
        return ExitCode.UNREACHABLE
    return ExitCode.OK if all(report.alike for report in found) else ExitCode.CHECK_FAILED


def _awaited(
    options: Options, streams: dict[str, Stream], run: uuid.UUID | None, deadline: float, *, keys: bool
) -> list[Report]:
    while True:
        found = list(reports(options, streams, run, keys=keys))
        left = deadline - time.monotonic()
        if left <= 0 or all(report.ended for report in found):
            return found
        time.sleep(min(_POLL_SECONDS, left))


class _Asked(NamedTuple):
    tables: tuple[str, ...]
    """Empty: all."""
    share: float
    patience_seconds: float
    by_digest: bool


class _Shown:
    """A bar for each table, where a person looks."""

    def __init__(self, progress: Progress | None, registry: str) -> None:
        self._progress = progress
        self._registry = registry
        self._tasks: dict[TableName, Any] = {}
        self.estimates: dict[TableName, int] = {}

    def table(self, table: TableName, rows: int, done: int, of: int) -> None:
        """Rows of a table have been told."""
        if self._progress is None:
            return
        task = self._tasks.get(table)
        if task is None:
            for ended in self._tasks.values():
                self._progress.remove_task(ended)
            text = f"{self._registry} {done}/{of} {table}"
            task = self._progress.add_task(text, total=max(self.estimates.get(table, 0), 1))
            self._tasks = {table: task}
        self._progress.update(task, completed=rows, total=max(self.estimates.get(table, 0), rows))


@contextmanager
def _shown(registry: str) -> Iterator[_Shown]:
    if not sys.stderr.isatty():
        yield _Shown(None, registry)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Shown(progress, registry)


def _tell(
    registry: str, identity: bytes, source: Source, asked: _Asked, shown: _Shown
) -> tuple[uuid.UUID, list[Told]]:
    run = uuid.uuid4()
    with explained(place_of(source.dsn)), verify_source.open_source(source.dsn) as connection:
        wanted = _wanted(registry, compared_tables(connection, source.publication), asked.tables)
        shown.estimates = verify_source.estimated_rows(connection, wanted)
        verification = Verification(connection, run, stream=identity, progress=shown, chance=random.SystemRandom())
        wish = Wish(wanted, not asked.tables, asked.share, asked.patience_seconds, asked.by_digest)
        return run, list(verification.run(wish))


def compared_tables(connection: Any, publication: str) -> list[TableName]:
    """What can be compared: the registry's tables that hold rows and are in the stream, and those of large objects."""
    published = [
        TableName(table.schema, table.name)
        for table in source_tables(connection, publication)
        if table.published and not (table.own or table.partitioned or table.unlogged)
    ]
    objects = large_objects.is_carried(connection) or large_objects.count(connection)
    return [*published, *(TABLES if objects else ())]


def _wanted(registry: str, tables: list[TableName], names: tuple[str, ...]) -> list[TableName]:
    known = {str(table): table for table in tables}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigurationError(
                f"no table {name!r} is published" + (f", did you mean {near[0]!r}?" if near else ""),
                place=registry,
                hint="write SCHEMA.TABLE without quotes; a partitioned table's rows are in its partitions",
            )
    return [known[name] for name in names] if names else tables


def _told(run: uuid.UUID, tables: list[Told]) -> dict[str, Any]:
    return {
        "run": str(run),
        "rows": sum(told.rows for told in tables),
        "tables": [
            {
                "schema": told.table.schema,
                "table": told.table.name,
                "rows": told.rows,
                "skipped": told.skipped or None,
            }
            for told in tables
        ],
    }
