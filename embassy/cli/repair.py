"""``embassy repair``: the rows that a verification found wrong come once more from home, through the stream."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from embassy.cli.auditing import audited
from embassy.cli.options import Options, pass_options
from embassy.cli.stream_options import stream_options
from embassy.model import repair_plan
from embassy.model.errors import ConfigurationError, RefusedError
from embassy.model.repair_plan import RepairPlan, TableRepair
from embassy.pg import repair_source, verify_store
from embassy.pg.connection import connect, place_of
from embassy.pg.digested_table import digested_table
from embassy.pg.lost_session import transient
from embassy.pg.row_digests import in_order
from embassy.pg.setup_errors import explained
from embassy.pg.verify_store import FoundTable
from embassy.runtime.config import Stream
from embassy.runtime.exit_codes import ExitCode
from embassy.wire.secret_file import read_secret, write_new

_SCHEMA = "embassy.repair/1"
_APPLICATION = "embassy-repair"
_PLAN_BYTES_MOST = 64 << 20
_POLL_SECONDS = 0.5


@click.group()
def repair() -> None:
    """Send home's rows once more, where a verification found the replica's to differ.

    Nothing edits the replica but the stream: a plan, made in the embassy, names tables and keys of rows; applied at home,
    it has the producer send these rows, which replace what the replica has under the same keys.
    """


@repair.command()
@click.argument("verification", required=False, type=click.UUID, metavar="[ID]")
@click.option(
    "-o",
    "--out",
    "path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The plan's file; it must not exist.",
)
@pass_options
@stream_options
def plan(options: Options, verification: UUID | None, *, path: Path) -> ExitCode:
    """Write down which rows are to be sent again. Run it in the embassy.

    Takes each table as it was compared last, or only those that the verification ID compared last. The file holds keys
    of rows: it is as sensitive as the rows are, and only its owner may read it.

    \b
    embassy -c embassy-admin.toml repair plan -r land_register -o land.repair
    embassy -c home-admin.toml repair apply land.repair --reason 'disk replaced, ticket 4711'
    embassy -c home-admin.toml -r land_register verify
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    name, stream = _one_stream(options)
    dsn = options.need(stream.replica, f"streams.{name}.replica").dsn
    details = {"registry": name, "file": str(path), "verification": str(verification) if verification else None}
    with audited(options, "repair.plan", details) as under_way:
        found = _planned(name, stream, dsn, verification)
        write_new(path, repair_plan.encode(found), mode=0o600)
        under_way.note(**_counted(found))
    _report(options, name, found, f"written to {path}; it holds keys of rows", file=str(path))
    return ExitCode.OK


@repair.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), metavar="PLAN")
@click.option("--reason", required=True, help="Why, for the audit log.")
@click.option(
    "--wait", type=click.FloatRange(0), metavar="S", help="Wait up to S seconds until the rows are in the stream."
)
@pass_options
@stream_options
def apply(options: Options, *, path: Path, reason: str, wait: float | None) -> ExitCode:
    """Ask for a plan's rows. Run it at home, where the producer runs.

    The producer reads the rows and sends them while the load goes on; what the replica has under the same keys is
    replaced, or deleted where home has no such row. Applying a plan twice sends the rows twice, and does no harm.
    Verify afterwards.

    Exit codes: 5 if the plan is another stream's or a table is gone; 3 if the rows are not in the stream within --wait.
    """
    found = repair_plan.decode(read_secret(path, "repair plan", _PLAN_BYTES_MOST), str(path))
    name, stream = _planned_stream(options, found, path)
    dsn = options.need(stream.source, f"streams.{name}.source").dsn
    details = {"registry": name, "file": str(path), "reason": reason, **_counted(found)}
    with (
        audited(options, "repair.apply", details) as under_way,
        explained(place_of(dsn)),
        connect(dsn, application_name=_APPLICATION, autocommit=True) as connection,
    ):
        requested = repair_source.request(connection, found, reason)
        under_way.note(requested=requested.copies, large_objects=requested.objects_at is not None)
        left = _await(lambda: repair_source.unfinished(connection, bytes.fromhex(found.stream), requested), wait)
        ended = under_way.ended(ExitCode.OK if wait is None or not left else ExitCode.UNREACHABLE)
    words = "asked for" if wait is None else "in the stream" if not left else f"asked for; {left} are under way"
    _report(options, name, found, f"{words}; verify again once the replica has them", copies=requested.copies)
    return ended


def _one_stream(options: Options) -> tuple[str, Stream]:
    streams = options.streams(options.settings())
    if len(streams) != 1:
        raise ConfigurationError(
            "a plan is for one stream",
            place=options.place,
            hint=f"pass -r NAME; there are {', '.join(sorted(streams))}",
        )
    return next(iter(streams.items()))


def _planned_stream(options: Options, found: RepairPlan, path: Path) -> tuple[str, Stream]:
    for name, stream in options.streams(options.settings()).items():
        if stream.stream == found.stream:
            return name, stream
    raise RefusedError(
        f"the plan is for stream {found.stream} ({found.registry}), which is not among those configured here",
        place=str(path),
        hint="use the configuration of the registry's home",
    )


def _planned(name: str, stream: Stream, dsn: str, verification: UUID | None) -> RepairPlan:
    place = place_of(dsn)
    with transient(place), connect(dsn, application_name=_APPLICATION, autocommit=True) as connection:
        if not verify_store.is_provisioned(connection):
            raise RefusedError("the replica was never verified", place=place, hint="embassy verify, at home")
        known = verify_store.tables(connection, bytes.fromhex(stream.stream), with_findings=True)
        wanted = [table for table in known if verification in (None, table.run)]
        repairs = tuple(repair_of(connection, table) for table in wanted if table.result.differing)
    if not repairs:
        raise RefusedError(
            "no row is known to differ"
            if wanted
            else f"no table was compared last by verification {verification}",
            place=place,
            hint="embassy verify status shows what is known",
        )
    return RepairPlan(name, stream.stream, datetime.now(UTC).isoformat(timespec="seconds"), repairs)


def repair_of(connection: Any, table: FoundTable) -> TableRepair:
    """Row by row if each that differs has a key that is known; else the whole table."""
    result = table.result
    columns = next((found.key_columns for found in table.findings), ())
    if not columns or len(table.findings) < result.differing:
        return TableRepair(result.table, columns, (), result.differing)
    described = digested_table(connection, result.table, columns)
    if described is None or described.key_names != columns:
        return TableRepair(result.table, columns, (), result.differing)
    keys = in_order(connection, described, [found.key for found in table.findings])
    return TableRepair(result.table, columns, tuple(keys), result.differing)


def _await(left: Any, wait: float | None) -> int:
    deadline = time.monotonic() + (wait or 0.0)
    while True:
        found: int = left()
        rest = deadline - time.monotonic()
        if not found or rest <= 0:
            return found
        time.sleep(min(_POLL_SECONDS, rest))


def _counted(found: RepairPlan) -> dict[str, Any]:
    return {
        "tables": [str(repair.table) for repair in found.tables],
        "copies": found.copies,
        "differing": sum(repair.differing for repair in found.tables),
    }


def _report(options: Options, registry: str, found: RepairPlan, words: str, **more: Any) -> None:
    if options.as_json:
        click.echo(json.dumps({"schema": _SCHEMA, "registry": registry, **_counted(found), **more}, indent=2))
        return
    for repaired in found.tables:
        what = "by their keys" if repaired.keys else "the whole table"
        click.echo(f"{registry}: {repaired.table}: {what}, for {repaired.differing} rows that differ")
    click.echo(f"{registry}: {found.copies} copies {words}")
