"""``embassy home``: shutting home, once the embassy has or is about to have the registries, and opening it again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import psycopg

from embassy.cli.auditing import Audited, actor, audited
from embassy.cli.fence_word import Word, load_word
from embassy.cli.options import Options, pass_options
from embassy.cli.proven_report import proven_report
from embassy.cli.stream_options import stream_options
from embassy.cli.together import Failure, each, reasons_of, tell_failures, words_of, worst_of
from embassy.model.errors import ApprovalError, RefusedError, StaleError
from embassy.pg import source_fence
from embassy.pg.connection import connect, place_of
from embassy.pg.reign import Reign, reign
from embassy.pg.replica_opening import let_in
from embassy.pg.setup_errors import LOCK_SETTINGS, explained
from embassy.pg.source_fence import Fence, Fenced, StandingFence
from embassy.pg.stream_lock import PROMOTION_LOCK
from embassy.runtime.config import Settings, Stream
from embassy.runtime.exit_codes import ExitCode
from embassy.wire.promotion_report import Report
from failover.fences import Opening, decide_opening, others

_APPLICATION = "embassy-home-fence"
_TOGETHER = 8
"""Registries at once."""
_HOLDER_ENDS_SECONDS = 30.0
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def home() -> None:
    """Shut home, once the embassy has or is about to have the registries."""


@home.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--reason", required=True, help="Why; it stays in the database and the audit log.")
@pass_options
@stream_options
def fence(options: Options, path: Path, *, reason: str) -> ExitCode:
    """Let nobody write to the registries at home any more.

    FILE is the signed report of a promotion, or, for a switchover, its approved plan: two persons' word is in either.
    Application roles lose their login, sessions are ended, every table refuses writes from everyone, superusers included.
    Roles keep it as long as another registry of the same server is open: they are its application's, too.
    With a report the producer refuses to run from then on; with a plan it goes on, and carries abroad what was committed
    and that nobody writes any more. Repeatable.

    A registry of the plan that the report does not say was promoted is left as it is, and named: nobody else has it. A
    report or plan of an epoch that is past is refused with 7: its database has the registry.

    Reads keys.operators, promotion.application_roles and streams.NAME.source.
    """
    settings = options.settings()
    with audited(options, "home.fence", {"file": str(path), "reason": reason}) as under_way:
        word = load_word(options, settings, path)
        under_way.note(nonce=word.plan.nonce.hex(), approvers=sorted(word.persons))
        work, left = _fence_work(options, settings, word)
        found: dict[str, Fenced] = {}
        roles = _Roles(settings.promotion.application_roles)

        def one(item: _Work) -> None:
            found[item.name] = _fence(item, word, reason, roles)

        failures = each(work, one, at_once=_TOGETHER, what="fence")
        under_way.note(fenced=sorted(found), not_promoted=left)
        if options.as_json:
            fenced = {name: done._asdict() for name, done in sorted(found.items())}
            shown = {"schema": "embassy.home-fence/1", "fenced": fenced, "not_promoted": left}
            shown |= {"open_beside": roles.open_beside, "refused": words_of(failures)}
            click.echo(json.dumps(shown, indent=2))
        else:
            for name, done in sorted(found.items()):
                click.echo(
                    f"{name}: fenced; {done.tables} tables shut, {done.sessions} sessions ended"
                    + ("" if done.new else " (it was fenced before)")
                )
            if roles.open_beside:
                click.echo(
                    f"the application may log in still, for {', '.join(roles.open_beside)} of its server is open"
                )
            for name in left:
                click.echo(f"{name}: left as it is: by the report it was not promoted, and nobody else has it")
        return _ended(under_way, failures)


@home.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--reason", required=True, help="Why; it stays in the audit log.")
@pass_options
@stream_options
def release(options: Options, path: Path, *, reason: str) -> ExitCode:
    """Open home again after a switchover that was given up.

    FILE is what embassy promote abort has written: the embassy's signed word that the plan is used up, and can never be
    run. A home whose registries were promoted stays shut.

    Where home was fenced for several plans, the proof of each takes back its own part, in any order: the last one opens.
    Until then a registry is refused with 5, and the plan that keeps it shut is named.

    Reads keys.operators, promotion.application_roles and streams.NAME.source.
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
        opened: list[str] = []
        roles = _Roles(settings.promotion.application_roles)

        def one(item: _Work) -> None:
            _release(item, report.plan.nonce, roles)
            opened.append(item.name)

        failures = each(_release_work(options, settings, report, path), one, at_once=_TOGETHER, what="release")
        opened.sort()
        under_way.note(opened=opened)
        if options.as_json:
            shown = {"schema": "embassy.home-release/1", "opened": opened, "refused": words_of(failures)}
            click.echo(json.dumps(shown, indent=2))
        elif opened:
            click.echo(f"open again: {', '.join(opened)}")
        return _ended(under_way, failures)


class _Work(NamedTuple):
    """One registry's database at home."""

    name: str
    stream: bytes
    dsn: str
    to_epoch: int


class _Roles:
    """The application's, which registries of one server share: their login is changed by one at a time."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], list[str]] = {}

    @property
    def open_beside(self) -> list[str]:
        """The databases for which they keep it."""
        return sorted({name for names in self._open.values() for name in names}) if self.names else []

    def revoke(self, connection: psycopg.Connection[Any], names: Sequence[str]) -> None:
        """Take their login, unless other registries of the server are open; who asks last knows which are."""
        server = (connection.info.host, connection.info.port)
        with self._lock:
            self._open[server] = source_fence.revoke_login(connection, names)

    def let_in(self, connection: psycopg.Connection[Any], names: Sequence[str]) -> None:
        """Give it back."""
        with self._lock:
            let_in(connection, names)


def _fence_work(options: Options, settings: Settings, word: Word) -> tuple[list[_Work], list[str]]:
    """The registries that the word shuts, and the names of those that its plan is about, and a report is not.

    Raises:
        RefusedError: it shuts none.
        ConfigurationError: the configuration does not say where one is.
    """
    work, left = [], []
    for name, stream in options.streams(settings).items():
        identity = bytes.fromhex(stream.stream)
        to_epoch = word.epoch_of(identity)
        if to_epoch is not None:
            work.append(_Work(name, identity, _source_of(options, name, stream), to_epoch))
        elif word.plan.stream(identity) is not None:
            left.append(name)
    if not work and left:
        raise RefusedError(
            f"by the report {', '.join(left)} was not promoted: nobody else has it",
            hint="if it was promoted later: take the report of that run",
        )
    if not work:
        raise RefusedError("the file is about none of these registries", hint="is it another site's?")
    return work, sorted(left)


def _release_work(options: Options, settings: Settings, report: Report, path: Path) -> list[_Work]:
    work = []
    for name, stream in options.streams(settings).items():
        identity = bytes.fromhex(stream.stream)
        planned = report.plan.stream(identity)
        if planned is not None and report.was_given_up(identity):
            work.append(_Work(name, identity, _source_of(options, name, stream), planned.to_epoch))
    if not work:
        raise RefusedError(
            "the file does not say of any of these registries that the plan was given up",
            place=str(path),
            hint="embassy promote abort PLAN writes one that does; is this another site's?",
        )
    return work


def _source_of(options: Options, name: str, stream: Stream) -> str:
    return options.need(stream.source, f"streams.{name}.source").dsn


@contextmanager
def _session(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with (
        explained(place_of(dsn)),
        connect(dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS) as session,
    ):
        yield session


def _fence(item: _Work, word: Word, reason: str, roles: _Roles) -> Fenced:
    place = place_of(item.dsn)
    with _session(item.dsn) as session:
        if not source_fence.is_ready(session):
            raise RefusedError(
                "the database has no table that tells of fences",
                place=place,
                hint="embassy provision apply at home adds it",
            )
        here = reign(session, item.stream)
        if here.is_replica:  # its consumer would be shut out, too
            raise RefusedError(
                f"the database is a replica of epoch {here.follows}: nobody writes there, and the registry is elsewhere",
                place=place,
                hint="use the configuration that names the registry's present databases as streams.NAME.source",
            )
        _refuse_if_past(item, here)
        # One that opens it, or shuts it too, would undo what follows: shutting wins.
        if not PROMOTION_LOCK.take_over(session, item.stream, _HOLDER_ENDS_SECONDS):
            raise StaleError(
                f"{PROMOTION_LOCK.in_whose_hands(session, item.stream)} is at work on this stream",
                place=place,
                hint="end that session, then run this again",
            )
        wish = Fence(word.plan.nonce, item.stream, item.to_epoch, actor(), reason, promoted=word.promoted)
        return source_fence.fence(session, wish, roles=roles.names, place=place, revoke=roles.revoke)


def _refuse_if_past(item: _Work, here: Reign) -> None:
    if item.to_epoch <= here.epoch:
        raise StaleError(
            f"the file is about epoch {item.to_epoch}, and the database has the registry in epoch {here.epoch}",
            place=place_of(item.dsn),
            hint="take the newest file: embassy promote status, at the site that is, or was, to have the registry",
        )


def _release(item: _Work, given_up: bytes, roles: _Roles) -> None:
    with _session(item.dsn) as session:
        here = reign(session, item.stream)
        _refuse_if_past(item, here)
        if not PROMOTION_LOCK.try_take(session, item.stream):
            raise StaleError(
                f"{PROMOTION_LOCK.in_whose_hands(session, item.stream)} is at work on this stream",
                place=place_of(item.dsn),
                hint="wait for it; run this again if that run has died",
            )
        held = {fence.nonce: fence for fence in source_fence.fences(session, item.stream, here.epoch)}
        opening = decide_opening({nonce: fence.promoted for nonce, fence in held.items()}, given_up)
        if opening is Opening.SUPERSEDED:
            raise RefusedError(
                "the registry was promoted elsewhere, a report proves it: home stays shut",
                place=place_of(item.dsn),
                hint="docs/runbooks/failback.md: embassy failback run",
            )
        if opening is Opening.SHUT_FOR_OTHERS:
            source_fence.take_back(session, given_up)
            raise RefusedError(
                "this plan keeps home shut no longer, but "
                + _named([held[nonce] for nonce in others(held, given_up)]),
                place=place_of(item.dsn),
                hint="embassy promote abort, where that plan was to be run, then embassy home release with its proof",
            )
        source_fence.open_again(session, roles=roles.names, grant=roles.let_in)
        source_fence.take_back(session, given_up)


def _named(fences: Sequence[StandingFence]) -> str:
    return "; ".join(
        f"plan {fence.nonce.hex()[:8]} to epoch {fence.to_epoch} does (fenced by {fence.by} at "
        f"{fence.at:%Y-%m-%d %H:%M:%S}Z: {fence.reason})"
        for fence in fences
    )


def _ended(under_way: Audited, failures: Sequence[Failure]) -> ExitCode:
    """Tell what failed, and with what the command ends."""
    tell_failures(failures)
    if failures:
        under_way.note(refused=reasons_of(failures))
    return under_way.ended(worst_of(failures))
