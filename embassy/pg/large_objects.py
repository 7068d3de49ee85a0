"""What is new in large objects at home goes into the stream; the SQL is schemas/sql/source_large_objects.sql."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.errors import LockNotAvailable

from embassy.model.large_objects import OBJECTS
from embassy.model.verification import Key, TableName
from embassy.pg.exchange import Errand
from embassy.pg.presence import Look, Part, has_table

CARRIED_PAGES = 2048
"""What one transaction carries at most, in pages of 2 KiB; whoever commits pages of their own waits for it."""

SETTINGS = {"default_transaction_isolation": "read committed", "jit": "off"}
"""What the session that looks must be opened with: what is read once a lock is held must be newer than the lock."""

_AGAIN_SECONDS = 0.2
_REMOVED_MOST = 1000
_RANGES_MOST = 100
_BEFORE_ALL: Key = ("0", "-1")
_BEHIND_ALL: Key = ("4294967295", "2147483647")

_CARRIED = """
SELECT bool_and(pg_catalog.has_table_privilege(p.proowner, 'pg_catalog.pg_largeobject', 'SELECT'))
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'embassy' AND p.proname IN ('look_for_large_objects', 'carry_large_objects')"""
CHANGES = """
SELECT sum(pg_catalog.pg_stat_get_tuples_inserted(oid) + pg_catalog.pg_stat_get_tuples_updated(oid)
           + pg_catalog.pg_stat_get_tuples_deleted(oid))::bigint
FROM pg_catalog.pg_class
WHERE oid IN ('pg_catalog.pg_largeobject'::regclass, 'pg_catalog.pg_largeobject_metadata'::regclass,
              'pg_catalog.pg_description'::regclass, pg_catalog.to_regclass('embassy.large_object_wish'))"""
"""How much has been written to them, or asked for, since statistics began: a hint, which may be late or lost."""

_WHERE_NONE = f"""CASE WHEN ({_CARRIED})
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
    AND NOT EXISTS (SELECT FROM embassy.large_object_known)
    AND NOT EXISTS (SELECT FROM embassy.large_object_due)
    AND NOT EXISTS (SELECT FROM embassy.large_object_wish)
THEN embassy.look_for_large_objects({{stream}}) END"""
_FOUND_BY = ("embassy.large_object_known", "embassy.large_object_due", "embassy.large_object_wish")


class LargeObjectState(NamedTuple):
    """How far a stream is with large objects; times by the source's clock."""

    as_of: datetime | None
    """What was committed before is in the stream; None: not all that was there at first."""
    behind: int
    """Objects that were found changed and are still to come."""


def is_carried(connection: psycopg.Connection[Any]) -> bool:
    """Whether what carries them is there, and may read them."""
    return connection.execute(_CARRIED).fetchone() == (True,)


def may_read(connection: psycopg.Connection[Any]) -> bool:
    """Whether this session's role may read them all, so that what it provisions may, too."""
    row = connection.execute(
        "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')"
    ).fetchone()
    return row == (True,)


def count(connection: psycopg.Connection[Any]) -> int:
    """How many there are."""
    row = connection.execute("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata").fetchone()
    return int(row[0]) if row else 0


class LookWhereNone:
    """The look of a database that has no large objects and, as far as the replica was told, had none: it finds nothing.

    For a session in autocommit mode that is opened with `SETTINGS`.
    """

    def __init__(self, stream: bytes) -> None:
        self._look = Look(Part(f"({CHANGES})"), Part(_WHERE_NONE, _FOUND_BY), stream=stream)

    def errand(self, taken: Callable[[int], None]) -> Errand:
        """To be asked along with other things; in such a database, ``taken`` is told what `CHANGES` said before."""

        def found(values: tuple[Any, ...]) -> None:
            changes, objects = values
            if objects == 0:
                taken(int(changes or 0))

        return self._look.errand(found)


def look(connection: psycopg.Connection[Any], stream: bytes) -> int:
    """Note what is new since the stream's look before; returns how many objects are to be carried."""
    row = connection.execute("SELECT embassy.look_for_large_objects(%s)", (stream,)).fetchone()
    assert row is not None, "the function returns a number"
    return int(row[0])


def carry(connection: psycopg.Connection[Any], stream: bytes) -> int | None:
    """Carry some of what was found, in a transaction of its own; returns how many objects are left.

    None: somebody is just committing pages of their own, and nothing was carried; to be tried again.
    """
    try:
        row = connection.execute("SELECT embassy.carry_large_objects(%s, %s)", (stream, CARRIED_PAGES)).fetchone()
    except LockNotAvailable:
        return None
    assert row is not None, "the function returns a number"
    return int(row[0])


def carry_all(connection: psycopg.Connection[Any], stream: bytes, patience_seconds: float = math.inf) -> None:
    """Carry all that is new, as far as nobody who is just committing is in the way for longer than one has patience."""
    connection.execute("SET default_transaction_isolation = 'read committed'")
    left: int | None = look(connection, stream)
    deadline = time.monotonic() + patience_seconds
    while left is None or left > 0:
        left = carry(connection, stream)
        if left is None:
            if time.monotonic() > deadline:
                return
            time.sleep(_AGAIN_SECONDS)


def state(connection: psycopg.Connection[Any], stream: bytes) -> LargeObjectState | None:
    """What the stream says of how far it is, at home or in a replica; None if it has said nothing."""
    if not has_table(connection, "embassy.large_object_state"):
        return None
    row = connection.execute(
        "SELECT as_of, behind FROM embassy.large_object_state WHERE stream = %s", (stream,)
    ).fetchone()
    return None if row is None else LargeObjectState(*row)


def remove(connection: psycopg.Connection[Any], oids: Collection[str] | None) -> int:
    """Remove objects, or all there are; returns how many were there.

    In autocommit mode: some at a time, for each is a lock.
    """
    wanted = None if oids is None else list(oids)
    removed = 0
    while True:
        row = connection.execute(
            """SELECT count(pg_catalog.lo_unlink(o.oid)) FROM (
                   SELECT m.oid FROM pg_catalog.pg_largeobject_metadata m
                   WHERE %(oids)s::oid[] IS NULL OR m.oid = ANY (%(oids)s::oid[]) LIMIT %(most)s) o""",
            {"oids": wanted, "most": _REMOVED_MOST},
        ).fetchone()
        assert row is not None, "an aggregate has one row"
        removed += int(row[0])
        if row[0] < _REMOVED_MOST:
            return removed


def know_all(connection: psycopg.Connection[Any]) -> None:
    """Note that a replica may have each object that is there: where the embassy's database becomes the source, it has.

    Otherwise one that is removed before the first look would stay there, unseen.
    """
    if has_table(connection, "embassy.large_object_known"):
        connection.execute(
            """INSERT INTO embassy.large_object_known
               SELECT m.oid, pg_catalog.obj_description(m.oid, 'pg_largeobject') IS NOT NULL
               FROM pg_catalog.pg_largeobject_metadata m
               ON CONFLICT (loid) DO UPDATE SET commented = excluded.commented"""
        )


def is_later(connection: psycopg.Connection[Any], stream: bytes, asked_at: datetime | None) -> bool:
    """Whether what was asked for then is in the stream, at home, or has come, in a replica."""
    found = state(connection, stream)
    return asked_at is None or (found is not None and found.as_of is not None and found.as_of > asked_at)


def behind(
    connection: psycopg.Connection[Any], stream: bytes, table: TableName, after: Key | None, until: Key | None
) -> list[Key]:
    """What this session's snapshot shows of large objects and the stream has not brought by then, in a range of rows.

    Args:
        connection: at home, in the transaction that reads the rows.
        stream: the stream.
        table: one of `embassy.model.large_objects.TABLES`.
        after: the range is behind this key, None: from the first one on.
        until: and up to this one; None: to the last one.

    Returns:
        Doubts, as `embassy.model.large_objects` has them.
    """
    first, last = after or _BEFORE_ALL, until or _BEHIND_ALL
    if table == OBJECTS:
        rows = connection.execute(
            "SELECT o::text FROM embassy.large_objects_behind(%s, %s, %s) o", (stream, first[0], last[0])
        )
    else:
        rows = connection.execute(
            "SELECT loid::text, from_page::text FROM embassy.large_object_pages_behind(%s, %s, %s, %s, %s)",
            (stream, *first, *last),
        )
    return [tuple(row) for row in rows]


def why_not_compared(connection: psycopg.Connection[Any]) -> str:
    """Why this session cannot tell a replica what large objects there are; empty if it can."""
    if not is_carried(connection):
        return "large objects are not carried: embassy doctor home, PG13"
    if not may_read(connection):
        return "this role may not read pg_largeobject"
    known = connection.execute(
        "SELECT pg_catalog.to_regprocedure('embassy.large_objects_behind(bytea, oid, oid)')"
    )
    return (
        "" if known.fetchone() != (None,) else "home was provisioned by an older version: embassy provision apply"
    )


def request(connection: psycopg.Connection[Any], keys: Sequence[Key], reason: str) -> datetime:
    """Ask at home for objects once more; a state as of later has them.

    Args:
        connection: an administrator's.
        keys: of either table, in order; where there are many, what lies between is sent too. None: all objects there
            may be.
        reason: for people.
    """
    requested = None
    size = -(-len(keys) // _RANGES_MOST)
    ends = [(keys[at], keys[min(at + size, len(keys)) - 1]) for at in range(0, len(keys), max(1, size))]
    for first, last in ends or [(_BEFORE_ALL, _BEHIND_ALL)]:
        row = connection.execute(
            "SELECT embassy.request_large_objects(%s, %s, %s)", (first[0], last[0], reason)
        ).fetchone()
        assert row is not None, "the function returns the time"
        requested = row[0]
    assert isinstance(requested, datetime), "there is a range"
    return requested


def unwatched(connection: psycopg.Connection[Any]) -> list[str]:
    """Tables, qualified and quoted, that may refer to large objects and do not take them along."""
    there = connection.execute(
        "SELECT pg_catalog.to_regprocedure('embassy.unwatched_tables(oid[])') IS NOT NULL"
    ).fetchone()
    if there != (True,):
        return []
    return [
        name
        for (name,) in connection.execute(
            """SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
               FROM embassy.unwatched_tables() u (oid) JOIN pg_catalog.pg_class c ON c.oid = u.oid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1"""
        )
    ]


def watch(connection: psycopg.Connection[Any], table: str) -> None:
    """Let a table's transactions take along what they write in the objects that its rows refer to."""
    connection.execute("SELECT embassy.watch_table(%s::regclass)", (table,))
