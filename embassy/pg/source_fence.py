"""Shutting a registry at home: nobody writes there any more, whatever role or session they have.

New transactions are read-only by default, roles lose their login, sessions are ended, and each table gets a trigger that
fires for everyone. What is new in large objects is carried. Only then is the row written that tells so in the stream:
nothing of the registry's can follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from embassy.model.errors import RefusedError, TransientError
from embassy.pg import large_objects
from embassy.pg.catalog import brief
from embassy.pg.own_ddl import enabling, unobserved
from embassy.pg.presence import has_table
from embassy.pg.sessions import end_sessions
from embassy.pg.setup_errors import in_turn
from embassy.pg.write_triggers import tables_without
from embassy.runtime import failpoints
from embassy.runtime.failpoints import failpoint

FENCE = "embassy_fence"

_WRITERS: LiteralString = (
    "a.datname = pg_catalog.current_database() AND a.backend_type = 'client backend'"
    " AND a.pid <> pg_catalog.pg_backend_pid()"
)
_FENCED = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgfoid = pg_catalog.to_regproc('embassy.refuse_fenced_write') AND t.tgname = %s ORDER BY 1, 2"""
_LOGINS = """
SELECT e.evtname, e.evtenabled::text FROM pg_catalog.pg_event_trigger e
WHERE e.evtevent = 'login' AND e.evtenabled <> 'D'
  AND (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)"""
_LOGINS_AGAIN = """
WITH again AS (DELETE FROM embassy.fenced_login RETURNING name, enabled::text)
SELECT a.name, a.enabled FROM again a JOIN pg_catalog.pg_event_trigger e ON e.evtname = a.name"""
# A registry that is open has the slot that it is replicated from, and takes writes by default.
_OPEN_BESIDE = """
SELECT DISTINCT d.datname::text FROM pg_catalog.pg_replication_slots p
JOIN pg_catalog.pg_database d ON d.datname = p.database
WHERE p.plugin = 'pgoutput' AND pg_catalog.starts_with(p.slot_name::text, 'embassy_') AND NOT p.temporary
  AND d.datname <> pg_catalog.current_database()
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s
                  WHERE s.setdatabase = d.oid AND s.setrole = 0
                    AND 'default_transaction_read_only=on' = ANY (s.setconfig))
ORDER BY 1"""
_READ_ONLY_BY_DEFAULT = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s
               WHERE s.setdatabase = (SELECT oid FROM pg_catalog.pg_database
                                      WHERE datname = pg_catalog.current_database())
                 AND s.setrole = 0 AND 'default_transaction_read_only=on' = ANY (s.setconfig))"""


class Fence(NamedTuple):
    """On whose word a registry is shut."""

    nonce: bytes
    stream: bytes
    to_epoch: int
    by: str
    reason: str
    promoted: bool
    """Whether a report proves that the embassy has the registry already."""


class StandingFence(NamedTuple):
    """A fence that is noted in the database."""

    nonce: bytes
    to_epoch: int
    by: str
    at: datetime
    """By the database's clock, in UTC."""
    reason: str
    promoted: bool
    """See `Fence.promoted`."""


class Superseding(NamedTuple):
    """A fence for an epoch above a producer's own."""

    to_epoch: int
    by: str
    proven: bool
    """A report proved that the embassy has the registry; else it is about to, and what was committed still travels."""


class Fenced(NamedTuple):
    """What was done."""

    tables: int
    sessions: int
    new: bool
    """Whether the row in the stream was written now."""


def is_ready(connection: psycopg.Connection[Any]) -> bool:
    """Whether the database has the table that tells of fences, and what stands behind them."""
    row = connection.execute(
        """SELECT pg_catalog.to_regclass('embassy.fence') IS NOT NULL
              AND pg_catalog.to_regproc('embassy.refuse_fenced_write') IS NOT NULL"""
    ).fetchone()
    return row == (True,)


def _tells(connection: psycopg.Connection[Any]) -> bool:
    return has_table(connection, "embassy.fence")


def fence(
    connection: psycopg.Connection[Any],
    wish: Fence,
    *,
    roles: Sequence[str],
    place: str,
    revoke: Callable[[psycopg.Connection[Any], Sequence[str]], None],
) -> Fenced:
    """Shut the database; repeatable, and whole only when it returns.

    Args:
        connection: an administrator's, in autocommit mode.
        wish: on whose word.
        roles: of the application.
        place: for messages.
        revoke: `revoke_login`, by one at a time: registries of one server share the roles.

    Raises:
        RefusedError: a prepared transaction could still commit.
        TransientError: a session does not end.
        psycopg.errors.LockNotAvailable: a table stays locked by someone.
    """
    _read_only(connection)  # of registries that are shut at once, the last one sees that all are
    revoke(connection, roles)
    failpoint(failpoints.HOME_AFTER_ROLES)
    sessions = _end_writers(connection, place)
    _refuse_prepared(connection, place)  # one may hold a table, and is in no list of sessions
    _silence_logins(connection)
    tables = tables_without(connection, function="embassy.refuse_fenced_write", enabled="A")
    for schema, name in tables:
        in_turn(connection, partial(_fence_table, connection, schema, name))
    failpoint(failpoints.HOME_AFTER_TABLES)
    sessions += _end_writers(connection, place)  # whoever slipped in before the last trigger was there
    _refuse_prepared(connection, place)
    if large_objects.is_carried(connection):
        large_objects.carry_all(connection, wish.stream)
    written = connection.execute(
        """INSERT INTO embassy.fence AS f (nonce, stream, to_epoch, fenced_at, fenced_by, reason, promoted)
           VALUES (%s, %s, %s, pg_catalog.clock_timestamp(), %s, %s, %s)
           ON CONFLICT (nonce) DO UPDATE SET promoted = true WHERE excluded.promoted AND NOT f.promoted""",
        (wish.nonce, wish.stream, wish.to_epoch, wish.by, wish.reason, wish.promoted),
    )
    failpoint(failpoints.HOME_AFTER_SAID)
    return Fenced(len(tables), sessions, written.rowcount == 1)


def revoke_login(connection: psycopg.Connection[Any], roles: Sequence[str]) -> list[str]:
    """Let roles log in no more, unless another registry of the server is open: they are its application's, too.

    Returns the databases of those that are.
    """
    if beside := [name for (name,) in connection.execute(_OPEN_BESIDE.encode())]:
        return beside
    for role in roles:
        found = connection.execute(
            "SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = %s", (role,)
        ).fetchone()
        if found == (True,):
            connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)))
    return []


def superseded_by(connection: psycopg.Connection[Any], stream: bytes, epoch: int) -> Superseding | None:
    """The highest epoch above this one for which the stream was fenced; None if there is none."""
    if not _tells(connection):
        return None
    row = connection.execute(
        """SELECT to_epoch, fenced_by, promoted FROM embassy.fence
           WHERE stream = %s AND to_epoch > %s ORDER BY promoted DESC, to_epoch DESC LIMIT 1""",
        (stream, epoch),
    ).fetchone()
    return None if row is None else Superseding(*row)


def open_again(
    connection: psycopg.Connection[Any],
    *,
    roles: Sequence[str],
    grant: Callable[[psycopg.Connection[Any], Sequence[str]], None],
) -> int:
    """Open a database whose fences were for nothing; repeatable; returns how many tables were shut.

    Only where nothing else keeps it shut: `failover.fences.decide_opening`. Afterwards `take_back`.
    """
    tables = fenced_tables(connection)
    for schema, name in tables:
        in_turn(connection, partial(release_table, connection, schema, name))
        failpoint(failpoints.HOME_BETWEEN_RELEASES)
    with connection.transaction():
        let_logins_fire(connection)
    connection.execute(
        sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(
            sql.Identifier(connection.info.dbname)
        )
    )
    grant(connection, roles)
    return len(tables)


def fenced_tables(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """The tables on which a fence stands, by their schema and name."""
    return connection.execute(_FENCED.encode(), (FENCE,)).fetchall()


def is_read_only(connection: psycopg.Connection[Any]) -> bool:
    """Whether new transactions of the database are read-only by default."""
    return connection.execute(_READ_ONLY_BY_DEFAULT.encode()).fetchone() == (True,)


def take_back(connection: psycopg.Connection[Any], nonce: bytes) -> None:
    """Note that a plan keeps the database shut no longer; it travels in the stream."""
    connection.execute("DELETE FROM embassy.fence WHERE nonce = %s", (nonce,))


def fences(connection: psycopg.Connection[Any], stream: bytes, epoch: int) -> list[StandingFence]:
    """The fences of a stream for an epoch above this one, oldest first."""
    rows = connection.execute(
        """SELECT nonce, to_epoch, fenced_by, fenced_at AT TIME ZONE 'UTC', reason, promoted FROM embassy.fence
           WHERE stream = %s AND to_epoch > %s ORDER BY fenced_at""",
        (stream, epoch),
    )
    return [StandingFence(bytes(row[0]), *row[1:]) for row in rows]


def _fence_table(connection: psycopg.Connection[Any], schema: str, name: str) -> None:
    table, trigger = sql.Identifier(schema, name), sql.Identifier(FENCE)
    with _own_ddl(connection):
        connection.execute(
            sql.SQL(
                "CREATE OR REPLACE TRIGGER {} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {} FOR EACH STATEMENT"
                " EXECUTE FUNCTION embassy.refuse_fenced_write()"
            ).format(trigger, table)
        )
        connection.execute(sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table, trigger))


def release_table(connection: psycopg.Connection[Any], schema: str, name: str) -> None:
    """Take the fence from one table; to be called in a transaction."""
    with _own_ddl(connection):
        connection.execute(
            sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(sql.Identifier(FENCE), sql.Identifier(schema, name))
        )


def _silence_logins(connection: psycopg.Connection[Any]) -> None:
    if not has_table(connection, "embassy.fenced_login"):
        return  # provisioned by an earlier version
    for name, enabled in connection.execute(_LOGINS).fetchall():
        with connection.transaction():
            connection.execute(
                "INSERT INTO embassy.fenced_login VALUES (%s, %s)"
                " ON CONFLICT (name) DO UPDATE SET enabled = excluded.enabled",
                (name, enabled),
            )
            connection.execute(enabling(name, "D"))


def let_logins_fire(connection: psycopg.Connection[Any]) -> None:
    """Enable the event triggers of logins that a fence has disabled; to be called in a transaction."""
    if has_table(connection, "embassy.fenced_login"):
        for name, enabled in connection.execute(_LOGINS_AGAIN).fetchall():
            connection.execute(enabling(name, enabled))


@contextmanager
def _own_ddl(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """DDL that belongs to this site only, within the caller's transaction: it does not travel, and is in nobody's log."""
    unobserved(connection)
    connection.execute("INSERT INTO embassy.ddl_own VALUES (pg_catalog.pg_backend_pid())")
    yield
    connection.execute("DELETE FROM embassy.ddl_own WHERE pid = pg_catalog.pg_backend_pid()")


def _read_only(connection: psycopg.Connection[Any]) -> None:
    name = sql.Identifier(connection.info.dbname)
    connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))


def _refuse_prepared(connection: psycopg.Connection[Any], place: str) -> None:
    found = connection.execute(
        "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() ORDER BY prepared"
    ).fetchall()
    if found:
        raise RefusedError(
            f"prepared transactions could still commit: {brief([gid for (gid,) in found])}",
            place=place,
            hint="COMMIT PREPARED or ROLLBACK PREPARED each of pg_prepared_xacts, then run it again",
        )


def _end_writers(connection: psycopg.Connection[Any], place: str) -> int:
    """End every other session of the database; returns how many there were."""
    ended = end_sessions(connection, _WRITERS)
    if ended.stayed:
        pids = ", ".join(map(str, ended.stayed))
        raise TransientError(
            f"sessions do not end, and could still commit: server processes {pids}",
            place=place,
            hint="look what keeps them (pg_stat_activity; a stopped process, a disk that does not answer), end them on "
            "the server's machine or restart the server, then run it again",
        )
    return ended.gone
