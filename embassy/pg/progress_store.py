"""How far a replica has come: one row, moved in the very transaction that applies what it speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from embassy.model.errors import IntegrityError, RefusedError, TransientError
from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.pg import control_store
from embassy.pg.apply_session import ApplySession, Call, Query, StatementFailed
from embassy.pg.presence import has_table

_TABLE = "embassy.progress"


class Progress(NamedTuple):
    """A replica's place in its stream."""

    head: Head
    """The last record whose effect is in the replica."""
    key_record: bytes
    """Kafka value of the KEY record of the head's incarnation, so that a restart can open records at once; empty at
    genesis."""
    next_offset: int
    """Where reading probably goes on. Only a hint: the chain decides."""
    committed_at: int = 0
    """Source time of the newest transaction applied, microseconds since 1970 UTC; until there is one, the time of which
    the replica has the source's rows (`enrol`); 0 if that is not known."""
    applied_at: int = 0
    """When the row was last moved, by the replica's clock, microseconds since 1970 UTC; only `read` knows it."""


def read(connection: psycopg.Connection[Any], stream: bytes) -> Progress | None:
    """The stream's row, or None if the replica has none.

    Raises:
        RefusedError: the database is not a provisioned replica.
    """
    if not has_table(connection, _TABLE):
        raise RefusedError(
            "the database is not a replica: it has no table embassy.progress",
            place=connection.info.dbname,
            hint="embassy provision apply makes it one; check streams.NAME.replica.dsn",
        )
    row = connection.execute(
        f"""SELECT hash, sequence, epoch, incarnation, resume_lsn::text, key_record, next_offset,
                   coalesce((EXTRACT(epoch FROM committed_at) * 1000000)::bigint, 0),
                   coalesce((EXTRACT(epoch FROM applied_at) * 1000000)::bigint, 0)
            FROM {_TABLE} WHERE stream = %s""",
        (stream,),
    ).fetchone()
    if row is None:
        return None
    head_hash, sequence, epoch, incarnation, resume_lsn, key_record, next_offset, *times = row
    head = Head(bytes(head_hash), sequence, epoch, bytes(incarnation), Lsn.parse(resume_lsn))
    return Progress(head, bytes(key_record), next_offset, *times)


def enrol(
    connection: psycopg.Connection[Any], stream: bytes, genesis: Head, *, as_of: datetime | None = None
) -> bool:
    """Begin a stream at its genesis unless it has a row already; returns whether it was begun.

    Args:
        connection: with the replica.
        stream: which.
        genesis: where it begins.
        as_of: the rows that are there are the source's of that time; None: not known.

    Raises:
        RefusedError: the row is of another enrolment.
    """
    control_store.begin(connection, stream)
    made = connection.execute(
        f"""INSERT INTO {_TABLE}
                (stream, epoch, sequence, hash, incarnation, resume_lsn, key_record, next_offset, committed_at)
            VALUES (%s, %s, %s, %s, %s, %s::pg_lsn, '', 0, %s) ON CONFLICT (stream) DO NOTHING""",
        (
            stream,
            genesis.epoch,
            genesis.sequence,
            genesis.hash,
            genesis.incarnation,
            str(genesis.resume_lsn),
            as_of,
        ),
    )
    if made.rowcount:
        return True
    found = read(connection, stream)
    if found is not None:
        check(found, genesis)
    return False


def succeed(connection: psycopg.Connection[Any], stream: bytes, genesis: Head, *, as_of: datetime | None) -> bool:
    """Begin a stream's later epoch in a database that had another part in it; returns whether it was begun now.

    Whatever was said about applying the epoch before is forgotten. To be called in the caller's transaction, with the
    arguments of `enrol`.

    Raises:
        RefusedError: the row is of this epoch or a later one, and of another enrolment.
    """
    found = read(connection, stream)
    if found is not None and found.head.epoch >= genesis.epoch:
        check(found, genesis)
        return False
    connection.execute("DELETE FROM embassy.control WHERE stream = %s", (stream,))
    connection.execute(f"DELETE FROM {_TABLE} WHERE stream = %s", (stream,))
    return enrol(connection, stream, genesis, as_of=as_of)


def check(progress: Progress, genesis: Head) -> None:
    """Make sure that a row can have grown from a genesis.

    Raises:
        RefusedError: it is of another enrolment, or was promoted.
        TransientError: it is of an earlier epoch: failback makes the database a replica of this one.
    """
    head = progress.head
    if head.epoch > genesis.epoch:
        raise RefusedError(
            f"the replica was promoted to epoch {head.epoch}: no record of epoch {genesis.epoch} is ever applied again, "
            "whoever signed it",
            place=_TABLE,
            hint="home is superseded: embassy promote status; failback begins with a new enrolment",
        )
    if head.epoch < genesis.epoch:
        raise TransientError(
            f"the database is at epoch {head.epoch}, and the enrolment is of epoch {genesis.epoch}: it has not become "
            "its replica yet",
            place=_TABLE,
            hint="embassy failback run, with the promotion's report, makes it one; the consumer goes on by itself then",
        )
    if head.sequence == 0 and head.hash != genesis.hash:
        raise RefusedError(
            f"the replica belongs to another enrolment: it is at record {head.sequence} of epoch {head.epoch}, "
            f"the enrolment begins epoch {genesis.epoch}",
            place=_TABLE,
            hint="use the enrolment that the replica was provisioned with, or provision it anew",
        )


class ControlMoved(Exception):  # noqa: N818 - not an error: whoever commits must read it again
    """Something new was said about applying the stream; nothing was changed."""


_MOVE = Query(
    f"""WITH moved AS (
            UPDATE {_TABLE}
            SET epoch = $1, sequence = $2, hash = $3, resume_lsn = $4, incarnation = $5,
                key_record = coalesce($6, key_record), next_offset = $7, applied_at = pg_catalog.clock_timestamp(),
                committed_at = coalesce(
                    timestamptz 'epoch' + nullif($8::bigint, 0) * interval '1 microsecond', committed_at)
            WHERE stream = $9 AND epoch = $10 AND hash = $11
                  AND {control_store.VERSION_HELD.format(stream="$9")} = $12
            RETURNING 1)
        SELECT 1 / count(*)::int FROM moved"""
)
"""Fails if it moves nothing, and so what travels behind it is not executed."""
_PLAN_ONCE = Query("SET LOCAL plan_cache_mode = force_generic_plan")
"""There is one way to do it, and planning takes three times as long as that."""
_NOTHING_MOVED = "22012"
_COMMIT = Call(Query("COMMIT"))
_ROLLBACK = Call(Query("ROLLBACK"))


def advance(
    session: ApplySession,
    stream: bytes,
    before: Head,
    after: Progress,
    control_version: int,
    *,
    commit: bool,
    ahead: Sequence[Call] = (),
) -> None:
    """Move the row, within the transaction that is open, if it still stands where the caller began.

    Args:
        session: the replica's.
        stream: whose row.
        before: where the caller began.
        after: what the row is to say; its key record is written only with a new incarnation.
        control_version: of `embassy.control`.
        commit: whether to commit in the same exchange.
        ahead: what to execute first in the same exchange. Nothing else is done if it fails.

    Raises:
        StatementFailed: something of what was to be executed first has failed; the transaction is rolled back.
        IntegrityError: someone else has moved it; the transaction is rolled back.
        ControlMoved: `embassy.control` is at another version; the transaction is rolled back.
        TransientError: the session ended.
    """
    head = after.head
    values: tuple[bytes | int | str | None, ...] = (
        head.epoch,
        head.sequence,
        head.hash,
        str(head.resume_lsn),
        head.incarnation,
        # written once an incarnation: kilobytes that would be stored anew at each commit
        after.key_record if head.incarnation != before.incarnation else None,
        after.next_offset,
        after.committed_at,
        stream,
        before.epoch,
        before.hash,
        control_version,
    )
    session.defer(_PLAN_ONCE)
    try:
        session.run([*ahead, Call(_MOVE, [*map(_text, values)]), *([_COMMIT] if commit else [])])
    except StatementFailed as failure:
        session.run([_ROLLBACK])
        if failure.index != len(ahead) or failure.sqlstate != _NOTHING_MOVED:
            raise
        if control_store.version(session.connection, stream) != control_version:
            raise ControlMoved from None
        raise IntegrityError(
            f"the replica's progress is no longer at record {before.sequence}: something else writes to it",
            place=_TABLE,
            hint="find the second consumer or the restored backup; start again once one consumer is left",
        ) from None


def _text(value: bytes | int | str | None) -> bytes | None:
    """A parameter in its text form."""
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    return None if value is None else str(value).encode()
