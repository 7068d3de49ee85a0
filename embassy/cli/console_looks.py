"""What the console shows beside a look: promotions, freezes, failbacks, and the newest audit entries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from console.seen import AuditSeen, Desk, Operation, Seen
from embassy.cli import promote_status
from embassy.cli.observing import Observer
from embassy.cli.options import Options
from embassy.cli.status_report import Thresholds, as_json
from embassy.model.control import Control
from embassy.model.errors import EmbassyError
from embassy.model.health import State
from embassy.model.look import Look
from embassy.model.observation import ReplicaSeen, Side
from embassy.pg import control_store, promotion_store, replica_turn
from embassy.pg.connection import place_of
from embassy.pg.promotion_obstacles import obstacles
from embassy.runtime.audit_tail import newest_entries
from embassy.runtime.config import Settings
from embassy.wire.enrolment import load_roster
from embassy.wire.promotion_plan import PlanFile

_SELDOM_SECONDS = 5.0
"""What only operators change is asked for no oftener, unless a state has changed."""
_AUDIT_ENTRIES = 12

Connection = psycopg.Connection[Any]


class Looks:
    """Looks as often as it is asked; for one thread."""

    def __init__(self, options: Options, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the configuration.

        Raises:
            ConfigurationError: it does not hold.
        """
        self._options = options
        self._observer = observer
        self._clock = clock
        self._settings: Settings = options.settings()
        self._streams = options.streams(self._settings)
        self._desks: dict[str, Desk | str] = {}
        self._audit = AuditSeen(str(self._settings.audit.file))
        self._asked_at: float | None = None
        self._states: dict[str, State] = {}

    @property
    def site(self) -> str:
        """The observer's."""
        return self._settings.site

    def look(self) -> Seen:
        """See all places of all streams, and every few seconds what operators have begun."""
        look = self._observer.look()
        seen = {entry.registry for entry in look.streams if isinstance(entry.observation.replica, ReplicaSeen)}
        states = {entry.registry: entry.health.state for entry in look.streams}
        due = self._asked_at is None or self._clock() - self._asked_at >= _SELDOM_SECONDS
        if due or states != self._states:  # a freeze that the look shows is an operation at once
            self._desks = self._ask(look, seen)
            self._audit = self._read_audit(self._settings.audit.file)
            self._asked_at, self._states = self._clock(), states
        desks = {name: desk if name in seen else "the replica was not seen" for name, desk in self._desks.items()}
        return Seen(look, as_json(look, Thresholds()), desks, self._audit, self._options.place)

    def _ask(self, look: Look, seen: set[str]) -> dict[str, Desk | str]:
        """Only replicas that have just answered: one that is away costs a look its timeouts once, not twice."""
        answers = self._observer.ask_replicas(seen, self._desk)
        found: dict[str, Desk | str] = {}
        for entry in look.streams:
            if Side.REPLICA in entry.observation.sides:
                answer = answers.get(entry.registry, "the replica was not seen")
                found[entry.registry] = str(answer.args[0]) if isinstance(answer, EmbassyError) else answer
        return found

    def _desk(self, name: str, connection: Connection) -> Desk:
        identity = bytes.fromhex(self._streams[name].stream)
        hindering = obstacles(
            connection,
            identity,
            roles=self._settings.promotion.application_roles,
            accept_undrained=False,
            accept_differences=False,
            accept_incomplete=False,
        )
        operations = [
            *self._promotion(name, identity, connection),
            *self._control(name, control_store.read(connection, identity)),
            *self._failback(name, identity, connection),
        ]
        return Desk(tuple(hindering), tuple(operations))

    def _promotion(self, name: str, identity: bytes, connection: Connection) -> Iterator[Operation]:
        place = place_of(self._dsn(name))
        state = promote_status.state_of(connection, name, identity, place)
        if not state.nonce or state.outcome:
            return
        plan = promotion_store.find_plan(connection, bytes.fromhex(state.nonce))
        if plan is None:
            return
        roster = load_roster(self._settings.keys.operators, self._settings.keys.threshold)
        signed = PlanFile.parse(plan.document.encode("utf-8"), Path(place)).signers(roster)
        standing = state.line().partition(": ")[2]
        begun_at = plan.begun_at.timestamp()
        yield Operation(
            name, "promotion", begun_at, standing, tuple(sorted(signed)), self._command("promote status", name)
        )

    def _control(self, name: str, control: Control) -> Iterator[Operation]:
        freeze = control.freeze
        if freeze is not None:
            standing = f"nothing is applied: {freeze.reason}; two persons lift it"
            yield Operation(
                name, "freeze", freeze.at, standing, (freeze.by,), self._command("unfreeze plan", name)
            )
        elif control.stop_at is not None:
            standing = f"will freeze behind {control.stop_at}"
            yield Operation(name, "stop at", None, standing, (), self._command("status", name))

    def _failback(self, name: str, identity: bytes, connection: Connection) -> Iterator[Operation]:
        begun = replica_turn.unfinished(connection, identity)
        if begun is not None:
            standing = f"to epoch {begun.epoch}: what was never shipped is kept, and still in the tables"
            yield Operation(
                name, "failback", begun.bundled_at, standing, (), self._command("failback run REPORT", name)
            )

    def _command(self, command: str, name: str) -> str:
        return f"embassy -c {self._options.place} -r {name} {command}"

    def _dsn(self, name: str) -> str:
        replica = self._streams[name].replica
        assert replica is not None, "only replicas are asked"
        return replica.dsn

    def _read_audit(self, path: Path) -> AuditSeen:
        try:
            return AuditSeen(str(path), newest_entries(path, _AUDIT_ENTRIES))
        except EmbassyError as error:
            return AuditSeen(str(path), problem=str(error.args[0]))
