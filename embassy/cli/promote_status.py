"""Where each replica's promotion stands, and giving one up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from embassy.cli.options import Options
from embassy.cli.promote_running import Approved
from embassy.model.errors import RefusedError, StaleError
from embassy.pg import progress_store, promotion_store, reign
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import transient
from embassy.pg.setup_errors import LOCK_SETTINGS, explained
from embassy.pg.stream_lock import PROMOTION_LOCK
from embassy.runtime.config import Settings
from failover.promotion import NO_RETURN
from failover.states import StreamState

_APPLICATION = "embassy-promote-status"


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

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {**self._asdict(), "state": self.state.value}

    def line(self) -> str:
        """For people."""
        unfinished = "under way" if self.at_work else "begun, and no run is at it"
        plan = f"  plan {self.nonce[:8]} {self.outcome or unfinished}" if self.nonce else ""
        step = f", last step {self.step}" if self.step else ""
        if self.nonce and not self.outcome and not self.at_work:
            step += ": run it again, or give it up with embassy promote abort"
        return f"{self.name}: epoch {self.epoch}, {self.state.value}{plan}{step}"


def states(options: Options, settings: Settings) -> Iterator[PromotionState]:
    """Look at each replica.

    Raises:
        TransientError: one is unreachable.
        RefusedError: one has no journal.
    """
    for name, stream in options.streams(settings).items():
        replica = options.need(stream.replica, f"streams.{name}.replica")
        identity = bytes.fromhex(stream.stream)
        place = place_of(replica.dsn)
        with (
            transient(place),
            explained(place),
            connect(replica.dsn, application_name=_APPLICATION, autocommit=True) as connection,
        ):
            promotion_store.require(connection, place)
            progress = progress_store.read(connection, identity)
            newest = promotion_store.newest_plan(connection, identity)
            journal = promotion_store.journal(connection, newest.nonce) if newest else {}
            at_work = bool(PROMOTION_LOCK.holder(connection, identity))
            shut = not reign.writable(connection, identity)
        raised = NO_RETURN in journal and journal[NO_RETURN].done_at is not None
        if newest is not None and progress is not None and newest.to_epoch < progress.head.epoch:
            newest, journal, state = None, {}, StreamState.FOLLOWING  # superseded since, and a replica again
        elif newest is not None and newest.outcome == "promoted":
            state = StreamState.FENCED if shut else StreamState.PROMOTED
        elif newest is not None and (not newest.outcome or raised):
            state = StreamState.PROMOTING
        else:
            state = StreamState.FOLLOWING
        steps = sorted(journal.values(), key=lambda entry: entry.intent_at)
        yield PromotionState(
            name,
            progress.head.epoch if progress else 0,
            state,
            newest.nonce.hex() if newest else "",
            steps[-1].step if steps else "",
            newest.outcome if newest else "",
            at_work,
        )


def abort_plan(options: Options, settings: Settings, approved: Approved, reason: str) -> list[str]:
    """Use up a plan in each replica that it is for; returns their names.

    Raises:
        RefusedError: the plan has raised an epoch; nothing was changed there.
        StaleError: a run of the plan is at work.
    """
    aborted = []
    streams = options.streams(settings)
    for planned in approved.plan.streams:
        if planned.name not in streams:
            continue
        replica = options.need(streams[planned.name].replica, f"streams.{planned.name}.replica")
        place = place_of(replica.dsn)
        with (
            transient(place),
            explained(place),
            connect(
                replica.dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS
            ) as session,
        ):
            promotion_store.require(session, place)
            if not PROMOTION_LOCK.try_take(session, planned.stream):
                raise StaleError(
                    "a run of a plan is at work there",
                    place=planned.name,
                    hint="end it first, then abort the plan",
                )
            journal = promotion_store.journal(session, approved.plan.nonce)
            if NO_RETURN in journal and journal[NO_RETURN].done_at is not None:
                raise RefusedError(
                    "the plan has passed its point of no return here",
                    place=planned.name,
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
            aborted.append(planned.name)
    return aborted
