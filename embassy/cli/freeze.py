"""``embassy freeze``: one person stops applying."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from embassy.cli.auditing import audited
from embassy.cli.operator_keys import load_own_key
from embassy.cli.options import Options, pass_options
from embassy.cli.points import POINT
from embassy.cli.replica_control import replica_of
from embassy.cli.stream_options import stream_options
from embassy.model.control import Point
from embassy.model.errors import RefusedError
from embassy.pg import control_store
from embassy.runtime.audit_line import JSON
from embassy.runtime.config import Stream
from embassy.wire.approval import Order
from embassy.wire.enrolment import load_roster


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
def freeze(options: Options, *, reason: str, own_key: Path, stop_at: Point | None) -> None:
    """Apply nothing more to the replicas, from now on or from a point on.

    One operator may do this alone; lifting it takes two (embassy unfreeze). When the command returns, nothing more is
    committed. What comes meanwhile is kept in Kafka: watch that its retention lasts.

    Without -r, every stream of the configuration. Reads keys.operators and streams.NAME.replica.

    \b
    embassy -c admin.toml -r land_register freeze --reason 'rows vanish' --key anna.json
    embassy -c admin.toml -r land_register freeze --stop-at 2026-03-01T12:00:00Z --reason '…' --key anna.json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    settings = options.settings()
    streams = options.streams(settings)
    roster = load_roster(options.need(settings.keys.operators, "keys.operators"), settings.keys.threshold)
    operator = load_own_key(own_key)
    report: dict[str, Any] = {}
    for name, stream in streams.items():
        fields = {
            "stream": stream.stream,
            "reason": reason,
            "stop_at": str(stop_at) if stop_at is not None else None,
            "ordered_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        details: dict[str, JSON] = {"registry": name, "key": operator.ed25519.hex(), **fields}
        with audited(options, "freeze", details) as under_way:
            order = Order.draft("freeze", fields).signed(operator)
            persons = order.signers(roster)
            if not persons:
                raise RefusedError(
                    "the roster does not know this key",
                    place=str(own_key),
                    hint="keys.operators lists the operators' public files",
                )
            (person,) = persons
            done = _said(options, name, stream, order, by=person, reason=reason, point=stop_at)
            under_way.note(persons=[person], already=not done)
        report[name] = {"frozen": stop_at is None or not done, "already": not done, "by": person}
        if not options.as_json:
            click.echo(f"{name}: {_told(person, stop_at, done=done)}")
    if options.as_json:
        click.echo(json.dumps({"schema": "embassy.freeze/1", "registries": report}, indent=2, ensure_ascii=False))


def _said(
    options: Options, name: str, stream: Stream, order: Order, *, by: str, reason: str, point: Point | None
) -> bool:
    """Say it in the replica; False if the stream is frozen already."""
    identity = bytes.fromhex(stream.stream)
    with replica_of(options, name, stream) as connection:
        if point is not None:
            return control_store.stop_at(connection, identity, point)
        return control_store.freeze(connection, identity, by=by, reason=reason, order=order.render())


def _told(person: str, point: Point | None, *, done: bool) -> str:
    if not done:
        return "frozen already"
    if point is not None:
        return f"will freeze behind {point}"
    return f"frozen by {person}; two persons lift it with embassy unfreeze"
