"""``embassy failback run``: a superseded database becomes a replica of the stream that superseded it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import psycopg

from embassy.cli.auditing import actor, audited
from embassy.cli.conflict_bundle import is_kept, make_bundle
from embassy.cli.failback_level import Leveller, LevelWish
from embassy.cli.options import Options, pass_options
from embassy.cli.proven_report import proven_report, superseded
from embassy.cli.stream_options import stream_options
from embassy.cli.together import each, goes_on, reasons_of, tell_failures, words_of, worst_of
from embassy.cli.untaken import HomeTopics, Untaken
from embassy.model.errors import ConfigurationError
from embassy.model.lsn import Lsn
from embassy.model.touched import Touched
from embassy.model.verification import TableName
from embassy.pg import source_fence
from embassy.pg.connection import connect
from embassy.pg.replica_turn import OwnSlot
from embassy.runtime.config import Settings, Stream
from embassy.runtime.exit_codes import ExitCode
from embassy.wire.enrolment import load_enrolment
from embassy.wire.promotion_report import Report
from failover.conflicts import lacking
from failover.failback import FailbackStep
from failover.stream_failback import HomePorts, HomeWish, StreamFailback
from failover.touched_rows import touched_rows

_SCHEMA = "embassy.failback/1"
_TOGETHER = 16
"""Registries at once: each mostly waits, for its own stream."""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("path", metavar="REPORT", type=_FILE)
@click.option("--reason", required=True, help="Why; it stays in the database and the audit log.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder for what was committed and never shipped; only you may read it. A disaster needs it.",
)
@click.option(
    "--snapshot", is_flag=True, help="Copy the tables that differ as a whole, instead of rows by their keys."
)
@click.option(
    "--wait",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="S",
    help="How long nothing may move while rows come before it gives up with 3; run it again, and it goes on.",
)
@pass_options
@stream_options
def run(
    options: Options, path: Path, *, reason: str, output: Path | None, snapshot: bool, wait: float
) -> ExitCode:
    """Make a database that was superseded a replica of the embassy's, and bring it level.

    REPORT is the signed report of the promotion. The configuration names the database as streams.NAME.replica, with the
    enrolment of the epoch that REPORT proves. Until a consumer has it, nobody can write, at no moment.

    \b
    After a switchover there is nothing to copy: the database was shut before the embassy opened.
    After a disaster, what it committed and never shipped is kept in files first, then taken out of its tables. The rows
    that it lacks then come through the stream; a verification of every row ends it. For that the configuration names the
    embassy's database as streams.NAME.source; without it, the command ends by saying what is to be done there.

    Killed at any moment, the same command goes on. Exits with 4 if a file is not whole, or if not every row is proven to
    be the embassy's, and names the tables.

    Reads keys.operators, promotion.application_roles, streams.NAME.replica and streams.NAME.source.

    \b
    embassy -c home-replica-admin.toml failback run plan.report.json --reason 'planned'
    embassy -c home-replica-admin.toml failback run plan.report.json -o bundle --reason 'home is back'
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    settings = options.settings()
    with audited(options, "failback.run", {"report": str(path), "reason": reason}) as under_way:
        report = proven_report(options, settings, path)
        under_way.note(nonce=report.plan.nonce.hex(), approvers=sorted(report.persons))
        lines = _Lines(quiet=options.as_json)
        level = LevelWish(snapshot=snapshot, wait_seconds=wait)
        order = _Order(report, reason, output, level)
        work = list(_work(options, settings, order, lines))
        found: list[Mapping[str, Any]] = []
        with goes_on():
            failures = each(
                work, lambda failback: found.append(failback.run()), at_once=_TOGETHER, what="failback"
            )
        under_way.note(following=sorted(str(entry["name"]) for entry in found))
        if failures:
            under_way.note(refused=reasons_of(failures))
        tell_failures(failures)
        found.sort(key=lambda entry: str(entry["name"]))
        if options.as_json:
            told = {"schema": _SCHEMA, "registries": found, "failed": words_of(failures)}
            click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        else:
            for entry in found:
                click.echo(f"{entry['name']}: follows {report.plan.site}" + _how_level(entry) + _lacking(entry))
        code = worst_of(failures)
        if not failures and any(
            entry["unproven"] or not entry.get("bundle", {}).get("complete", True) for entry in found
        ):
            code = ExitCode.CHECK_FAILED
        return under_way.ended(code)


def _how_level(entry: Mapping[str, Any]) -> str:
    if not entry["unproven"]:
        return ", level"
    named = "; ".join(f"{table['table']}: {table['why']}" for table in entry["unproven"])
    return (
        f"; NOT PROVEN LEVEL: {named} → where the registry is: embassy verify --by-digest; what differs is sent "
        "by embassy repair; then run this again"
    )


def _lacking(entry: Mapping[str, Any]) -> str:
    """What the file of what never shipped does not have; empty if it is whole, or if there is none."""
    bundle = entry.get("bundle")
    return "" if bundle is None or bundle["complete"] else f" ({bundle['file']}){lacking(bundle)}"


class _Lines:
    """Tells each step on a line of its own."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def tell(self, name: str, step: FailbackStep, words: str) -> None:
        if self._quiet or not words:
            return
        with self._lock:
            click.echo(f"{time.monotonic() - self._began:6.2f} s  {name}: {step.value}: {words}", err=True)


class _Order(NamedTuple):
    """What is to be done."""

    report: Report
    reason: str
    output: Path | None
    level: LevelWish


def _work(options: Options, settings: Settings, order: _Order, lines: _Lines) -> Iterator[StreamFailback]:
    report = order.report
    lock = threading.Lock()

    def revoke(connection: psycopg.Connection[Any], roles: Sequence[str]) -> None:
        with lock:  # registries of one server share their roles
            source_fence.revoke_login(connection, roles)

    topics = HomeTopics(settings, settings.kafka.foreign)
    for name, stream, entry in superseded(options, settings, report):
        if stream.replica is None:
            raise ConfigurationError(
                f"streams.{name}.replica is missing: the file does not name home's database as a replica",
                place=options.place,
                hint="take the configuration of the way home, in which the sites are changed about: "
                "docs/runbooks/failback.md",
            )
        dsn = stream.replica.dsn
        after = Lsn.parse(str(entry["last_lsn"]))
        untaken = Untaken(stream, stream.superseded, after, topics)
        wish = HomeWish(
            name=name,
            stream=bytes.fromhex(stream.stream),
            nonce=report.plan.nonce,
            site=report.plan.site,
            genesis=_genesis(settings, name, stream, report),
            fenced_at=_instant(entry, "home_fenced_at"),
            sealed_at=_instant(entry, "sealed_at"),
            application_roles=settings.promotion.application_roles,
            by=actor(),
            reason=order.reason,
        )
        leveller = Leveller(
            name,
            stream,
            order.level,
            partial(lines.tell, name, FailbackStep.LEVEL),
            quiet=options.as_json or not sys.stderr.isatty(),
        )
        ports = HomePorts(
            dsn=dsn,
            revoke=revoke,
            may_bundle=partial(_folder, name, order.output),
            bundle=partial(_bundle, name, dsn, untaken, order.output),
            kept=is_kept,
            touched=partial(_touched, dsn, untaken),
            level=leveller.run,
            tell=partial(lines.tell, name),
        )
        yield StreamFailback(wish, ports)


def _instant(entry: Mapping[str, Any], what: str) -> datetime | None:
    return datetime.fromisoformat(str(entry[what])) if entry.get(what) else None


def _genesis(settings: Settings, name: str, stream: Stream, report: Report) -> Any:
    keys = settings.keys
    enrolment = load_enrolment(
        stream.enrolment, operators=keys.operators, threshold=keys.threshold, stream=stream.stream
    )
    epoch = report.epoch_of(enrolment.stream)
    if enrolment.epoch != epoch:
        raise ConfigurationError(
            f"the report is of epoch {epoch}, and streams.{name}.enrolment begins epoch {enrolment.epoch}",
            place=str(stream.enrolment),
            hint="take the configuration of the way home, whose enrolments are of the epoch that superseded home: "
            "docs/runbooks/failback.md",
        )
    return enrolment.genesis()


def _folder(name: str, output: Path | None) -> Path:
    """Where files go.

    Raises:
        ConfigurationError: none is named.
    """
    if output is None:
        raise ConfigurationError(
            "what was committed and never shipped has to be kept before anything else",
            place=name,
            hint="name a folder for it with -o",
        )
    return output.resolve()  # what is noted of it is read elsewhere, and years later


def _bundle(name: str, dsn: str, untaken: Untaken, output: Path | None, found: OwnSlot) -> Mapping[str, Any]:
    folder = _folder(name, output)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make the folder: {error.strerror}", place=str(folder), hint="name another one with -o"
        ) from error
    made = make_bundle(name, dsn, untaken, slot=found.slot, publication=found.publication, output=folder)
    return made._asdict()


def _touched(dsn: str, untaken: Untaken, found: OwnSlot) -> Mapping[TableName, Touched] | None:
    with connect(dsn, application_name="embassy-failback", autocommit=True) as session:
        touched = touched_rows(untaken.transactions(session, found.slot, found.publication))
    return touched if untaken.gap is None else None
