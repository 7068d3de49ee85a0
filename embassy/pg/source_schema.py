"""What the product keeps in a database at home; the SQL, with its reasons, is schemas/sql/source*.sql."""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable

from embassy.model.lsn import Lsn
from embassy.pg.exchange import Question, plain
from embassy.pg.own_schema import refuse_a_strangers
from embassy.pg.presence import has_table
from embassy.pg.reign import Reign

_SCRIPTS = (
    "source.sql",
    "source_published.sql",
    "source_copy.sql",
    "shared_ddl.sql",
    "source_ddl_tables.sql",
    "source_ddl.sql",
    "source_owners.sql",
    "shared_sequences.sql",
    "source_sequences.sql",
    "source_fence.sql",
    "source_keys.sql",
    "source_verify.sql",
    "shared_large_objects.sql",
    "source_large_objects.sql",
)
"""Executed in this order."""
_SAID = (
    *("heartbeat", "copy_place", "table_copy", "ddl", "ddl_rows", "ddl_owner", "sequence_state", "verify_message"),
    *("large_object_change", "large_object_state", "large_object_look"),
)
"""What a source says of itself, and which large objects it has looked at: a new replica gets them all. ``stream`` and
``fence`` name beginnings and plans, which never repeat, and stay."""
_WAL_WRITER_DELAY_MOST_MS = 500
"""The default is 200 ms. A commit that waits for nothing is on disk after three times as much at most."""
_BEAT = b"SELECT embassy.beat($1, $2)"
_GRANTS = """
GRANT USAGE ON SCHEMA embassy TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA embassy TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA embassy TO {role};
"""


def ensure(connection: psycopg.Connection[Any], *, producer_role: str) -> None:
    """Create the schema, its tables and functions, and let the producer's role use them; repeatable.

    Raises:
        RefusedError: the schema is there, and somebody else's.
    """
    with connection.transaction():
        refuse_a_strangers(connection)
        for script in _SCRIPTS:
            connection.execute(files("schemas").joinpath("sql", script).read_bytes())
        for statement in _GRANTS.strip().splitlines():
            connection.execute(sql.SQL(statement).format(role=sql.Identifier(producer_role)))


def is_provisioned(connection: psycopg.Connection[Any]) -> bool:
    """Whether the schema is there."""
    return has_table(connection, "embassy.stream")


def note_beginning(
    connection: psycopg.Connection[Any],
    stream: bytes,
    *,
    slot: str,
    begins_at: Lsn,
    publication: str,
    replica_was_level: bool,
) -> None:
    """Note with what the stream begins, once the rows that the slot will not send are accounted for."""
    connection.execute(
        """INSERT INTO embassy.slot_proof (stream, slot, begins_at, publication, replica_was_level)
           SELECT %s, %s, %s::pg_lsn, oid, %s FROM pg_catalog.pg_publication WHERE pubname = %s
           ON CONFLICT (stream) DO UPDATE
           SET slot = excluded.slot, begins_at = excluded.begins_at, publication = excluded.publication,
               replica_was_level = excluded.replica_was_level, made_at = excluded.made_at, made_by = excluded.made_by""",
        (stream, slot, str(begins_at), replica_was_level, publication),
    )


def publication_was_replaced(connection: psycopg.Connection[Any], stream: bytes, publication: str) -> bool:
    """Whether the publication is gone, or another one than the stream began with."""
    found = connection.execute(
        "SELECT oid FROM pg_catalog.pg_publication WHERE pubname = %s", (publication,)
    ).fetchone()
    if not _has_proofs(connection):
        return found is None
    noted = connection.execute(
        "SELECT publication FROM embassy.slot_proof WHERE stream = %s", (stream,)
    ).fetchone()
    return found is None or noted not in (None, found)


def slot_is_proven(connection: psycopg.Connection[Any], stream: bytes, slot: str) -> bool:
    """Whether the slot, of which nothing has been confirmed yet, is the one that was noted."""
    if not _has_proofs(connection):
        return False
    row = connection.execute(
        """SELECT EXISTS (
               SELECT FROM embassy.slot_proof p
               JOIN pg_catalog.pg_replication_slots s ON s.slot_name = p.slot AND s.confirmed_flush_lsn = p.begins_at
               WHERE p.stream = %s AND p.slot = %s AND s.database = pg_catalog.current_database())""",
        (stream, slot),
    ).fetchone()
    return row == (True,)


def genesis_at(connection: psycopg.Connection[Any], stream: bytes) -> datetime | None:
    """When the stream began, or None if it never did."""
    row = connection.execute("SELECT began_at FROM embassy.stream WHERE stream = %s", (stream,)).fetchone()
    return None if row is None else row[0]


def begun_at(connection: psycopg.Connection[Any], stream: bytes, reign: Reign) -> datetime | None:
    """When the epoch that this database writes began, or None if it has not yet."""
    if not reign.epoch:
        return genesis_at(connection, stream)
    return reign.began_at if reign.written == reign.epoch else None


def mark_genesis(connection: psycopg.Connection[Any], stream: bytes, epoch: int = 0) -> None:
    """Note that the stream, or one of its later epochs, has begun; repeating it changes nothing."""
    if epoch:
        connection.execute("SELECT embassy.mark_reign(%s, %s)", (stream, epoch))
    else:
        connection.execute("SELECT embassy.mark_genesis(%s)", (stream,))


def forget_said(connection: psycopg.Connection[Any]) -> None:
    """Empty the tables in which an epoch has said something of itself; within the caller's transaction.

    Each epoch begins with them empty on both sides: the source's numbers could otherwise meet rows that its replica has
    from when it was a source.
    """
    for table in _SAID:
        if has_table(connection, f"embassy.{table}"):
            connection.execute(sql.SQL("DELETE FROM embassy.{}").format(sql.Identifier(table)))


def request_rotation(connection: psycopg.Connection[Any], stream: bytes) -> datetime:
    """Ask the stream's producer for a fresh data key; returns when, by the source's clock."""
    row = connection.execute("SELECT embassy.request_rotation(%s)", (stream,)).fetchone()
    assert row is not None, "the function returns the time it wrote"
    requested: datetime = row[0]
    return requested


def beat(
    connection: psycopg.Connection[Any], captured: datetime | None = None, published: datetime | None = None
) -> datetime:
    """Renew the heartbeat row; returns the time written, by the source's clock.

    Args:
        connection: in autocommit mode.
        captured: the newest beat that the producer has read.
        published: the newest beat that the home cluster has acknowledged.
    """
    row = connection.execute("SELECT embassy.beat(%s, %s)", (captured, published)).fetchone()
    assert row is not None, "the function returns the time it wrote"
    beaten: datetime = row[0]
    return beaten


def beat_written_by(connection: psycopg.Connection[Any]) -> int | None:
    """The number of the transaction that wrote the heartbeat row last, as pgoutput tells it; None: there is no row."""
    row = connection.execute("SELECT xmin::text::bigint FROM embassy.heartbeat").fetchone()
    return None if row is None else row[0]


def beat_question(captured: datetime | None, published: datetime | None) -> Question:
    """What `beat` asks."""
    return Question(
        _BEAT, tuple(None if time is None else time.isoformat().encode() for time in (captured, published))
    )


def commit_without_disk(connection: psycopg.Connection[Any]) -> None:
    """Let the session's commits return before they are on disk, where the server brings them there soon enough by itself.

    For what may be lost with the server's last moments, because it is said again: beats, and samples of what can be
    looked at. A walsender sends no commit before it is on disk. docs/adr/0019-a-beat-does-not-wait-for-homes-disk.md
    """
    connection.execute(
        """SELECT pg_catalog.set_config('synchronous_commit', 'off', false) FROM pg_catalog.pg_settings
           WHERE name = 'wal_writer_delay' AND setting::integer <= %s""",
        (_WAL_WRITER_DELAY_MOST_MS,),
    )


SAMPLE_SEQUENCES = plain("SELECT embassy.sample_sequences()", unless=LockNotAvailable)
"""Notes where the sequences stand, as far as that has changed.

If somebody's DDL locks one just then, nothing is noted: the next time will do.
"""


def _has_proofs(connection: psycopg.Connection[Any]) -> bool:
    return has_table(connection, "embassy.slot_proof")
