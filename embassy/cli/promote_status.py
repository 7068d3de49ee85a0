"""Where each replica's promotion stands."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg

from embassy.cli.options import Options
from embassy.cli.together import Failure, each
from embassy.pg import progress_store, promotion_store, reign
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import transient
from embassy.pg.setup_errors import explained
from embassy.pg.stream_lock import PROMOTION_LOCK
from embassy.runtime.config import Replica, Settings
from failover.states import StreamState
from failover.stream_promotion import has_raised

_APPLICATION = "embassy-promote-status"
_TOGETHER = 8


class _Asked(NamedTuple):
    """A stream whose replica is looked at."""

    name: str
    identity: bytes
    replica: Replica | None


class PromotionState(NamedTuple):
    """One replica."""

    name: str
    epoch: int
    state: StreamState
    """``following`` stands for any state of a replica that nobody promotes; ``embassy status`` tells those apart."""
    nonce: str
    step: str
    """The last step that was begun; empty: none."""
    outcome: str
    at_work: bool
    """Whether a run of some plan is at it now."""
    raised: bool
    """Whether the plan has passed its point of no return."""

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {**self._asdict(), "state": self.state.value}

    def line(self) -> str:
        """For people."""
        unfinished = "under way" if self.at_work else "begun, and no run is at it"
        plan = f"  plan {self.nonce[:8]} {self.outcome or unfinished}" if self.nonce else ""
        step = f", last step {self.step}" if self.step else ""
        if self.nonce and not self.outcome and not self.at_work:
            step += ": run it again" + ("" if self.raised else ", or give it up with embassy promote abort")
        return f"{self.name}: epoch {self.epoch}, {self.state.value}{plan}{step}"


def states(options: Options, settings: Settings) -> tuple[list[PromotionState], list[Failure]]:
    """Look at each replica; returns what was seen, and those of which nothing can be said."""
    found: list[PromotionState] = []

    def look(stream: _Asked) -> None:
        dsn = options.need(stream.replica, f"streams.{stream.name}.replica").dsn
        with (
            transient(place_of(dsn)),
            explained(place_of(dsn)),
            connect(dsn, application_name=_APPLICATION, autocommit=True) as connection,
        ):
            found.append(state_of(connection, stream.name, stream.identity, place_of(dsn)))

    asked = [
        _Asked(name, bytes.fromhex(stream.stream), stream.replica)
        for name, stream in options.streams(settings).items()
    ]
    failures = each(asked, look, at_once=_TOGETHER, what="promote-status")
    order = [stream.name for stream in asked]
    return sorted(found, key=lambda state: order.index(state.name)), failures


def state_of(connection: psycopg.Connection[Any], name: str, identity: bytes, place: str) -> PromotionState:
    """Where one replica's promotion stands; only reads.

    Raises:
        RefusedError: it has no journal.
    """
    promotion_store.require(connection, place)
    progress = progress_store.read(connection, identity)
    newest = promotion_store.newest_plan(connection, identity)
    journal = promotion_store.journal(connection, newest.nonce) if newest else {}
    at_work = bool(PROMOTION_LOCK.holder(connection, identity))
    shut = not reign.writable(connection, identity)
    raised = has_raised(journal)
    if newest is not None and progress is not None and newest.to_epoch < progress.head.epoch:
        newest, journal, raised = None, {}, False  # superseded since, and a replica again
        state = StreamState.FOLLOWING
    elif newest is not None and newest.outcome == "promoted":
        state = StreamState.FENCED if shut else StreamState.PROMOTED
    elif newest is not None and (not newest.outcome or raised):
        state = StreamState.PROMOTING
    else:
        state = StreamState.FOLLOWING
    steps = sorted(journal.values(), key=lambda entry: entry.intent_at)
    return PromotionState(
        name,
        progress.head.epoch if progress else 0,
        state,
        newest.nonce.hex() if newest else "",
        steps[-1].step if steps else "",
        newest.outcome if newest else "",
        at_work,
        raised,
    )
