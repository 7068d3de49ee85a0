"""A promotion's journal in the replica that is promoted, and the epoch: what is decided there stays decided.

The epoch moves by compare-and-set in the transaction that journals it. So whoever runs the plan next, after whatever
crash, reads whether it was raised, and by which plan.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from embassy.model.errors import RefusedError
from embassy.model.record import Head
from embassy.pg.presence import has_table


class BegunPlan(NamedTuple):
    """A plan that was begun in this replica."""

    nonce: bytes
    from_epoch: int
    to_epoch: int
    document: str
    begun_at: datetime
    ended_at: datetime | None
    outcome: str
    """``promoted``, ``aborted``, ``replaced``; empty while it is under way."""


class JournalledStep(NamedTuple):
    """A step of a plan."""

    step: str
    intent_at: datetime
    done_at: datetime | None
    result: Mapping[str, Any]


def require(connection: psycopg.Connection[Any], place: str) -> None:
    """Make sure that the replica can hold a promotion's journal.

    Raises:
        RefusedError: it was provisioned by an older version, or is no replica.
    """
    if not has_table(connection, "embassy.fence"):
        raise RefusedError(
            "the database has no table for a promotion's journal",
            place=place,
            hint="embassy provision apply adds it",
        )


def local_now(connection: psycopg.Connection[Any]) -> datetime:
    """The newest time that this server's clock has ever shown, kept so that it never goes back."""
    row = connection.execute(
        """INSERT INTO embassy.local_clock AS c (id, newest)
           SELECT 1, greatest(pg_catalog.clock_timestamp(), (SELECT max(applied_at) FROM embassy.progress))
           ON CONFLICT (id) DO UPDATE SET newest = greatest(c.newest, excluded.newest)
           RETURNING newest"""
    ).fetchone()
    assert row is not None, "the statement returns what it wrote"
    found: datetime = row[0]
    return found


def find_plan(connection: psycopg.Connection[Any], nonce: bytes) -> BegunPlan | None:
    """A plan by its nonce, if it was begun here."""
    row = connection.execute(
        """SELECT nonce, from_epoch, to_epoch, document, begun_at, ended_at, coalesce(outcome, '')
           FROM embassy.promotion_plan WHERE nonce = %s""",
        (nonce,),
    ).fetchone()
    return None if row is None else BegunPlan(bytes(row[0]), *row[1:])


def newest_plan(connection: psycopg.Connection[Any], stream: bytes) -> BegunPlan | None:
    """The plan that was begun last for a stream; one that raised the epoch before any other."""
    row = connection.execute(
        """SELECT nonce, from_epoch, to_epoch, document, begun_at, ended_at, coalesce(outcome, '')
           FROM embassy.promotion_plan p WHERE stream = %s
           ORDER BY (outcome IS NULL OR outcome = 'promoted') DESC, to_epoch DESC, begun_at DESC LIMIT 1""",
        (stream,),
    ).fetchone()
    return None if row is None else BegunPlan(bytes(row[0]), *row[1:])


def begin(
    connection: psycopg.Connection[Any], *, nonce: bytes, stream: bytes, epochs: tuple[int, int], document: str
) -> None:
    """Note that a plan is begun; one that was under way and has not raised the epoch is replaced by it."""
    with connection.transaction():
        connection.execute(
            """UPDATE embassy.promotion_plan p
               SET outcome = 'replaced', ended_at = pg_catalog.clock_timestamp(), reason = 'another plan was begun'
               WHERE stream = %s AND nonce <> %s AND outcome IS NULL AND NOT EXISTS (
                   SELECT FROM embassy.promotion s
                   WHERE s.nonce = p.nonce AND s.step = 'epoch' AND s.done_at IS NOT NULL)""",
            (stream, nonce),
        )
        connection.execute(
            """INSERT INTO embassy.promotion_plan (nonce, stream, from_epoch, to_epoch, document)
               VALUES (%s, %s, %s, %s, %s) ON CONFLICT (nonce) DO NOTHING""",
            (nonce, stream, *epochs, document),
        )


def journal(connection: psycopg.Connection[Any], nonce: bytes) -> dict[str, JournalledStep]:
    """The steps of a plan, by name."""
    return {
        row[0]: JournalledStep(row[0], row[1], row[2], row[3] or {})
        for row in connection.execute(
            "SELECT step, intent_at, done_at, result FROM embassy.promotion WHERE nonce = %s ORDER BY intent_at",
            (nonce,),
        )
    }


def intend(connection: psycopg.Connection[Any], nonce: bytes, step: str, *, again: bool) -> None:
    """Note that a step is about to be taken.

    Args:
        connection: with the replica.
        nonce: the plan's.
        step: its name.
        again: whether a step that was taken is taken once more; else its result stays.
    """
    connection.execute(
        """INSERT INTO embassy.promotion AS p (nonce, step, intent_at)
           VALUES (%s, %s, pg_catalog.clock_timestamp())
           ON CONFLICT (nonce, step) DO UPDATE SET intent_at = excluded.intent_at, done_at = NULL, result = NULL
           WHERE %s OR p.done_at IS NULL""",
        (nonce, step, again),
    )


def note_done(connection: psycopg.Connection[Any], nonce: bytes, step: str, result: Mapping[str, Any]) -> None:
    """Note that a step was taken since it was last intended; one that was noted already keeps its time and result.

    Each run takes the lock, also one that finds everything done: the report's durations are not to grow with it.
    """
    connection.execute(
        """UPDATE embassy.promotion SET done_at = pg_catalog.clock_timestamp(), result = %s
           WHERE nonce = %s AND step = %s AND done_at IS NULL""",
        (json.dumps(result), nonce, step),
    )


def raise_epoch(
    connection: psycopg.Connection[Any], *, nonce: bytes, stream: bytes, sealed: Head, to_epoch: int, step: str
) -> bool:
    """Raise the epoch, if replica and plan are still as they were sealed; journals it in the same transaction.

    Returns whether it was raised. From then on no record of a lower epoch is ever applied.
    """
    with connection.transaction():
        moved = connection.execute(
            """UPDATE embassy.progress SET epoch = %s
               WHERE stream = %s AND epoch = %s AND hash = %s
                 AND EXISTS (SELECT FROM embassy.promotion_plan WHERE nonce = %s AND outcome IS NULL)""",
            (to_epoch, stream, sealed.epoch, sealed.hash, nonce),
        )
        if moved.rowcount == 1:
            note_done(connection, nonce, step, {"from": sealed.epoch, "to": to_epoch})
        return moved.rowcount == 1


def end(connection: psycopg.Connection[Any], nonce: bytes, outcome: str, reason: str = "") -> bool:
    """Note how a plan ended, once; returns whether this was it."""
    ended = connection.execute(
        """UPDATE embassy.promotion_plan
           SET outcome = %s, ended_at = pg_catalog.clock_timestamp(), reason = nullif(%s, '')
           WHERE nonce = %s AND outcome IS NULL""",
        (outcome, reason, nonce),
    )
    return ended.rowcount == 1


def home_fenced_at(connection: psycopg.Connection[Any], nonce: bytes) -> datetime | None:
    """When home let nobody write any more for a plan, as the stream has told; None: it has not."""
    row = connection.execute("SELECT fenced_at FROM embassy.fence WHERE nonce = %s", (nonce,)).fetchone()
    return None if row is None else row[0]


def abort(
    connection: psycopg.Connection[Any],
    *,
    nonce: bytes,
    stream: bytes,
    epochs: tuple[int, int],
    document: str,
    reason: str,
) -> None:
    """Use up a plan, whether it was begun or not; one that has ended stays as it is."""
    connection.execute(
        """INSERT INTO embassy.promotion_plan AS p
               (nonce, stream, from_epoch, to_epoch, document, ended_at, outcome, reason)
           VALUES (%s, %s, %s, %s, %s, pg_catalog.clock_timestamp(), 'aborted', %s)
           ON CONFLICT (nonce) DO UPDATE
           SET ended_at = excluded.ended_at, outcome = excluded.outcome, reason = excluded.reason
           WHERE p.outcome IS NULL""",
        (nonce, stream, *epochs, document, reason),
    )


def smoke_write(connection: psycopg.Connection[Any], nonce: bytes) -> datetime:
    """Write a row as anyone would, and commit it."""
    row = connection.execute(
        """INSERT INTO embassy.smoke_write (nonce, written_at) VALUES (%s, pg_catalog.clock_timestamp())
           ON CONFLICT (nonce) DO UPDATE SET written_at = excluded.written_at RETURNING written_at""",
        (nonce,),
    ).fetchone()
    assert row is not None, "the statement returns what it wrote"
    found: datetime = row[0]
    return found
