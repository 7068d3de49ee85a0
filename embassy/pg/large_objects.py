"""What is new in large objects at home goes into the stream; the SQL is schemas/sql/source_large_objects.sql."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.errors import LockNotAvailable

from embassy.pg.presence import has_table

CARRIED_PAGES = 2048
"""What one transaction carries at most, in pages of 2 KiB; whoever commits pages of their own waits for it."""

SETTINGS = {"default_transaction_isolation": "read committed", "jit": "off"}
"""What the session that looks must be opened with: what is read once a lock is held must be newer than the lock."""

_AGAIN_SECONDS = 0.2

_READY = """
SELECT (SELECT bool_and(pg_catalog.has_table_privilege(p.proowner, 'pg_catalog.pg_largeobject', 'SELECT'))
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'embassy' AND p.proname IN ('look_for_large_objects', 'carry_large_objects')),
       pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')"""
_CHANGES = """
SELECT sum(pg_catalog.pg_stat_get_tuples_inserted(oid) + pg_catalog.pg_stat_get_tuples_updated(oid)
           + pg_catalog.pg_stat_get_tuples_deleted(oid))::bigint
FROM pg_catalog.pg_class
WHERE oid IN ('pg_catalog.pg_largeobject'::regclass, 'pg_catalog.pg_largeobject_metadata'::regclass,
              'pg_catalog.pg_description'::regclass)"""


class LargeObjectState(NamedTuple):
    """How far a stream is with large objects; times by the source's clock."""

    as_of: datetime | None
    """What was committed before is in the stream; None: not all that was there at first."""
    behind: int
    """Objects that were found changed and are still to come."""


def is_carried(connection: psycopg.Connection[Any]) -> bool:
    """Whether what carries them is there, and may read them."""
    row = connection.execute(_READY).fetchone()
    return row is not None and row[0] is True


def may_read(connection: psycopg.Connection[Any]) -> bool:
    """Whether this session's role may read them all, so that what it provisions may, too."""
    row = connection.execute(_READY).fetchone()
    return row is not None and row[1] is True


def count(connection: psycopg.Connection[Any]) -> int:
    """How many there are."""
    row = connection.execute("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata").fetchone()
    return int(row[0]) if row else 0


def changes(connection: psycopg.Connection[Any]) -> int:
    """How much has been written to them since statistics began: a hint, which may come late, or be lost in a crash."""
    row = connection.execute(_CHANGES).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


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


def carry_all(connection: psycopg.Connection[Any], stream: bytes) -> None:
    """Carry all that is new, while nobody writes any more."""
    connection.execute("SET default_transaction_isolation = 'read committed'")
    behind = look(connection, stream)
    while behind:
        left = carry(connection, stream)
        if left is None:
            time.sleep(_AGAIN_SECONDS)
        else:
            behind = left


def state(connection: psycopg.Connection[Any], stream: bytes) -> LargeObjectState | None:
    """What the stream says of how far it is, at home or in a replica; None if it has said nothing."""
    if not has_table(connection, "embassy.large_object_state"):
        return None
    row = connection.execute(
        "SELECT as_of, behind FROM embassy.large_object_state WHERE stream = %s", (stream,)
    ).fetchone()
    return None if row is None else LargeObjectState(*row)


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
