"""The row in which a replica keeps what was said about applying a stream: `embassy.model.control`.

Whoever changes it raises its version, and whoever commits what the stream brought holds a share lock on it at the version
that was read. So once a change has returned, nothing more is committed as if it had not been made.
"""

from __future__ import annotations

from typing import Any

import psycopg

from embassy.model.control import Control, Cut, Freeze, Point, Suspect
from embassy.model.errors import RefusedError
from embassy.model.lsn import Lsn
from embassy.pg.presence import has_column

_TABLE = "embassy.control"
_NEWEST_COLUMN = "admitted_record"
_MICROSECONDS = "(extract(epoch FROM {}) * 1000000)::bigint"

VERSION_HELD = f"(SELECT c.version FROM {_TABLE} c WHERE c.stream = {{stream}} FOR SHARE)"
"""The version, for the statement that moves the progress row: it stays until the transaction ends."""

_READ = f"""
SELECT version, freezes, freeze_id::text, extract(epoch FROM frozen_at)::float8, frozen_by, freeze_reason,
       suspect_xid, suspect_lsn::text, stop_at_lsn::text, {_MICROSECONDS.format("stop_at_time")}, at_once,
       admitted_xid, admitted_lsn::text, lifted_by, cut_head, cut_transactions, cut_lsn::text,
       coalesce(suspect_record, ''), coalesce(admitted_record, '')
FROM {_TABLE} WHERE stream = %s"""
_FREEZE = f"""
UPDATE {_TABLE} SET version = version + 1, freezes = freezes + 1,
    freeze_id = pg_catalog.gen_random_uuid(), frozen_at = pg_catalog.clock_timestamp(),
    frozen_by = %s, freeze_reason = %s, suspect_xid = %s, suspect_lsn = %s::pg_lsn, suspect_record = %s,
    freeze_order = %s,
    stop_at_lsn = NULL, stop_at_time = NULL, at_once = false
WHERE stream = %s AND frozen_at IS NULL"""
_UNFREEZE = f"""
UPDATE {_TABLE} SET version = version + 1, frozen_at = NULL, freeze_id = NULL, frozen_by = NULL,
    freeze_reason = NULL, freeze_order = NULL, lifted_by = %s,
    admitted_xid = coalesce(suspect_xid, admitted_xid), admitted_lsn = coalesce(suspect_lsn, admitted_lsn),
    admitted_record = CASE WHEN suspect_xid IS NULL THEN admitted_record ELSE suspect_record END,
    suspect_xid = NULL, suspect_lsn = NULL, suspect_record = NULL, at_once = %s,
    stop_at_lsn = %s::pg_lsn, stop_at_time = timestamptz 'epoch' + %s::bigint * interval '1 microsecond'
WHERE stream = %s AND frozen_at IS NOT NULL AND freeze_id = %s::uuid"""
_STOP_AT = f"""
UPDATE {_TABLE} SET version = version + 1, at_once = false,
    stop_at_lsn = %s::pg_lsn, stop_at_time = timestamptz 'epoch' + %s::bigint * interval '1 microsecond'
WHERE stream = %s AND frozen_at IS NULL"""
_CUT = f"""
UPDATE {_TABLE} SET version = version + 1, cut_head = %s, cut_transactions = %s, cut_lsn = %s::pg_lsn
WHERE stream = %s"""


def begin(connection: psycopg.Connection[Any], stream: bytes) -> None:
    """Make the stream's row unless there is one.

    Raises:
        RefusedError: the replica has no table for it.
    """
    _must_exist(connection)
    connection.execute(f"INSERT INTO {_TABLE} (stream) VALUES (%s) ON CONFLICT DO NOTHING", (stream,))


def read(connection: psycopg.Connection[Any], stream: bytes) -> Control:
    """The stream's row; nothing was ever said if there is none.

    Raises:
        RefusedError: the replica has no table for it.
    """
    _must_exist(connection)
    row = connection.execute(_READ.encode(), (stream,)).fetchone()
    return Control() if row is None else _control(row)


def version(connection: psycopg.Connection[Any], stream: bytes) -> int:
    """The version of the stream's row; 0 if there is none."""
    row = connection.execute(f"SELECT version FROM {_TABLE} WHERE stream = %s", (stream,)).fetchone()
    return 0 if row is None else int(row[0])


def freeze(
    connection: psycopg.Connection[Any],
    stream: bytes,
    *,
    by: str,
    reason: str,
    suspect: Suspect | None = None,
    order: str | None = None,
) -> bool:
    """Let nothing more be applied; once this is committed, nothing is. False if the stream was frozen already.

    Args:
        connection: the replica's.
        stream: whose.
        by: the person, or what in the product did it.
        reason: for people.
        suspect: what a threshold was exceeded by.
        order: the signed word of the person, as its file has it.
    """
    xid, lsn, record = (suspect.xid, str(suspect.lsn), suspect.record) if suspect is not None else (None,) * 3
    begin(connection, stream)
    return connection.execute(_FREEZE.encode(), (by, reason, xid, lsn, record, order, stream)).rowcount == 1


def unfreeze(
    connection: psycopg.Connection[Any],
    stream: bytes,
    *,
    freeze_id: str,
    by: str,
    stop_at: Point | None,
    at_once: bool,
) -> bool:
    """Lift a freeze, and let its suspect pass; False if the stream is not in that freeze.

    Args:
        connection: the replica's.
        stream: whose.
        freeze_id: of the freeze that the approval was given for.
        by: the nonce of the order; see `Control.lifted_by`.
        stop_at: where it freezes again.
        at_once: whether the apply delay does not hold up to there.
    """
    lsn, time = _point(stop_at)
    return connection.execute(_UNFREEZE.encode(), (by, at_once, lsn, time, stream, freeze_id)).rowcount == 1


def stop_at(connection: psycopg.Connection[Any], stream: bytes, point: Point) -> bool:
    """Freeze once everything up to a point is applied; False if the stream is frozen already."""
    begin(connection, stream)
    return connection.execute(_STOP_AT.encode(), (*_point(point), stream)).rowcount == 1


def cut(connection: psycopg.Connection[Any], stream: bytes, place: Cut) -> None:
    """Note, in the transaction that applies them, that only the first transactions of the next batch are applied."""
    connection.execute(_CUT.encode(), (place.head, place.transactions, str(place.lsn), stream))


def note_delay(connection: psycopg.Connection[Any], stream: bytes, seconds: float) -> None:
    """Tell what apply delay the consumer keeps to; it says nothing that a commit depends on."""
    connection.execute(
        f"UPDATE {_TABLE} SET apply_delay_seconds = %s WHERE stream = %s AND apply_delay_seconds <> %s",
        (seconds, stream, seconds),
    )


def _must_exist(connection: psycopg.Connection[Any]) -> None:
    if not has_column(connection, _TABLE, _NEWEST_COLUMN):
        raise RefusedError(
            f"the replica has no table {_TABLE}, or that of an earlier version",
            place=connection.info.dbname,
            hint="embassy provision apply brings it up to date",
        )


def _point(point: Point | None) -> tuple[str | None, int | None]:
    if point is None:
        return None, None
    return (str(point.lsn) if point.lsn is not None else None), point.time


def _control(row: tuple[Any, ...]) -> Control:
    number, freezes, freeze_id, frozen_at, by, reason, suspect_xid, suspect_lsn, stop_lsn, stop_time, *rest = row
    (
        at_once,
        admitted_xid,
        admitted_lsn,
        lifted_by,
        cut_head,
        cut_transactions,
        cut_lsn,
        suspect_record,
        admitted_record,
    ) = rest
    suspect = _suspect(suspect_xid, suspect_lsn, suspect_record)
    stop = Point(Lsn.parse(stop_lsn) if stop_lsn else None, stop_time)
    return Control(
        number,
        Freeze(freezes, freeze_id or "", frozen_at, by or "", reason or "", suspect)
        if frozen_at is not None
        else None,
        freezes,
        stop if stop != Point() else None,
        at_once,
        _suspect(admitted_xid, admitted_lsn, admitted_record),
        lifted_by or "",
        Cut(bytes(cut_head), cut_transactions, Lsn.parse(cut_lsn)) if cut_head is not None else None,
    )


def _suspect(xid: int | None, lsn: str | None, record: bytes) -> Suspect | None:
    return Suspect(xid, Lsn.parse(lsn), bytes(record)) if xid is not None and lsn is not None else None
