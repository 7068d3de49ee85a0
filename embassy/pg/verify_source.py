"""What a verification needs of a database at home, beside the rows."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from embassy.model.errors import RefusedError
from embassy.model.verification import Message, TableName, encode
from embassy.pg.connection import NO_VIEWS, connect, place_of
from embassy.pg.presence import has_table

_APPLICATION = "embassy-verify"
# Whoever may have changed rows of the table holds one of these until it is no longer in progress, commit included.
_WRITERS = """
SELECT w.virtualtransaction, x.transactionid::text::bigint
FROM pg_catalog.pg_locks w
LEFT JOIN pg_catalog.pg_locks x ON x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND x.granted
     AND x.virtualtransaction = w.virtualtransaction
WHERE w.locktype = 'relation' AND w.granted
  AND w.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND w.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND w.relation = (SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = %s AND c.relname = %s)"""
_COPIES = """
SELECT coalesce(bool_or(state <> 'done'), false), coalesce(max(copy), 0) FROM embassy.table_copy
WHERE schema_name = %s AND table_name = %s"""


def open_source(dsn: str) -> psycopg.Connection[Any]:
    """Open a session for a verification.

    Raises:
        TransientError, ConfigurationError: as for `connect`.
        RefusedError: the database is not provisioned for it.
    """
    connection = connect(dsn, application_name=_APPLICATION, autocommit=True)
    if not has_table(connection, "embassy.verify_message"):
        connection.close()
        raise RefusedError(
            "the database has no table embassy.verify_message",
            place=place_of(dsn),
            hint="embassy provision apply makes it, at home and in the embassy; check streams.NAME.source.dsn",
        )
    connection.execute(NO_VIEWS)
    return connection


def say(connection: psycopg.Connection[Any], run: UUID, ordinal: int, message: Message) -> int:
    """Write a message into the stream; returns the transaction that did."""
    row = connection.execute("SELECT embassy.verify_say(%s, %s, %s)", (run, ordinal, encode(message))).fetchone()
    assert row is not None, "the function returns its transaction"
    return int(row[0])


def writers(connection: psycopg.Connection[Any], table: TableName) -> dict[str, list[int]]:
    """Transactions that hold a lock for writing on a table, and their numbers: none if nothing was written yet."""
    found: dict[str, list[int]] = {}
    for transaction, xid in connection.execute(_WRITERS, tuple(table)):
        found.setdefault(transaction, []).extend([] if xid is None else [xid])
    return found


class Copies(NamedTuple):
    """What is known of copies of a table's rows."""

    unfinished: bool
    """Whether rows are still on their way to the replica."""
    last: int
    """The newest one's number; 0: there was none."""


def copies(connection: psycopg.Connection[Any], table: TableName) -> Copies:
    """The copies of a table that were ever asked for."""
    if not has_table(connection, "embassy.table_copy"):
        return Copies(unfinished=False, last=0)
    row = connection.execute(_COPIES, tuple(table)).fetchone()
    assert row is not None, "an aggregate has one row"
    return Copies(*row)


def estimated_rows(connection: psycopg.Connection[Any], tables: list[TableName]) -> dict[TableName, int]:
    """How many rows the planner believes tables to have; 0 if it has no idea."""
    found = connection.execute(
        """SELECT n.nspname, c.relname, greatest(c.reltuples, 0)::bigint
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))""",
        ([table.schema for table in tables], [table.name for table in tables]),
    )
    return {TableName(schema, name): rows for schema, name, rows in found}
