"""``embassy promote run``: an approved plan, over all its registries or some, to the signed report."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import click

from embassy.cli.auditing import audited
from embassy.cli.options import Options, pass_options
from embassy.cli.promote_reports import Entry, earlier_entries, plan_details, report_json, write_report
from embassy.cli.promote_running import PlanRun, chosen, own_identity, read_plan
from embassy.cli.promote_screen import StepLines, console, show_report
from embassy.cli.stream_options import all_or_named, stream_options
from embassy.cli.together import Failure, goes_on, reasons_of, tell_failures, words_of, worst_of
from embassy.model.errors import ApprovalError
from embassy.runtime import logs
from embassy.runtime.exit_codes import ExitCode
from failover.promotion import Mode


@click.command()
@click.argument("path", metavar="PLAN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--confirm", required=True, metavar="NAME", help="The registry's name; 'all' if the run is for several."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the report goes; default: PLAN with .report.json. What it says of the plan's other registries stays.",
)
@pass_options
@stream_options
def run(options: Options, path: Path, confirm: str, *, output: Path | None) -> ExitCode:
    """Run an approved plan: drain, seal, verify, raise the epoch, open, report.

    Until the point of no return, which is announced, a failure of one registry stops the run and nothing is changed;
    -r runs the plan for some. Killed at any moment, the same command goes on: registries whose epoch the plan has raised
    are opened, whatever holds the others up. All ends in a signed report, the proof by which a home that returns learns
    that it was superseded: copy it there.

    A home that is not lost and ships on does not hold a disaster's run up: what had arrived is in, what comes later is
    left behind and told.

    Reads kafka.foreign, keys.identity, keys.recipient (to apply the rest where no consumer runs), keys.operators,
    promotion and streams.NAME.replica.
    """
    settings = options.settings()
    options = all_or_named(options)
    if options.log_level == "info":
        logs.configure(level="warning")  # the consumers inside need not tell that they start
        logging.getLogger("embassy.kafka").setLevel(logging.CRITICAL)  # the steps tell what did not answer
    with audited(options, "promote.run", {"plan": str(path)}) as under_way:
        approved = read_plan(options, settings, path)
        plan = approved.plan
        names = [planned.name for planned in chosen(plan, options, path)]
        under_way.note(**plan_details(plan), registries=names, approvers=sorted(approved.persons))
        _must_confirm(names, confirm)
        identity = own_identity(options, settings, plan, path)
        target = output or path.with_suffix(".report.json")
        entries: Sequence[Entry] = earlier_entries(target, approved.file)  # before anything is changed
        lines = StepLines(console(stderr=True), Mode(plan.mode), len(names))
        with goes_on(), PlanRun(options, settings, approved, path, lines.tell) as work:
            found, failures = work.go_on()
            ready, refused = work.prepare()
            unchanged = sorted({*ready, *(failure.name for failure in refused)})
            failures = [*failures, *refused]
            if ready and not failures:
                lines.announce(plan, ready)
                opened, failures = work.finish()
                found, ready, unchanged = [*found, *opened], [], []
        if found:
            entries = write_report(target, approved.file, found, identity)
            under_way.note(promoted=[str(entry["name"]) for entry in found], report=str(target))
            if not options.as_json:
                show_report(console(), entries, approved.persons)
                click.echo(
                    f"The signed report is {target}. Copy it to home: beside each enrolment, or for embassy home fence."
                )
        if options.as_json:
            told = report_json(approved.persons, plan, entries) | {
                "failed": words_of(failures),
                "held": list(ready),
            }
            click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        if failures:
            _tell(failures, path, held=ready, unchanged=unchanged, promoted=bool(found))
            under_way.note(refused=reasons_of(failures))
            return under_way.ended(worst_of(failures))
    return ExitCode.OK


def _must_confirm(names: Sequence[str], confirm: str) -> None:
    expected = names[0] if len(names) == 1 else "all"
    if confirm != expected:
        raise click.UsageError(f"the run is for {', '.join(names)}: confirm it with --confirm {expected}")


def _tell(
    failures: Sequence[Failure], path: Path, *, held: Sequence[str], unchanged: Sequence[str], promoted: bool
) -> None:
    """Say what failed, and how to go on with those that could and were held up."""
    tell_failures(failures)
    if held:
        confirm = held[0] if len(held) == 1 else "all"
        words = f"nothing was changed for {', '.join(held)}" if promoted else "nothing was changed"
        click.echo(
            f"hint: {words}. To go on: embassy … promote run {path} {_named(held)} --confirm {confirm}",
            err=True,
        )
    elif unchanged and not promoted:
        click.echo(f"hint: nothing was changed for {', '.join(unchanged)}", err=True)
    if promoted and any(isinstance(failure.error, ApprovalError) for failure in failures):
        left = sorted({*held, *(failure.name for failure in failures)})
        click.echo(
            f"hint: a new plan has to leave out what is promoted: embassy … promote plan … {_named(left)}",
            err=True,
        )


def _named(names: Sequence[str]) -> str:
    return " ".join(f"-r {name}" for name in names)
