"""``embassy unfreeze``: two persons let a frozen stream go on."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from embassy.cli.auditing import audited
from embassy.cli.key_prompts import confirm
from embassy.cli.operator_keys import load_own_key
from embassy.cli.options import Options, pass_options
from embassy.cli.points import POINT
from embassy.cli.replica_control import replica_of
from embassy.cli.stream_options import stream_options
from embassy.cli.together import each, reasons_of, tell_failures, words_of, worst_of
from embassy.model.control import Freeze, Point
from embassy.model.errors import ApprovalError, RefusedError, StaleError
from embassy.model.lsn import Lsn
from embassy.model.wording import iso, printable
from embassy.pg import control_store
from embassy.runtime.audit_line import JSON
from embassy.runtime.exit_codes import ExitCode
from embassy.wire.approval import Order
from embassy.wire.enrolment import load_roster
from embassy.wire.key_document import damaged
from embassy.wire.secret_file import replace, write_new

_ACTION = "unfreeze"
_PERSONS_LEAST = 2
_CLOCKS_SECONDS = 300
_TOGETHER = 16
_FILE = click.Path(dir_okay=False, path_type=Path)


class _Ordered(NamedTuple):
    """What an order says of one stream."""

    registry: str
    stream: str
    freeze: int
    freeze_id: str
    """Random: it is this freeze of this replica, and none with the same number elsewhere."""
    frozen_at: str
    frozen_by: str
    frozen_because: str
    suspect: str | None
    """The transaction that is let pass."""

    @property
    def name(self) -> str:
        """The registry's."""
        return self.registry


@click.group()
def unfreeze() -> None:
    """Let frozen streams go on: planned by one, approved by two persons, then run.

    \b
    embassy -c admin.toml -r land_register unfreeze plan order.json --reason 'the deletion is right: case 17'
    embassy unfreeze approve order.json --key anna.json      (anywhere, without any connection)
    embassy unfreeze approve order.json --key bert.json
    embassy -c admin.toml unfreeze run order.json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


@unfreeze.command()
@click.argument("path", type=_FILE)
@click.option("--reason", required=True, help="Why it may go on.")
@click.option("--stop-at", type=POINT, help="Apply up to this commit only, and freeze there again.")
@click.option("--at-once", is_flag=True, help="With --stop-at: whatever apply_delay_seconds says.")
@click.option(
    "--valid-minutes",
    type=click.IntRange(1, 1440),
    default=60,
    show_default=True,
    help="How long the order may be run.",
)
@pass_options
@stream_options
def plan(
    options: Options, path: Path, *, reason: str, stop_at: Point | None, at_once: bool, valid_minutes: int
) -> None:
    """Write an order to PATH: to lift the freezes that stand now, those and no later ones.

    Without -r, every stream of the configuration that is frozen.
    """
    if at_once and stop_at is None:
        raise click.UsageError("--at-once belongs to --stop-at")
    settings = options.settings()
    ordered = []
    for name, stream in options.streams(settings).items():
        with replica_of(options, name, stream) as connection:
            found = control_store.read(connection, bytes.fromhex(stream.stream)).freeze
        if found is not None:
            ordered.append(_ordered(options, name, stream.stream, found))
        elif name in options.registries:
            raise RefusedError(f"{name} is not frozen", place=options.place, hint="embassy status shows what is")
    if not ordered:
        raise RefusedError("no stream is frozen", place=options.place, hint="embassy status shows what is")
    now = time.time()
    fields = {
        "site": settings.site,
        "reason": reason,
        "streams": [entry._asdict() for entry in ordered],
        "stop_at_lsn": str(stop_at.lsn) if stop_at is not None and stop_at.lsn is not None else None,
        "stop_at_microseconds": stop_at.time if stop_at is not None else None,
        "at_once": at_once,
        "ordered_at": now,
        "expires_at": now + valid_minutes * 60,
        "nonce": secrets.token_hex(16),
    }
    order = Order.draft(_ACTION, fields)
    details: dict[str, JSON] = {"path": str(path), "reason": reason, "registries": [e.registry for e in ordered]}
    with audited(options, "unfreeze.plan", details):
        write_new(path, order.render(), mode=0o644)
    _tell(options, order.fields(_ACTION, path), ())


@unfreeze.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", "own_key", required=True, type=_FILE, help="Your secret operator key file.")
@click.option("--yes", is_flag=True, help="Do not ask whether this is what you mean to approve.")
@pass_options
def approve(options: Options, path: Path, *, own_key: Path, yes: bool) -> None:
    """Add your signature to the order in PATH, after showing what it says. Needs no connection to anything."""
    order = Order.read(path)
    fields = order.fields(_ACTION, path)
    _tell(options, fields, ())
    if not yes:
        confirm("Approve this?")
    with audited(options, "unfreeze.approve", {"path": str(path), "nonce": fields.get("nonce")}) as under_way:
        operator = load_own_key(own_key)
        under_way.note(persons=[operator.public.person])
        signed = order.signed(operator)
        replace(path, signed.render())
    if not options.as_json:
        click.echo(f"{path}: {len(signed.signatures)} signatures")


@unfreeze.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_options
def run(options: Options, path: Path) -> ExitCode:
    """Lift the freezes that the order in PATH names, if two persons of the roster have approved it.

    A stream goes on from exactly where it stood. A transaction that a threshold had stopped passes, once. One that
    cannot be lifted keeps no other from it, and is named; run again, the same order goes on with it.
    """
    settings = options.settings()
    roster = load_roster(options.need(settings.keys.operators, "keys.operators"), settings.keys.threshold)
    order = Order.read(path)
    with audited(options, "unfreeze.run", {"path": str(path)}) as under_way:
        persons = order.signers(roster)
        under_way.note(persons=sorted(persons))
        needed = max(_PERSONS_LEAST, settings.keys.threshold)
        if len(persons) < needed:
            by = f" ({', '.join(sorted(persons))})" if persons else ""
            raise ApprovalError(
                f"the order is approved by {len(persons)} of the {needed} persons that it needs{by}",
                place=str(path),
                hint="let another operator of keys.operators approve it: embassy unfreeze approve",
            )
        fields = order.fields(_ACTION, path)
        under_way.note(nonce=str(fields.get("nonce")), reason=str(fields.get("reason")))
        entries, stop_at = _parsed(fields, path)
        _check_site(fields["site"], settings.site, path)
        _check_time(fields, path)
        done: dict[str, bool] = {}

        def one(entry: _Ordered) -> None:
            done[entry.name] = _lift(options, entry, stop_at, fields, path)

        failures = each(entries, one, at_once=_TOGETHER, what="unfreeze")
        under_way.note(lifted=sorted(done))
        if failures:
            under_way.note(refused=reasons_of(failures))
        results = {name: {"lifted": True, "already": not now} for name, now in sorted(done.items())}
        _tell(options, fields, sorted(persons), registries=results, failed=words_of(failures))
        tell_failures(failures)
        return under_way.ended(worst_of(failures))


def _lift(options: Options, entry: _Ordered, stop_at: Point | None, fields: Mapping[str, Any], path: Path) -> bool:
    """Lift a stream's freeze; False if this very order has lifted it before.

    What the order says of the freeze is all that those who approved it were shown: it has to be true.
    """
    streams = options.settings().streams
    found = next(((name, s) for name, s in streams.items() if s.stream == entry.stream), None)
    if found is None:
        raise RefusedError(
            f"the configuration has no stream {entry.stream}", place=options.place, hint="use the site's own file"
        )
    name, stream = found
    identity, nonce, at_once = bytes.fromhex(entry.stream), fields["nonce"], fields["at_once"]
    with replica_of(options, name, stream) as connection:
        standing = control_store.read(connection, identity).freeze
        if (
            standing is not None
            and standing.id == entry.freeze_id
            and _ordered(options, name, stream.stream, standing) != entry
        ):
            raise RefusedError(
                f"the order tells something else of {name}'s freeze than what is known here",
                place=str(path),
                hint="find out who planned it, and what those who approved it were shown; plan and approve a new one",
            )
        if control_store.unfreeze(
            connection, identity, freeze_id=entry.freeze_id, by=nonce, stop_at=stop_at, at_once=at_once
        ):
            return True
        control = control_store.read(connection, identity)
    # Where the order says to freeze again, that is no new freeze to wonder about.
    if control.lifted_by == nonce and (control.freeze is None or stop_at is not None):
        return False
    raise StaleError(
        f"{name} is not in the freeze for which this order was approved (freeze {entry.freeze}, by {entry.frozen_by} "
        f"at {entry.frozen_at})",
        place=str(path),
        hint="it was lifted, or it is that of another replica: see embassy status; if this one is frozen, plan and "
        "approve an order for it",
    )


def _ordered(options: Options, name: str, stream: str, freeze: Freeze) -> _Ordered:
    if not freeze.id:
        raise RefusedError(
            f"{name} was frozen by a program of an earlier version: no order can name that freeze",
            place=options.place,
            hint="embassy provision apply gives it a name",
        )
    suspect = str(freeze.suspect) if freeze.suspect is not None else None
    return _Ordered(name, stream, freeze.number, freeze.id, iso(freeze.at), freeze.by, freeze.reason, suspect)


def _parsed(fields: Mapping[str, Any], path: Path) -> tuple[list[_Ordered], Point | None]:
    try:
        entries = [_Ordered(**entry) for entry in fields["streams"]]
        lsn, at = fields["stop_at_lsn"], fields["stop_at_microseconds"]
        point = Point(Lsn.parse(lsn) if lsn is not None else None, at)
        right = [type(fields["at_once"]) is bool, type(fields["site"]) is str, type(fields["nonce"]) is str]
        if not all(right) or any(type(entry.freeze) is not int for entry in entries):
            raise ValueError  # noqa: TRY301 - one way out for every defect
        for entry in entries:
            uuid.UUID(entry.freeze_id)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise damaged("order", path) from error
    return entries, point if point != Point() else None


def _check_site(ordered: str, here: str, path: Path) -> None:
    if ordered != here:
        raise StaleError(
            f"the order is for site {ordered}, and this is {here}",
            place=str(path),
            hint="use that site's configuration, or plan and approve an order here",
        )


def _check_time(fields: Mapping[str, Any], path: Path) -> None:
    now, since, until = time.time(), fields.get("ordered_at"), fields.get("expires_at")
    if not isinstance(since, float | int) or not isinstance(until, float | int):
        raise damaged("order", path)
    if now > until:
        raise ApprovalError(
            f"the order expired at {iso(until)}", place=str(path), hint="plan and approve a new one"
        )
    if since > now + _CLOCKS_SECONDS:
        raise ApprovalError(
            f"the order is from the future ({iso(since)}): this machine's clock may have been set back",
            place=str(path),
            hint="set the clock, then run it again",
        )


def _tell(
    options: Options, fields: Mapping[str, Any], persons: Sequence[str], **outcome: Mapping[str, Any]
) -> None:
    """Show an order, and what has come of it: ``registries`` that it has lifted, and why others ``failed``."""
    if options.as_json:
        report = {"schema": "embassy.unfreeze/1", **fields, "approved_by": list(persons), **outcome}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    entries, stop_at = _parsed(fields, Path("order"))
    for entry in entries:
        _say(
            f"{entry.registry} at {fields['site']}: freeze {entry.freeze}, by {entry.frozen_by} at {entry.frozen_at}"
        )
        _say(f"  stream {entry.stream}, freeze {entry.freeze_id}")
        _say(f"  frozen because: {entry.frozen_because}")
        if entry.suspect is not None:
            _say(f"  lets pass: {entry.suspect}")
    if stop_at is not None:
        at_once = ", at once" if fields["at_once"] else ""
        _say(f"goes on up to {stop_at}{at_once}, and freezes there again")
    _say(f"reason: {fields.get('reason')}")
    for name, result in outcome.get("registries", {}).items():
        _say(f"{name}: " + ("lifted by this order before" if result["already"] else "lifted"))
    if persons:
        _say(f"approved by {', '.join(persons)}")
    else:
        _say(f"valid until {iso(float(fields['expires_at']))}")


def _say(text: str) -> None:
    """Most of an order is its planner's words, and whoever approves it must see what is signed."""
    click.echo(printable(text))
