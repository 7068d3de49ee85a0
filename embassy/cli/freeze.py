"""``embassy freeze``: one person stops applying."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click

from embassy.cli.auditing import audited
from embassy.cli.operator_keys import load_own_key
from embassy.cli.options import Options, pass_options
from embassy.cli.points import POINT
from embassy.cli.replica_control import replica_of
from embassy.cli.stream_options import stream_options
from embassy.cli.together import each, tell_failures, words_of, worst_of
from embassy.model.control import Point
from embassy.model.errors import RefusedError
from embassy.pg import control_store
from embassy.runtime.audit_line import JSON
from embassy.runtime.config import Stream
from embassy.runtime.exit_codes import ExitCode
from embassy.wire.approval import Order
from embassy.wire.enrolment import load_roster
from embassy.wire.keyring import Operator
from embassy.wire.public_keys import PublicOperator

_TOGETHER = 32
"""Many, so that replicas that do not answer keep none waiting that does."""


@click.command()
@click.option("--reason", required=True, help="Why; it is kept, and shown by status.")
@click.option(
    "--key",
    "own_key",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Your secret operator key file: the roster must know it.",
)
@click.option(
    "--stop-at",
    type=POINT,
    help="Go on to this commit and freeze there; a time needs its zone, and is the source's.",
)
@pass_options
@stream_options
def freeze(options: Options, *, reason: str, own_key: Path, stop_at: Point | None) -> ExitCode:
    """Apply nothing more to the replicas, from now on or from a point on.

    One operator may do this alone; lifting it takes two (embassy unfreeze). When the command returns, nothing more is
    committed. What comes meanwhile is kept in Kafka: watch that its retention lasts.

    A replica that does not answer keeps no other from being frozen; it is named, and the exit code is 3.

    Without -r, every stream of the configuration. Reads keys.operators and streams.NAME.replica.

    \b
    embassy -c admin.toml -r land_register freeze --reason 'rows vanish' --key anna.json
    embassy -c admin.toml -r land_register freeze --stop-at 2026-03-01T12:00:00Z --reason '…' --key anna.json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    settings = options.settings()
    targets = [_Target(name, stream) for name, stream in options.streams(settings).items()]
    roster = load_roster(options.need(settings.keys.operators, "keys.operators"), settings.keys.threshold)
    word = _Word(options, load_own_key(own_key), own_key, roster, reason, stop_at)
    report: dict[str, Any] = {}

    def one(target: _Target) -> None:
        person, done = word.say(target)
        report[target.name] = {"frozen": stop_at is None or not done, "already": not done, "by": person}
        if not options.as_json:
            click.echo(f"{target.name}: {_told(person, stop_at, done=done)}")

    failures = each(targets, one, at_once=_TOGETHER, what="freeze")
    if options.as_json:
        document = {"schema": "embassy.freeze/1", "registries": report, "failed": words_of(failures)}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    tell_failures(failures)
    if failures:
        names = ", ".join(failure.name for failure in failures)
        click.echo(f"hint: {names} may still be applied: run it again, or stop the consumer", err=True)
    return worst_of(failures)


class _Target(NamedTuple):
    """A stream that is to be frozen."""

    name: str
    stream: Stream


class _Word(NamedTuple):
    """What one person says, and by which key."""

    options: Options
    operator: Operator
    key: Path
    roster: Sequence[PublicOperator]
    reason: str
    stop_at: Point | None

    def say(self, target: _Target) -> tuple[str, bool]:
        """Say it in a stream's replica; returns who said it, and False if the stream was frozen already."""
        fields = {
            "stream": target.stream.stream,
            "reason": self.reason,
            "stop_at": str(self.stop_at) if self.stop_at is not None else None,
            "ordered_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        details: dict[str, JSON] = {"registry": target.name, "key": self.operator.ed25519.hex(), **fields}
        with audited(self.options, "freeze", details) as under_way:
            order = Order.draft("freeze", fields).signed(self.operator)
            persons = order.signers(self.roster)
            if not persons:
                raise RefusedError(
                    "the roster does not know this key",
                    place=str(self.key),
                    hint="keys.operators lists the operators' public files",
                )
            (person,) = persons
            done = self._write(target, person, order)
            under_way.note(persons=[person], already=not done)
        return person, done

    def _write(self, target: _Target, person: str, order: Order) -> bool:
        identity = bytes.fromhex(target.stream.stream)
        with replica_of(self.options, target.name, target.stream) as connection:
            if self.stop_at is not None:
                return control_store.stop_at(connection, identity, self.stop_at)
            return control_store.freeze(connection, identity, by=person, reason=self.reason, order=order.render())


def _told(person: str, point: Point | None, *, done: bool) -> str:
    if not done:
        return "frozen already"
    if point is not None:
        return f"will freeze behind {point}"
    return f"frozen by {person}; two persons lift it with embassy unfreeze"
