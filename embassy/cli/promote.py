"""``embassy promote``: a replica becomes the registry, by a plan that two persons have approved."""

from __future__ import annotations

import json
from pathlib import Path

import click

from embassy.cli.auditing import audited
from embassy.cli.key_prompts import ask, confirm
from embassy.cli.options import Options, pass_options
from embassy.cli.promote_abort import abort
from embassy.cli.promote_approving import Approval
from embassy.cli.promote_planning import Intention, make_plan
from embassy.cli.promote_reports import plan_details, report_json
from embassy.cli.promote_run import run
from embassy.cli.promote_running import read_plan
from embassy.cli.promote_screen import console, show_plan, show_report, show_terms
from embassy.cli.promote_status import states
from embassy.cli.proven_report import proven_report
from embassy.cli.stream_options import all_or_named, stream_options
from embassy.cli.telling import tell
from embassy.cli.together import tell_failures, words_of, worst_of
from embassy.runtime.audit_line import JSON
from embassy.runtime.exit_codes import ExitCode
from embassy.wire.keyring import load_operator
from embassy.wire.promotion_plan import Waivers
from embassy.wire.secret_file import write_new
from failover.promotion import Mode

_FILE = click.Path(dir_okay=False, path_type=Path)
_PLAN = click.Path(exists=True, dir_okay=False, path_type=Path)


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


promote.add_command(run)
promote.add_command(abort)


@promote.command()
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), required=True, help="Why.")
@click.option(
    "--accept-loss",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="How much of home's last commits may be lost, counted back from the sealing; disaster needs it.",
)
@click.option(
    "--accept-undrained",
    is_flag=True,
    help="Promote although records in the embassy's log cannot be applied, or the cluster that has them is lost.",
)
@click.option("--accept-violations", is_flag=True, help="Promote although rows break constraints.")
@click.option(
    "--accept-differences",
    is_flag=True,
    help="Promote although rows differ from home (embassy verify), or tables are left out for want of a key.",
)
@click.option(
    "--accept-incomplete",
    is_flag=True,
    help="Promote although tables lack rows, for a copy of them has not ended, and their source is lost for good.",
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
    accept_incomplete: bool,
    valid_minutes: int,
    output: Path,
) -> ExitCode:
    """Look at the replicas, and write the plan of their promotion; nothing is changed.

    It covers every stream of the configuration, or those that -r names. It is bound to their epochs, enrolments and
    present positions, to the operators' keys and to this site, and it expires. Exits with 4 if a gate is closed (the
    embassy's log cannot be read, rows are missing, …), or if more would be lost now than is accepted.

    Reads kafka.foreign, keys.identity (the embassy's own, which will sign the report), keys.operators, promotion and
    streams.NAME.replica.
    """
    if mode == Mode.DISASTER and accept_loss is None:
        raise click.UsageError(
            "--mode disaster needs --accept-loss SECONDS: how much of home's last commits may be lost"
        )
    if mode != Mode.DISASTER and accept_loss is not None:
        raise click.UsageError("--accept-loss belongs to --mode disaster: a switchover loses nothing")
    if mode != Mode.DISASTER and accept_incomplete:
        raise click.UsageError("--accept-incomplete belongs to --mode disaster: let the copies come to their end")
    options = all_or_named(options)
    with audited(options, "promote.plan", {"mode": mode, "output": str(output)}) as under_way:
        waivers = Waivers(accept_undrained, accept_violations, accept_differences, accept_incomplete)
        intention = Intention(mode, accept_loss, waivers, valid_minutes)
        file, outlooks = make_plan(options, intention)
        write_new(output, file.render(), mode=0o644)
        under_way.note(**plan_details(file.parsed(output)), payload_sha256=file.payload_hash.hex())
    made = file.parsed(output)
    refused = any(outlook.obstacles or outlook.beyond(accept_loss) for outlook in outlooks)
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
        show_plan(console(), made, outlooks)
        if refused:
            click.echo(
                "As things are, promote run refuses: the table and the lines with ! say why, and the way out."
            )
        click.echo(
            f"Written to {output}. Next, each of two persons: embassy … promote approve {output} --key THEIRS"
        )
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
    found.must_be_of_these_operators(path)
    show_terms(console(stderr=True), found.plan, found.persons)
    if not yes:
        confirm("Approve this?")
    details: dict[str, JSON] = {**plan_details(found.plan), "payload_sha256": found.file.payload_hash.hex()}
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
    tell(
        options,
        "embassy.promotion-approval/1",
        {"plan": str(path), "nonce": found.plan.nonce.hex(), "by": approval.person, "approvers": sorted(persons)},
        f"{path}: approved by {', '.join(sorted(persons))}",
    )


@promote.command()
@pass_options
@stream_options
def status(options: Options) -> ExitCode:
    """Show where each replica stands: its epoch, the plan under way and its last step.

    A replica that does not answer keeps no other from being shown; it is named, and the exit code is 3.
    """
    found, failures = states(options, options.settings())
    if options.as_json:
        told = {
            "schema": "embassy.promotion/1",
            "streams": [state.to_json() for state in found],
            "failed": words_of(failures),
        }
        click.echo(json.dumps(told, indent=2))
    else:
        for state in found:
            click.echo(state.line())
    tell_failures(failures)
    return worst_of(failures)


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
        show_report(console(), proven.streams, proven.persons)
