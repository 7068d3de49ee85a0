"""``embassy failback``: what home committed and never shipped, kept readable before anything else is done with home."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from embassy.cli.auditing import audited
from embassy.cli.conflict_bundle import Bundle, make_bundle
from embassy.cli.failback_run import run
from embassy.cli.options import Options, pass_options
from embassy.cli.proven_report import proven_report
from embassy.cli.stream_options import stream_options
from embassy.cli.untaken import HomeTopics, Untaken
from embassy.model.errors import ConfigurationError, RefusedError, StaleError
from embassy.model.lsn import Lsn
from embassy.pg import replica_turn
from embassy.pg.connection import connect, place_of
from embassy.pg.reign import reign
from embassy.pg.setup_errors import explained
from embassy.runtime.config import Settings
from embassy.runtime.exit_codes import ExitCode
from embassy.wire.promotion_report import Report
from failover.conflicts import lacking

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def failback() -> None:
    """Bring a superseded home back as a replica; what it committed and never shipped is kept, and never merged."""


failback.add_command(run)


@failback.command()
@click.argument("path", metavar="REPORT", type=_FILE)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="A new folder for the bundle; only you may read it.",
)
@pass_options
@stream_options
def bundle(options: Options, path: Path, *, output: Path) -> ExitCode:
    """Write what home committed behind the promotion's last commit: for each registry one file, a transaction a line.

    REPORT is the promotion's signed report. The changes are read from the replication slots, which stay where they are;
    stop the producer first. The files hold rows: keep them as you keep the registry. Whose change counts, the registry's
    owner decides.

    Where home was cut off and went on, its producer has confirmed more to the slot than the embassy took. That is read
    from home's own topic, with a recipient key for which the producer wrapped its data keys.

    Exits with 4 if a file cannot be whole, and says why; with 7 if the report is of an epoch that is past.

    Reads keys.operators and streams.NAME.source; if need be kafka.home, and keys.recipient or keyd.
    """
    settings = options.settings()
    with audited(options, "failback.bundle", {"report": str(path), "output": str(output)}) as under_way:
        report = proven_report(options, settings, path)
        try:
            output.mkdir(mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make the folder: {error.strerror}",
                place=str(output),
                hint="name one that does not exist yet",
            ) from error
        try:
            found = list(_bundles(options, settings, report, output))
        except BaseException:
            shutil.rmtree(output, ignore_errors=True)  # half a bundle would pass for a whole one
            raise
        under_way.note(bundles={b.name: f"{b.transactions} transactions, sha256 {b.sha256}" for b in found})
    if options.as_json:
        listed = [bundle_._asdict() for bundle_ in found]
        click.echo(json.dumps({"schema": "embassy.failback-bundle/1", "bundles": listed}, indent=2))
    else:
        for one in found:
            click.echo(
                f"{one.name}: {one.transactions} transactions, {one.changes} changes behind {one.after_lsn} in {one.file}"
                + lacking(one._asdict())
            )
    return ExitCode.OK if all(one.complete for one in found) else ExitCode.CHECK_FAILED


def _bundles(options: Options, settings: Settings, report: Report, output: Path) -> Iterator[Bundle]:
    promoted = {str(entry["stream"]): entry for entry in report.streams if not entry.get("aborted")}
    topics = HomeTopics(settings, settings.kafka.home)
    covered = 0
    for name, stream in options.streams(settings).items():
        entry = promoted.get(stream.stream)
        if entry is not None:
            covered += 1
            source = options.need(stream.source, f"streams.{name}.source")
            _refuse_if_past(source.dsn, bytes.fromhex(stream.stream), report)
            after = Lsn.parse(str(entry["last_lsn"]))
            untaken = Untaken(stream, stream.enrolment, after, topics)
            yield make_bundle(
                name, source.dsn, untaken, slot=stream.slot, publication=source.publication, output=output
            )
    if not covered:
        raise RefusedError("the report is about none of these registries", hint="is it another site's?")


def _refuse_if_past(dsn: str, stream: bytes, report: Report) -> None:
    """Make sure that what the slot has is what the report's epoch did not get.

    Raises:
        StaleError: the database has the registry in that epoch or a later one.
        RefusedError: it follows that epoch already, and keeps nothing of its own.
    """
    to_epoch, place = report.epoch_of(stream) or 0, place_of(dsn)
    with explained(place), connect(dsn, application_name="embassy-failback", autocommit=True) as session:
        here = reign(session, stream)
        kept = replica_turn.bundle_of(session, report.plan.nonce) if here.is_replica else None
    if here.epoch >= to_epoch:
        raise StaleError(
            f"the report is about epoch {to_epoch}, and the database has the registry in epoch {here.epoch}: "
            "what it commits is no conflict",
            place=place,
            hint="take the report of the promotion that superseded it",
        )
    if here.is_replica:
        raise RefusedError(
            f"the database is a replica of epoch {here.follows}, and keeps nothing of its own",
            place=place,
            hint="what it had never shipped is in the file that failback run has written"
            + (f": {kept['file']}" if kept is not None else ""),
        )
