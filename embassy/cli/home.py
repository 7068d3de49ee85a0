"""``embassy home``: shutting home, once the embassy has or is about to have the registries, and opening it again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import click
import psycopg

from embassy.cli.auditing import actor, audited
from embassy.cli.options import Options, pass_options
from embassy.cli.proven_report import proven_report
from embassy.cli.stream_options import stream_options
from embassy.model.errors import ApprovalError, EmbassyError, RefusedError
from embassy.pg import source_fence
from embassy.pg.connection import connect, place_of
from embassy.pg.reign import reign
from embassy.pg.replica_opening import let_in
from embassy.pg.setup_errors import LOCK_SETTINGS, explained
from embassy.pg.source_fence import Fence, Fenced
from embassy.runtime.config import Settings
from embassy.runtime.exit_codes import ExitCode, exit_code, worst
from embassy.wire.enrolment import load_roster
from embassy.wire.key_document import load_object
from embassy.wire.promotion_plan import Plan, PlanFile
from embassy.wire.promotion_report import Report
from embassy.wire.public_keys import read_text
from failover.promotion import PERSONS_LEAST, Mode

_APPLICATION = "embassy-home-fence"
_SIZE_MOST = 16 << 20
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def home() -> None:
    """Shut home, once the embassy has or is about to have the registries."""


class _Word(NamedTuple):
    """On whose word home is shut."""

    plan: Plan
    persons: frozenset[str]
    promoted: bool
    """Whether it is a report: the embassy has the registries already."""


@home.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--reason", required=True, help="Why; it stays in the database and the audit log.")
@pass_options
@stream_options
def fence(options: Options, path: Path, *, reason: str) -> ExitCode:
    """Let nobody write to the registries at home any more.

    FILE is the signed report of a promotion, or, for a switchover, its approved plan: two persons' word is in either.
    Application roles lose their login, sessions are ended, every table refuses writes from everyone, superusers included.
    With a report the producer refuses to run from then on; with a plan it goes on, and carries abroad what was committed
    and that nobody writes any more. Repeatable.

    Reads keys.operators, promotion.application_roles and streams.NAME.source.
    """
    settings = options.settings()
    with audited(options, "home.fence", {"file": str(path), "reason": reason}) as under_way:
        word = _word(options, settings, path)
        under_way.note(nonce=word.plan.nonce.hex(), approvers=sorted(word.persons))
        found, failures = _fence_all(options, settings, word, reason)
        under_way.note(fenced=sorted(found))
        for name, error in failures.items():
            click.echo(f"error: {name}: {error}", err=True)
        if options.as_json:
            report = {name: done._asdict() for name, done in sorted(found.items())}
            click.echo(json.dumps({"schema": "embassy.home-fence/1", "fenced": report}, indent=2))
        else:
            for name, done in sorted(found.items()):
                click.echo(
                    f"{name}: fenced; {done.tables} tables shut, {done.sessions} sessions ended"
                    + ("" if done.new else " (it was fenced before)")
                )
        code = worst(frozenset(exit_code(error) for error in failures.values()))
        return under_way.ended(code) if failures else ExitCode.OK


@home.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--reason", required=True, help="Why; it stays in the audit log.")
@pass_options
@stream_options
def release(options: Options, path: Path, *, reason: str) -> ExitCode:
    """Open home again after a switchover that was given up.

    FILE is what embassy promote abort has written: the embassy's signed word that the plan is used up, and can never be
    run. A home whose registries were promoted stays shut.
    """
    settings = options.settings()
    with audited(options, "home.release", {"file": str(path), "reason": reason}) as under_way:
        report = proven_report(options, settings, path)
        under_way.note(nonce=report.plan.nonce.hex())
        if not report.still_operators:  # the word of those who left opens nothing
            raise ApprovalError(
                f"of those who approved the plan ({', '.join(sorted(report.persons))}) nobody is an operator any more",
                place=str(path),
                hint="ask the embassy whether it was given up; then name the roster as it was when home was fenced in "
                "keys.operators, and release again",
            )
        opened = list(_release_all(options, settings, report))
        under_way.note(opened=opened)
    click.echo(f"open again: {', '.join(opened)}")
    return ExitCode.OK


def _release_all(options: Options, settings: Settings, report: Report) -> Iterator[str]:
    for name, stream in options.streams(settings).items():
        identity = bytes.fromhex(stream.stream)
        if not report.was_given_up(identity):
            continue
        source = options.need(stream.source, f"streams.{name}.source")
        place = place_of(source.dsn)
        with (
            explained(place),
            connect(source.dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS) as session,
        ):
            epoch = reign(session, identity).epoch
            others = [
                nonce
                for nonce, promoted in source_fence.fences(session, identity, epoch)
                if promoted or nonce != report.plan.nonce
            ]
            if others:
                raise RefusedError(
                    f"home is fenced for another plan too: {others[0].hex()}",
                    place=name,
                    hint="a home whose registry was promoted stays shut",
                )
            source_fence.release(
                session, report.plan.nonce, roles=settings.promotion.application_roles, grant=let_in
            )
        yield name


def _word(options: Options, settings: Settings, path: Path) -> _Word:
    """A report, or a plan that enough persons have approved and that has not expired by this machine's clock."""
    threshold = settings.keys.threshold
    roster = load_roster(options.need(settings.keys.operators, "keys.operators"), threshold)
    if "signature" in load_object(read_text(path, "file", _SIZE_MOST), "file", path):
        report = proven_report(options, settings, path)
        if not any(report.epoch_of(planned.stream) for planned in report.plan.streams):
            raise RefusedError(
                "the file says that the plan was given up", place=str(path), hint="embassy home release"
            )
        return _Word(report.plan, report.persons, promoted=True)
    file = PlanFile.read(path)
    persons, needed = file.signers(roster), max(PERSONS_LEAST, threshold)
    if len(persons) < needed:
        raise ApprovalError(
            f"the plan is approved by {len(persons)} of the {needed} persons it needs",
            place=str(path),
            hint="let another person of keys.operators run embassy promote approve",
        )
    plan = file.parsed(path)
    if plan.mode != Mode.SWITCHOVER:
        raise RefusedError(
            "the plan is of a disaster: home is fenced with the report of its run",
            place=str(path),
            hint="name PLAN.report.json",
        )
    if time.time() >= min(planned.expires_at for planned in plan.streams):
        raise ApprovalError("the plan has expired", place=str(path), hint="make a new plan, and have it approved")
    return _Word(plan, persons, promoted=False)


def _fence_all(
    options: Options, settings: Settings, word: _Word, reason: str
) -> tuple[dict[str, Fenced], dict[str, EmbassyError]]:
    found: dict[str, Fenced] = {}
    failures: dict[str, EmbassyError] = {}
    lock = threading.Lock()

    def revoke(connection: psycopg.Connection[Any], roles: Sequence[str]) -> None:
        with lock:  # registries of one server share their roles
            source_fence.revoke_login(connection, roles)

    def one(name: str, dsn: str, wish: Fence) -> None:
        place = place_of(dsn)
        try:
            with (
                explained(place),
                connect(dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS) as session,
            ):
                if not source_fence.is_ready(session):
                    raise RefusedError(
                        "the database has no table that tells of fences",
                        place=place,
                        hint="embassy provision apply at home adds it",
                    )
                here = reign(session, wish.stream)
                if here.is_replica:  # its consumer would be shut out, too
                    raise RefusedError(
                        f"the database is a replica of epoch {here.follows}: nobody writes there, and the registry is "
                        "elsewhere",
                        place=place,
                        hint="use the configuration that names the registry's present databases as streams.NAME.source",
                    )
                found[name] = source_fence.fence(
                    session, wish, roles=settings.promotion.application_roles, place=place, revoke=revoke
                )
        except EmbassyError as error:
            failures[name] = error

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="fence") as pool:
        for future in [pool.submit(one, *work) for work in _wishes(options, settings, word, reason)]:
            future.result()
    return found, failures


def _wishes(options: Options, settings: Settings, word: _Word, reason: str) -> Iterator[tuple[str, str, Fence]]:
    who = actor()
    covered = 0
    for name, stream in options.streams(settings).items():
        planned = word.plan.stream(bytes.fromhex(stream.stream))
        if planned is None:
            continue
        covered += 1
        source = options.need(stream.source, f"streams.{name}.source")
        yield (
            name,
            source.dsn,
            Fence(word.plan.nonce, planned.stream, planned.to_epoch, who, reason, promoted=word.promoted),
        )
    if not covered:
        raise RefusedError("the file is about none of these registries", hint="is it another site's?")
