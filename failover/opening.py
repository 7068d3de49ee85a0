"""The steps of a promotion from its point of no return on: the epoch is raised, and the replica becomes the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from embassy.model.errors import StaleError, StepError
from embassy.pg import large_objects, promotion_store, replica_opening
from embassy.pg.large_objects import LargeObjectState
from embassy.pg.progress_store import Progress
from failover.promotion import NO_RETURN
from failover.replica import Replica
from failover.wish import Ports, Wish


def raise_epoch(replica: Replica, wish: Wish, sealed: Progress) -> Mapping[str, Any]:
    """Pass the point of no return, by compare-and-set on the sealed progress, with its entry in the journal."""
    planned = wish.planned
    raised = promotion_store.raise_epoch(
        replica.connection,
        nonce=wish.nonce,
        stream=replica.stream,
        sealed=sealed.head,
        to_epoch=planned.to_epoch,
        step=NO_RETURN,
    )
    if not raised:
        raise StaleError(
            "the replica or the plan is no longer as it was sealed; the epoch was not raised",
            place=planned.name,
            hint="look at embassy promote status, then run the plan again",
        )
    return {"words": f"{planned.from_epoch}→{planned.to_epoch}"}


def open_up(replica: Replica, wish: Wish, ports: Ports) -> Mapping[str, Any]:
    """Set the sequences, enable the triggers, drop the guards, let the application in."""
    connection = replica.connection
    try:
        sequences = replica_opening.set_sequences(connection, wish.sequence_headroom)
        triggers = replica_opening.enable_triggers(connection)
        guards = replica_opening.drop_guards(connection)
        ports.let_in(connection)
    except psycopg.errors.LockNotAvailable as error:
        raise StepError(
            "a reader holds a table, so that its guard cannot be taken away",
            place=wish.planned.name,
            hint="end long sessions (pg_stat_activity), then run the plan again: it goes on here",
        ) from error
    objects = large_objects.state(connection, replica.stream)
    return {
        "large_objects_as_of": objects.as_of.isoformat() if objects and objects.as_of else None,
        "large_objects_behind": objects.behind if objects else 0,
        "sequences": [sequence._asdict() for sequence in sequences],
        "triggers": triggers,
        "guards": guards,
        "roles": list(wish.application_roles),
        "words": f"{len(sequences)} sequences set, {triggers} triggers enabled, {guards} guards dropped"
        f"{_large_objects(objects)}",
    }


def _large_objects(found: LargeObjectState | None) -> str:
    """As of when they are here: those that no row's transaction took along come later, with looks at home."""
    if found is None:
        return ""
    if found.as_of is None:
        return f"; large objects never came whole: {found.behind} are missing or incomplete"
    behind = f", and {found.behind} that changed since are incomplete" if found.behind else ""
    return f"; large objects that no row brought are as of {found.as_of:%H:%M:%S}Z{behind}"


def smoke_write(replica: Replica, wish: Wish) -> Mapping[str, Any]:
    """Write as an application would."""
    left = replica_opening.guarded(replica.connection)
    if left:
        raise StepError(
            f"{len(left)} tables have their guard back",
            place=wish.planned.name,
            hint="somebody has provisioned the replica meanwhile; run the plan again",
        )
    return {"written_at": promotion_store.smoke_write(replica.connection, wish.nonce).isoformat()}
