"""The steps of a promotion from its point of no return on: the epoch is raised, and the replica becomes the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from embassy.model.errors import EmbassyError, StaleError, StepError
from embassy.pg import large_objects, promotion_store, replica_opening
from embassy.pg.large_objects import LargeObjectState
from embassy.pg.progress_store import Progress
from embassy.pg.reign_setup import ReignWish, begin_reign
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


def set_sequences(replica: Replica, wish: Wish) -> Mapping[str, Any]:
    """Set the sequences beyond all that home may have handed out; note what it has said of large objects."""
    sequences = replica_opening.set_sequences(replica.connection, wish.sequence_headroom)
    objects = large_objects.state(replica.connection, replica.stream)
    return {
        "large_objects_as_of": objects.as_of.isoformat() if objects and objects.as_of else None,
        "large_objects_behind": objects.behind if objects else 0,
        "sequences": [sequence._asdict() for sequence in sequences],
        "words": f"{len(sequences)} sequences set{_large_objects(objects)}",
    }


def prepare_reverse(replica: Replica, wish: Wish, ports: Ports) -> Mapping[str, Any]:
    """Make what the stream back home needs, before anyone can write: publication, DDL capture, slot.

    Nothing here keeps the replica from opening: where it cannot be done, the report says why, and the way home copies
    all rows.
    """
    reverse = wish.reverse
    if reverse is None:
        why = "promotion.reverse_role is not set"
    else:
        try:
            made = begin_reign(
                replica.connection,
                ReignWish(ports.dsn, replica.stream, reverse.slot, reverse.publication, reverse.producer_role),
            )
        except EmbassyError as error:
            why = str(error)
        except psycopg.Error as error:
            why = f"PostgreSQL: {error.diag.message_primary or error}"
        else:
            return {
                "ready": True,
                "slot": reverse.slot,
                "words": f"{made} steps; all that is written is kept for home",
            }
    return {"ready": False, "why": why, "words": f"none, home will need a copy of all rows: {why}"}


def open_up(replica: Replica, wish: Wish, ports: Ports) -> Mapping[str, Any]:
    """Enable the triggers, drop the guards, let the application in."""
    connection = replica.connection
    try:
        triggers = replica_opening.enable_triggers(connection, "trigger", "rule")
        guards = replica_opening.drop_guards(connection)
        triggers += replica_opening.enable_triggers(connection, "event trigger")  # one of logins may write
        ports.let_in(connection)
    except psycopg.errors.LockNotAvailable as error:
        raise StepError(
            "a reader holds a table, so that its guard cannot be taken away",
            place=wish.planned.name,
            hint="end long sessions (pg_stat_activity), then run the plan again: it goes on here",
        ) from error
    return {
        "triggers": triggers,
        "guards": guards,
        "roles": list(wish.application_roles),
        "words": f"{triggers} triggers enabled, {guards} guards dropped",
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
