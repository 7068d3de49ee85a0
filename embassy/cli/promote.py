"""``embassy promote``: a replica becomes the registry, by a plan that two persons have approved."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
from rich.console import Console

from embassy.cli.auditing import Audited, audited
from embassy.cli.key_prompts import ask, confirm
from embassy.cli.options import Options, pass_options
from embassy.cli.promote_approving import Approval
from embassy.cli.promote_planning import Intention, make_plan
from embassy.cli.promote_reports import proof_of_abort, report_json, write_report
from embassy.cli.promote_running import PlanRun, read_plan
from embassy.cli.promote_screen import StepLines, show_plan, show_report, show_terms
from embassy.cli.promote_status import abort_plan, states
from embassy.cli.proven_report import proven_report
from embassy.cli.stream_options import stream_options
from embassy.cli.together import Failure
from embassy.model.errors import StaleError
from embassy.runtime import logs
from embassy.runtime.audit_line import JSON
from embassy.runtime.exit_codes import ExitCode, exit_code, worst
from embassy.runtime.failpoints import PROMOTION_AFTER_ABORTED, failpoint
from embassy.wire.keyring import load_identity, load_operator
from embassy.wire.promotion_plan import Plan, Waivers
from embassy.wire.promotion_report import ReportFile
from embassy.wire.secret_file import write_new
from failover.promotion import Mode

_FILE = click.Path(dir_okay=False, path_type=Path)
_PLAN = click.Path(exists=True, dir_okay=False, path_type=Path)
_WIDTH = 120


@click.group()
def promote() -> None:
    """Make replicas the registries, by a plan that two persons have approved.

    \b
    embassy -c embassy-1-admin.toml promote plan --mode disaster --accept-loss 3600 -o plan.json
    embassy -c embassy-1-admin.toml promote approve plan.json --key anna.json     (each person, on a machine of their own)
    embassy -c embassy-1-admin.toml promote approve plan.json --key bert.json
    embassy -c embassy-1-admin.toml promote run plan.json --confirm all

    Nothing of home is asked, and nothing is promoted by itself. docs/runbooks/promotion.md leads through it.
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


@promote.command()
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), required=True, help="Why.")
@click.option(
    "--accept-loss",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="How much of home's last commits may be lost, counted back from the sealing; disaster needs it.",
)
@click.option(
    "--accept-undrained", is_flag=True, help="Promote although records in the embassy's log cannot be applied."
)
@click.option("--accept-violations", is_flag=True, help="Promote although rows break constraints.")
@click.option(
    "--accept-differences",
    is_flag=True,
    help="Promote although rows differ from home (embassy verify), or tables are left out for want of a key.",
)
@click.option(
    "--valid-minutes",
    type=click.IntRange(1, 24 * 60),
    default=30,
    show_default=True,
    help="How long it may be approved and run, by the replicas' clock.",
)
@click.option("-o", "--output", type=_FILE, required=True, help="Where the plan goes; never overwritten.")
@pass_options
@stream_options
def plan(
    options: Options,
    mode: str,
    *,
    accept_loss: int | None,
    accept_undrained: bool,
    accept_violations: bool,
    accept_differences: bool,
    valid_minutes: int,
    output: Path,
) -> ExitCode:
    """Look at the replicas, and write the plan of their promotion; nothing is changed.

    It covers every stream of the configuration, or those that -r names. It is bound to their epochs, enrolments and
    present positions, to the operators' keys and to this site, and it expires. Exits with 4 if a gate is closed, or
    if more would be lost now than is accepted.

    Reads keys.identity (the embassy's own, which will sign the report), keys.operators, promotion and
    streams.NAME.replica.
    """
    if mode == Mode.DISASTER and accept_loss is None:
        raise click.UsageError(
            "--mode disaster needs --accept-loss SECONDS: how much of home's last commits may be lost"
        )
    if mode != Mode.DISASTER and accept_loss is not None:
        raise click.UsageError("--accept-loss belongs to --mode disaster: a switchover loses nothing")
    options = _all_or_named(options)
    with audited(options, "promote.plan", {"mode": mode, "output": str(output)}) as under_way:
        waivers = Waivers(accept_undrained, accept_violations, accept_differences)
        intention = Intention(mode, accept_loss, waivers, valid_minutes)
        file, outlooks = make_plan(options, intention)
        write_new(output, file.render(), mode=0o644)
        under_way.note(**_named(file.parsed(output)), payload_sha256=file.payload_hash.hex())
    made = file.parsed(output)
    if options.as_json:
        click.echo(
            json.dumps(
                {
                    "schema": "embassy.promotion-plan/1",
                    "plan": str(output),
                    "nonce": made.nonce.hex(),
                    "mode": mode,
                    "site": made.site,
                    "streams": [outlook.to_json() for outlook in outlooks],
                },
                indent=2,
            )
        )
    else:
        show_plan(_console(), made, outlooks)
        click.echo(
            f"Written to {output}. Next, each of two persons: embassy … promote approve {output} --key THEIRS"
        )
    refused = any(outlook.obstacles or outlook.beyond(accept_loss) for outlook in outlooks)
    return ExitCode.CHECK_FAILED if refused else ExitCode.OK


@promote.command()
@click.argument("path", metavar="PLAN", type=_PLAN)
@click.option("--key", "key", required=True, type=_PLAN, help="Your secret operator key file.")
@click.option(
    "--given",
    type=_FILE,
    help="Where your approvals are kept, to refuse a second embassy's; default: beside the key.",
)
@click.option(
    "--given-up",
    type=_PLAN,
    multiple=True,
    metavar="PROOF",
    help="The proof that a plan which you approved for another embassy was aborted.",
)
@click.option(
    "--site-lost",
    multiple=True,
    metavar="SITE",
    help="Declare that SITE, for which you approved a plan before, is gone and can never open.",
)
@click.option("--yes", is_flag=True, help="Do not ask whether this is what you mean to approve.")
@pass_options
def approve(
    options: Options,
    path: Path,
    key: Path,
    *,
    given: Path | None,
    given_up: tuple[Path, ...],
    site_lost: tuple[str, ...],
    yes: bool,
) -> None:
    """Add your approval to PLAN, after showing what it says.

    A person counts once, whatever keys they hold, and approves one embassy for an epoch, never two: two sites would
    accept writes. No network and no database is needed.
    """
    settings = options.settings()
    found = read_plan(options, settings, path)
    show_terms(_console(stderr=True), found.plan, found.persons)
    if not yes:
        confirm("Approve this?")
    details: dict[str, JSON] = {**_named(found.plan), "payload_sha256": found.file.payload_hash.hex()}
    if site_lost:
        details["sites_declared_lost"] = list(site_lost)
    with audited(options, "promote.approve", details) as under_way:
        kept = given or key.with_suffix(".approvals.json")
        approval = Approval(options, settings, load_operator(key, ask(key)), key)
        under_way.note(person=approval.person, key=approval.key_id)
        approval.sign(found, path, kept, given_up=given_up, lost=site_lost)
    if not approval.is_majority:
        click.echo(
            f"warning: {settings.keys.threshold} persons approve, and that is no majority of the roster: others could "
            "approve another embassy's plan at the same time. Tell each other.",
            err=True,
        )
    persons = read_plan(options, settings, path).persons
    click.echo(f"{path}: approved by {', '.join(sorted(persons))}")


@promote.command()
@click.argument("path", metavar="PLAN", type=_PLAN)
@click.option(
    "--confirm", required=True, metavar="NAME", help="The registry's name; 'all' if the run is for several."
)
@click.option("-o", "--output", type=_FILE, help="Where the report goes; default: PLAN with .report.json.")
@pass_options
@stream_options
def run(options: Options, path: Path, confirm: str, *, output: Path | None) -> ExitCode:
    """Run an approved plan: drain, seal, verify, raise the epoch, open, report.

    Until the point of no return, which is announced, a failure of one registry stops the run and nothing is changed;
    -r runs the plan for some. Killed at any moment, the same command goes on. All ends in a signed report, the proof by
    which a home that returns learns that it was superseded: copy it there.

    A home that is not lost and ships on does not hold a disaster's run up: what had arrived is in, what comes later is
    left behind and told.

    Reads kafka.foreign, keys.identity, keys.recipient (to apply the rest where no consumer runs), keys.operators,
    promotion and streams.NAME.replica.
    """
    settings = options.settings()
    options = _all_or_named(options)
    if options.log_level == "info":
        logs.configure(level="warning")  # the consumers inside need not tell that they start
    console = _console(stderr=True)
    with audited(options, "promote.run", {"plan": str(path)}) as under_way:
        approved = read_plan(options, settings, path)
        plan_ = approved.plan
        names = [p.name for p in plan_.streams if not options.registries or p.name in options.registries]
        under_way.note(**_named(plan_), registries=names, approvers=sorted(approved.persons))
        _must_confirm(names, confirm)
        identity = load_identity(options.identity_file(settings))
        if identity.public != plan_.identity:
            raise StaleError(
                "keys.identity is another one than the plan names", place=str(path), hint="make a new plan"
            )
        lines = StepLines(console, Mode(plan_.mode), len(names))
        with PlanRun(options, settings, approved, path, lines.tell) as work:
            ready, failures = work.prepare()
            if failures:
                passed = [name for name in names if name not in {f.name for f in failures}]
                return under_way.ended(_tell_failures(failures, path, passed, under_way))
            if ready:
                lines.announce(plan_, ready)
            found, failures = work.finish()
        report = ReportFile.made(approved.file, found, identity)
        target = output or path.with_suffix(".report.json")
        write_report(target, report)
        under_way.note(promoted=[str(entry["name"]) for entry in found], report=str(target))
        if options.as_json:
            click.echo(json.dumps(report_json(approved.persons, plan_, found), indent=2))
        else:
            show_report(_console(), found, approved.persons)
            click.echo(
                f"The signed report is {target}. Copy it to home: beside each enrolment, or for embassy home fence."
            )
        if failures:
            return under_way.ended(_tell_failures(failures, path, [], under_way))
    return ExitCode.OK


@promote.command()
@pass_options
@stream_options
def status(options: Options) -> ExitCode:
    """Show where each replica stands: its epoch, the plan under way and its last step."""
    settings = options.settings()
    found = list(states(options, settings))
    if options.as_json:
        click.echo(
            json.dumps({"schema": "embassy.promotion/1", "streams": [s.to_json() for s in found]}, indent=2)
        )
    else:
        for state in found:
            click.echo(state.line())
    return ExitCode.OK


@promote.command()
@click.argument("path", metavar="PLAN", type=_PLAN)
@click.option("--reason", required=True, help="Why; it stays in the journal and the audit log.")
@pass_options
@stream_options
def abort(options: Options, path: Path, *, reason: str) -> ExitCode:
    """Give a plan up before its point of no return: it can never be run again, and the consumers go on.

    Refused for a registry whose epoch the plan has raised: run the plan to its end instead. Writes the signed proof by
    which a home that was fenced for this plan is opened again (embassy home release): PLAN with .aborted.json.

    Reads keys.identity, keys.operators and streams.NAME.replica.
    """
    settings = options.settings()
    options = _all_or_named(options)
    with audited(options, "promote.abort", {"plan": str(path), "reason": reason}) as under_way:
        approved = read_plan(options, settings, path)
        under_way.note(**_named(approved.plan))
        aborted = abort_plan(options, settings, approved, reason)
        failpoint(PROMOTION_AFTER_ABORTED)
        proof = path.with_suffix(".aborted.json")
        identity = load_identity(options.identity_file(settings))
        write_report(proof, proof_of_abort(approved, aborted, identity))
        under_way.note(aborted=aborted, proof=str(proof))
    click.echo(f"given up: {', '.join(aborted)}. If home was fenced for it: embassy home release {proof}")
    return ExitCode.OK


@promote.command()
@click.argument("path", metavar="REPORT", type=_PLAN)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_options
def report(options: Options, path: Path, *, as_json: bool) -> None:
    """Prove a report's approvals and signature, and show what it says. No network and no database is needed."""
    settings = options.settings()
    proven = proven_report(options, settings, path)
    if as_json or options.as_json:
        click.echo(json.dumps(report_json(proven.persons, proven.plan, list(proven.streams)), indent=2))
    else:
        show_report(_console(), proven.streams, proven.persons)


def _must_confirm(names: list[str], confirm: str) -> None:
    expected = names[0] if len(names) == 1 else "all"
    if confirm != expected:
        raise click.UsageError(
            f"the run is for {', '.join(names) or 'nothing'}: confirm it with --confirm {expected}"
        )


def _tell_failures(failures: list[Failure], path: Path, passed: list[str], under_way: Audited) -> ExitCode:
    for failure in failures:
        click.echo(f"error: {failure.name}: {failure.error}", err=True)
    if passed:
        some = " ".join(f"-r {name}" for name in passed)
        confirm = passed[0] if len(passed) == 1 else "all"
        click.echo(
            "hint: nothing was changed. To go on with the others: "
            f"embassy … promote run {path} {some} --confirm {confirm}",
            err=True,
        )
    under_way.note(refused={failure.name: str(failure.error.args[0]) for failure in failures})
    return worst(frozenset(exit_code(failure.error) for failure in failures))


def _named(plan_: Plan) -> dict[str, JSON]:
    """What the audit log keeps of a plan."""
    return {
        "nonce": plan_.nonce.hex(),
        "mode": plan_.mode,
        "accept_loss_seconds": plan_.accept_loss_seconds,
        "streams": {p.name: f"{p.from_epoch}→{p.to_epoch}" for p in plan_.streams},
    }


def _all_or_named(options: Options) -> Options:
    """``-r all`` is every stream, as no ``-r`` is."""
    return dataclasses.replace(options, registries=()) if options.registries == ("all",) else options


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_WIDTH)
