"""``embassy promote abort``: a plan is used up before its point of no return, and the embassy signs that it is."""

from __future__ import annotations

from pathlib import Path

import click

from embassy.cli.auditing import audited
from embassy.cli.options import Options, pass_options
from embassy.cli.promote_reports import aborted_entries, earlier_entries, plan_details, write_report
from embassy.cli.promote_running import Approved, chosen, own_identity, planned_stream, read_plan
from embassy.cli.stream_options import all_or_named, stream_options
from embassy.cli.telling import tell
from embassy.cli.together import each
from embassy.model.errors import EmbassyError, RefusedError, StaleError
from embassy.pg import promotion_store
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import transient
from embassy.pg.setup_errors import LOCK_SETTINGS, explained
from embassy.pg.stream_lock import PROMOTION_LOCK
from embassy.runtime.config import Settings
from embassy.runtime.exit_codes import ExitCode, exit_code, worst
from embassy.runtime.failpoints import PROMOTION_AFTER_ABORTED, failpoint
from embassy.wire.promotion_plan import PlannedStream
from failover.stream_promotion import has_raised

_APPLICATION = "embassy-promote-abort"
_TOGETHER = 12


@click.command()
@click.argument("path", metavar="PLAN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--reason", required=True, help="Why; it stays in the journal and the audit log.")
@pass_options
@stream_options
def abort(options: Options, path: Path, *, reason: str) -> ExitCode:
    """Give a plan up before its point of no return: it can never be run again, and the consumers go on.

    Refused for a registry whose epoch the plan has raised: run the plan to its end instead. Writes the signed proof by
    which a home that was fenced for this plan is opened again (embassy home release): PLAN with .aborted.json. It is of
    the registries for which the plan is given up; where one fails, the same command goes on with it.

    Reads keys.identity, keys.operators and streams.NAME.replica.
    """
    settings = options.settings()
    options = all_or_named(options)
    with audited(options, "promote.abort", {"plan": str(path), "reason": reason}) as under_way:
        approved = read_plan(options, settings, path)
        wanted = chosen(approved.plan, options, path)
        under_way.note(**plan_details(approved.plan), registries=[planned.name for planned in wanted])
        identity = own_identity(options, settings, approved.plan, path)
        proof = path.with_suffix(".aborted.json")
        earlier_entries(proof, approved.file)  # before anything is changed
        failures = each(
            wanted,
            lambda planned: _use_up(options, settings, approved, planned, reason),
            at_once=_TOGETHER,
            what="abort",
        )
        failed = {failure.name: failure.error for failure in failures}
        aborted = [planned for planned in wanted if planned.name not in failed]
        if aborted:
            failpoint(PROMOTION_AFTER_ABORTED)
            write_report(proof, approved.file, aborted_entries(aborted), identity)
            under_way.note(aborted=[planned.name for planned in aborted], proof=str(proof))
        _tell(options, path, proof, [planned.name for planned in aborted], failed)
        if failed:
            under_way.note(refused={name: str(error.args[0]) for name, error in failed.items()})
        return under_way.ended(worst(frozenset(map(exit_code, failed.values()))))


def _tell(options: Options, path: Path, proof: Path, aborted: list[str], failed: dict[str, EmbassyError]) -> None:
    for name, error in failed.items():
        click.echo(f"error: {name}: {error}", err=True)
    tell(
        options,
        "embassy.promotion-abort/1",
        {
            "plan": str(path),
            "aborted": aborted,
            "failed": {name: str(error.args[0]) for name, error in failed.items()},
            "proof": str(proof) if aborted else None,
        },
        *(
            [f"given up: {', '.join(aborted)}. If home was fenced for it: embassy home release {proof}"]
            if aborted
            else []
        ),
    )


def _use_up(options: Options, settings: Settings, approved: Approved, planned: PlannedStream, reason: str) -> None:
    """Use the plan up in one replica.

    Raises:
        RefusedError: the plan has raised the epoch; nothing was changed there.
        StaleError: a run of a plan is at work.
        TransientError: the replica is unreachable.
    """
    stream = planned_stream(options, settings, planned)
    replica = options.need(stream.replica, f"streams.{planned.name}.replica")
    place = place_of(replica.dsn)
    with (
        transient(place),
        explained(place),
        connect(replica.dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS) as session,
    ):
        promotion_store.require(session, place)
        if not PROMOTION_LOCK.try_take(session, planned.stream):
            raise StaleError(
                "a run of a plan is at work there", place=place, hint="end it first, then abort the plan"
            )
        if has_raised(promotion_store.journal(session, approved.plan.nonce)):
            raise RefusedError(
                "the plan has passed its point of no return here",
                place=place,
                hint="run the plan again: it goes on to its end",
            )
        promotion_store.abort(
            session,
            nonce=approved.plan.nonce,
            stream=planned.stream,
            epochs=(planned.from_epoch, planned.to_epoch),
            document=approved.file.render(),
            reason=reason,
        )
