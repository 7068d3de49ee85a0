"""A database that was superseded becomes a replica: what is seen of it on the way, and each change, all repeatable.

At no moment can anyone write: a table loses the fence only once it has the guard, and only a consumer passes that. The
progress row, by which a consumer begins, is written last, with everything forgotten that an earlier epoch has said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from embassy.model.errors import TransientError
from embassy.model.large_objects import OBJECTS
from embassy.model.record import Head
from embassy.model.touched import Touched
from embassy.model.verification import TableName
from embassy.pg import large_objects, progress_store, replica_schema, slots, source_schema, table_copies
from embassy.pg.catalog import source_tables
from embassy.pg.ddl_capture import let_go
from embassy.pg.presence import has_table
from embassy.pg.sessions import end_sessions
from embassy.pg.setup_errors import in_turn
from embassy.pg.source_fence import fenced_tables, is_read_only, let_logins_fire, release_table
from embassy.pg.write_triggers import tables_without

_OWN_SLOT = """
SELECT p.slot, coalesce((SELECT pubname FROM pg_catalog.pg_publication WHERE oid = p.publication), 'embassy')
FROM embassy.slot_proof p JOIN pg_catalog.pg_replication_slots s
    ON s.slot_name = p.slot AND s.database = pg_catalog.current_database()
WHERE p.stream = %s"""
# What an epoch's consumer notes of it; the next one's numbers would meet it.
_NOTED = ("ddl_by_hand", "verification", "verify_finding", "verify_run")


_WRITERS = ["embassy-heartbeat", "embassy-copy", "embassy-large-objects"]
"""Sessions in which a producer writes to the product's tables. Each looks first whether the database is superseded, which
a fence said before: one that is ended does not come back."""


class OwnSlot(NamedTuple):
    """The slot from which the database was replicated while it was the source."""

    slot: str
    publication: str


class Begun(NamedTuple):
    """A failback that is not done with its conflict bundle."""

    epoch: int
    """The epoch that the database becomes a replica of."""
    bundled_at: float
    """Since when the bundle is kept; seconds since 1970 UTC, by this server's clock."""


def unfinished(connection: psycopg.Connection[Any], stream: bytes) -> Begun | None:
    """The newest failback whose bundle's rows are still in the tables; None: there is none."""
    if not has_table(connection, "embassy.failback"):
        return None
    row = connection.execute(
        """SELECT epoch, extract(epoch FROM bundled_at)::float8 FROM embassy.failback
           WHERE stream = %s AND cleared_at IS NULL ORDER BY epoch DESC LIMIT 1""",
        (stream,),
    ).fetchone()
    return None if row is None else Begun(*row)


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Make the product's own tables of a replica, as far as they are not there; nothing else is touched."""
    replica_schema.ensure(connection)


def is_shut(connection: psycopg.Connection[Any], nonce: bytes) -> bool:
    """Whether the fence of a report is noted, and every table refuses writes: by the fence, or by the guard."""
    noted = connection.execute(
        "SELECT EXISTS (SELECT FROM embassy.fence WHERE nonce = %s AND promoted)", (nonce,)
    ).fetchone()
    if noted != (True,):
        return False
    unfenced = set(tables_without(connection, function="embassy.refuse_fenced_write", enabled="A"))
    return unfenced.isdisjoint(replica_schema.unguarded(connection))


def is_guarded(connection: psycopg.Connection[Any]) -> bool:
    """Whether it is as a replica has to be: guards, and nothing that would fire, refuse or be captured."""
    return not (
        replica_schema.unguarded(connection)
        or fenced_tables(connection)
        or replica_schema.firing(connection)
        or let_go(connection, dry=True)
        or is_read_only(connection)
    )


def guard(connection: psycopg.Connection[Any]) -> int:
    """Make it so; returns how many tables are guarded."""
    let_go(connection)
    for schema, name in replica_schema.unguarded(connection):
        in_turn(connection, partial(replica_schema.guard, connection, schema, name))
    fenced = fenced_tables(connection)
    for schema, name in fenced:
        in_turn(connection, partial(release_table, connection, schema, name))
    replica_schema.forget_enabled(connection)
    with connection.transaction():  # no login comes between the two, to be refused
        let_logins_fire(connection)
        replica_schema.silence_event_triggers(connection)
    for found in replica_schema.firing(connection):
        in_turn(connection, partial(replica_schema.silence, connection, found))
    connection.execute(
        sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(
            sql.Identifier(connection.info.dbname)
        )
    )
    return len(fenced)


def own_slot(connection: psycopg.Connection[Any], stream: bytes) -> OwnSlot | None:
    """The slot of its own reign, if it is still there."""
    known = has_table(connection, "embassy.slot_proof")
    found = connection.execute(_OWN_SLOT, (stream,)).fetchone() if known else None
    return None if found is None else OwnSlot(*found)


def drop_own_slot(connection: psycopg.Connection[Any], slot: str) -> None:
    """Drop it; a producer that still has it is ended, and finds out that it is superseded.

    Raises:
        TransientError: the producer does not let go.
    """
    slots.end_holder(connection, slot)
    slots.drop_slot(connection, slot)


def bundle_of(connection: psycopg.Connection[Any], nonce: bytes) -> Mapping[str, Any] | None:
    """What was noted of the conflict bundle; None: none was made."""
    row = connection.execute("SELECT bundle FROM embassy.failback WHERE nonce = %s", (nonce,)).fetchone()
    return None if row is None else row[0]


def note_bundle(
    connection: psycopg.Connection[Any], *, nonce: bytes, stream: bytes, epoch: int, bundle: Mapping[str, Any]
) -> None:
    """Note that what never shipped is kept."""
    connection.execute(
        """INSERT INTO embassy.failback (nonce, stream, epoch, bundle) VALUES (%s, %s, %s, %s)
           ON CONFLICT (nonce) DO UPDATE SET bundle = excluded.bundle, bundled_at = pg_catalog.clock_timestamp()""",
        (nonce, stream, epoch, json.dumps(bundle)),
    )


def clear(
    connection: psycopg.Connection[Any],
    nonce: bytes,
    touched: Mapping[TableName, Touched] | None,
    *,
    publication: str,
) -> dict[str, int]:
    """Take out of the tables what never shipped, and note that their rows are awaited: all of it in one transaction.

    Large objects go before, some at a time. They are awaited without a note: an epoch begins with all that there are.

    What is left is what the embassy had, too, when it was promoted: so nothing that it wrote since can meet a row of
    nobody's.

    Args:
        connection: an administrator's, in autocommit mode.
        nonce: of the plan that superseded the database.
        touched: the rows; None: it is not known which, and every table is emptied that was in the stream. No row of
            another one ever travelled, and none would come back.
        publication: what was in the stream.

    Returns:
        How many rows were deleted, by table.
    """
    every = {TableName(*found) for found in table_copies.registry_tables(connection)}
    published = {
        TableName(table.schema, table.name) for table in source_tables(connection, publication) if table.published
    }
    wanted = dict.fromkeys((*(every & published or every), OBJECTS), Touched((), None))
    if touched is not None and touched.keys() <= wanted.keys():
        wanted = dict(touched)
    deleted = {}
    if (objects := wanted.pop(OBJECTS, None)) is not None:
        oids = None if objects.keys is None else [oid for (oid,) in objects.keys]
        deleted[str(OBJECTS)] = large_objects.remove(connection, oids)
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute("DELETE FROM embassy.awaited_copy")
        for table, rows in sorted(wanted.items()):
            deleted[str(table)] = _delete(connection, table, rows)
            table_copies.await_copy(connection, *table)
        connection.execute(
            "UPDATE embassy.failback SET cleared_at = pg_catalog.clock_timestamp() WHERE nonce = %s", (nonce,)
        )
    return deleted


def is_cleared(connection: psycopg.Connection[Any], nonce: bytes) -> bool:
    """Whether what never shipped is no longer there."""
    return connection.execute(
        "SELECT EXISTS (SELECT FROM embassy.failback WHERE nonce = %s AND cleared_at IS NOT NULL)", (nonce,)
    ).fetchone() == (True,)


def _delete(connection: psycopg.Connection[Any], table: TableName, rows: Touched) -> int:
    """Delete rows by the text of their keys, as the log shows them: as the types' output functions make it."""
    name = sql.Identifier(*table)
    if rows.keys is None:
        return connection.execute(sql.SQL("DELETE FROM ONLY {}").format(name)).rowcount
    columns = [sql.Identifier(column) for column in rows.columns]
    names = [sql.Identifier(f"k{number}") for number in range(len(columns))]
    matches = sql.SQL(" AND ").join(
        sql.SQL("pg_catalog.format('%%s', t.{}) = k.{}").format(column, key)
        for column, key in zip(columns, names, strict=True)
    )
    statement = sql.SQL("DELETE FROM ONLY {} t USING ROWS FROM ({}) k ({}) WHERE {}").format(
        name,
        sql.SQL(", ").join(sql.SQL("pg_catalog.unnest(%s::text[])") for _ in columns),
        sql.SQL(", ").join(names),
        matches,
    )
    return connection.execute(
        statement, [list(values) for values in zip(*sorted(rows.keys), strict=True)]
    ).rowcount


def begin(
    connection: psycopg.Connection[Any],
    stream: bytes,
    genesis: Head,
    *,
    level: bool,
    as_of: datetime | None = None,
) -> bool:
    """Let a consumer begin: all of it in one transaction; returns whether it was begun now.

    Args:
        connection: an administrator's, in autocommit mode.
        stream: the stream.
        genesis: of the epoch that supersedes the database.
        level: whether its rows are the source's where that epoch begins; else `clear` has noted what is missing.
        as_of: when that was, by the source's clock: nothing was committed there before that is not here or noted as
            missing. None: not known, and the database cannot be promoted before it has applied something.

    Raises:
        TransientError: a session of the producer's does not end; to be tried again.
    """
    _end_writers(connection)
    with connection.transaction():
        source_schema.forget_said(connection)
        for table in _NOTED:
            connection.execute(sql.SQL("DELETE FROM embassy.{}").format(sql.Identifier(table)))
        if level:
            table_copies.await_no_more(connection)
        else:
            connection.execute("UPDATE embassy.awaited_copy SET after_copy = 0")
        return progress_store.succeed(connection, stream, genesis, as_of=as_of)


def _end_writers(connection: psycopg.Connection[Any]) -> None:
    """A beat behind what is forgotten would meet the first one of the epoch that begins."""
    if end_sessions(
        connection, "a.datname = pg_catalog.current_database() AND a.application_name = ANY (%s)", _WRITERS
    ).stayed:
        raise TransientError(
            "a session of the producer that was superseded does not end",
            place=connection.info.dbname,
            hint="stop that producer, then run this again",
        )
