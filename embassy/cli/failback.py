"""``embassy failback``: what home committed and never shipped, kept readable before anything else is done with home."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from embassy.cli.auditing import audited
from embassy.cli.conflict_bundle import Bundle, make_bundle
from embassy.cli.failback_run import run
from embassy.cli.options import Options, pass_options
from embassy.cli.proven_report import Superseded, proven_report, superseded
from embassy.cli.stream_options import stream_options
from embassy.cli.together import Failure, reasons_of, tell_failures, words_of, worst_of
from embassy.cli.untaken import HomeTopics, Untaken
from embassy.model.errors import ConfigurationError, EmbassyError, RefusedError, StaleError
from embassy.model.lsn import Lsn
from embassy.model.wording import counted
from embassy.pg import replica_turn
from embassy.pg.connection import connect, place_of
from embassy.pg.reign import reign
from embassy.pg.setup_errors import explained
from embassy.runtime.config import Source
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

    Each registry is written by itself: exits with 8 if some could not be, names them, and says how to write them.
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
        found: list[Bundle] = []
        failures: list[Failure] = []
        try:
            topics = HomeTopics(settings, settings.kafka.home)
            work = [
                (one, options.need(one.stream.source, f"streams.{one.name}.source"))
                for one in superseded(options, settings, report)
            ]
            for wanted, source in work:
                try:
                    found.append(_bundle(wanted, source, report, topics, output))
                except EmbassyError as error:
                    failures.append(Failure(wanted.name, error))
        except BaseException:
            shutil.rmtree(output, ignore_errors=True)  # nobody was told which of the files are all there is
            raise
        if not found:
            shutil.rmtree(output, ignore_errors=True)
        under_way.note(bundles={b.name: f"{b.transactions} transactions, sha256 {b.sha256}" for b in found})
        if failures:
            under_way.note(refused=reasons_of(failures))
        _tell(options, path, found, failures)
        if failures:
            return under_way.ended(ExitCode.STEP_FAILED if found else worst_of(failures))
    return ExitCode.OK if all(one.complete for one in found) else ExitCode.CHECK_FAILED


def _tell(options: Options, path: Path, found: Sequence[Bundle], failures: Sequence[Failure]) -> None:
    if options.as_json:
        told = {
            "schema": "embassy.failback-bundle/1",
            "bundles": [one._asdict() for one in found],
            "failed": words_of(failures),
        }
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        for one in found:
            click.echo(
                f"{one.name}: {counted(one.transactions, 'transaction')}, {counted(one.changes, 'change')} behind "
                f"{one.after_lsn} in {one.file}" + lacking(one._asdict())
            )
    tell_failures(failures)
    if found and failures:
        named = " ".join(f"-r {failure.name}" for failure in failures)
        click.echo(
            f"hint: what is written is whole. For the others: embassy … {named} failback bundle {path} -o ANOTHER",
            err=True,
        )


def _bundle(wanted: Superseded, source: Source, report: Report, topics: HomeTopics, output: Path) -> Bundle:
    stream, dsn = wanted.stream, source.dsn
    _refuse_if_past(dsn, bytes.fromhex(stream.stream), report)
    untaken = Untaken(stream, stream.enrolment, Lsn.parse(str(wanted.entry["last_lsn"])), topics)
    return make_bundle(wanted.name, dsn, untaken, slot=stream.slot, publication=source.publication, output=output)


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
