"""What a stream's source and its replica show of it: one statement each, nothing written, no lock waited for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from embassy.model.lsn import Lsn
from embassy.model.observation import (
    Absent,
    Beat,
    Clock,
    ControlSeen,
    CopySeen,
    FenceSeen,
    ProgressSeen,
    ReplicaSeen,
    SlotSeen,
    SourceSeen,
    VerifiedSeen,
)
from embassy.pg import reign as reigns
from embassy.pg import source_fence
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import passing, transient
from embassy.pg.stream_lock import CONSUMER_LEASE
from embassy.pg.table_copies import LACKS_KEY

_APPLICATION = "embassy-status"
_PATIENCE = {"statement_timeout": "10s", "lock_timeout": "5s", "default_transaction_read_only": "on"}

_CLOCK = "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8"
_TABLES = "SELECT pg_catalog.to_regclass(%s) IS NOT NULL AND pg_catalog.to_regclass(%s) IS NOT NULL"
_BEAT = """SELECT extract(epoch FROM beat_at)::float8, extract(epoch FROM captured_at)::float8,
                  extract(epoch FROM published_at)::float8
           FROM embassy.heartbeat"""
_BEGAN = "SELECT extract(epoch FROM began_at)::float8 FROM embassy.stream WHERE stream = %s"
_FENCE = """SELECT to_epoch, fenced_by, extract(epoch FROM fenced_at)::float8, promoted FROM embassy.fence
            WHERE stream = %s AND to_epoch > %s ORDER BY promoted DESC, to_epoch DESC LIMIT 1"""
# The reason of an invalidation has a column from version 17 on.
_SLOT = """SELECT active, confirmed_flush_lsn::text, wal_status,
                  coalesce(pg_catalog.to_jsonb(s) ->> 'invalidation_reason', ''), safe_wal_size,
                  pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery()
                      THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END,
                      restart_lsn)::bigint
           FROM pg_catalog.pg_replication_slots s
           WHERE slot_name = %s AND database = pg_catalog.current_database()"""
_FLUSHED = """SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                      ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text"""
_PROGRESS = """SELECT epoch, sequence, resume_lsn::text, next_offset, extract(epoch FROM applied_at)::float8,
                      extract(epoch FROM committed_at)::float8
               FROM embassy.progress WHERE stream = %s"""
_OPENING = """SELECT EXISTS (SELECT FROM embassy.promotion_plan p JOIN embassy.promotion s USING (nonce)
                             WHERE p.stream = %s AND p.to_epoch = %s AND p.outcome IS NULL
                               AND s.step = 'epoch' AND s.done_at IS NOT NULL)"""
_CONTROL = """SELECT extract(epoch FROM frozen_at)::float8, coalesce(frozen_by, ''), coalesce(freeze_reason, ''),
                     apply_delay_seconds
              FROM embassy.control WHERE stream = %s"""
_VERIFIED = """SELECT extract(epoch FROM r.ended_at)::float8, r.outcome,
                      (SELECT coalesce(sum(mismatched + missing + extra), 0)::bigint FROM embassy.verification
                       WHERE stream = %(stream)s)
               FROM (SELECT) AS one LEFT JOIN LATERAL (
                   SELECT ended_at, outcome FROM embassy.verify_run
                   WHERE stream = %(stream)s AND whole AND ended_at IS NOT NULL ORDER BY ended_at DESC
                   LIMIT 1) r ON true"""
_COPIES = f"""
SELECT c.schema_name || '.' || c.table_name, sum(c.rows_copied)::bigint, sum(c.rows_expected)::bigint,
       bool_or({LACKS_KEY})
FROM (SELECT schema_name, table_name, rows_copied, rows_expected, reason FROM embassy.table_copy WHERE state <> 'done'
      UNION ALL SELECT a.schema_name, a.table_name, 0, NULL, '' FROM embassy.awaited_copy a WHERE NOT EXISTS (
          SELECT FROM embassy.table_copy c
          WHERE (c.schema_name, c.table_name) = (a.schema_name, a.table_name) AND c.from_key IS NULL AND c.to_key IS NULL
            AND (c.state <> 'done' OR c.copy > a.after_copy))) c
GROUP BY 1 ORDER BY 1"""
# A holder of the lease that waits for another session's lock.
_BLOCKED = """SELECT string_agg(DISTINCT blocker::text, ', ')
              FROM pg_catalog.pg_stat_activity a, pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) AS blocker
              WHERE a.datname = pg_catalog.current_database() AND a.application_name LIKE 'embassy-consumer-%%'"""

_Connection = psycopg.Connection[Any]


class Databases:
    """Sessions with the databases of many streams, kept for the next look; for one thread per stream."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._connections: dict[tuple[str, bytes], _Connection] = {}

    def close(self) -> None:
        """End all sessions."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def source(self, dsn: str, *, stream: bytes, slot: str, epoch: int) -> SourceSeen | Absent:
        """Look at a source, which is one in that epoch.

        Raises:
            TransientError: it is unreachable, or a table is locked.
            ConfigurationError: it does not let us in.
        """
        with transient(place_of(dsn)):
            connection = self._connection(dsn, stream)
            if not _has(connection, "embassy.heartbeat", "embassy.stream"):
                return Absent("the source has no schema embassy")
            clock = self._clock(connection)
            beat, began_at = _beat(connection), _one(connection, _BEGAN, stream)
            found = _slot(connection, slot)
            (flushed,) = connection.execute(_FLUSHED).fetchone() or (None,)
            fence = _fence(connection, stream, epoch)
            half_shut = fence is None and bool(
                source_fence.fenced_tables(connection) or source_fence.is_read_only(connection)
            )
            part = reigns.reign(connection, stream)
            follows = part.follows if part.is_replica else 0
            return SourceSeen(clock, Lsn.parse(str(flushed)), beat, began_at, found, fence, half_shut, follows)

    def replica(self, dsn: str, *, stream: bytes) -> ReplicaSeen | Absent:
        """Look at a replica.

        Raises:
            TransientError: it is unreachable, or a table is locked.
            ConfigurationError: it does not let us in.
        """
        with transient(place_of(dsn)):
            connection = self._connection(dsn, stream)
            if not _has(connection, "embassy.heartbeat", "embassy.progress"):
                return Absent("the database is no replica: it has no table embassy.progress")
            # Heartbeat and progress move in one transaction, and must be seen in one.
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                progress, beat = _progress(connection, stream), _beat(connection)
                control, copies = _control(connection, stream), _copies(connection)
            holder = CONSUMER_LEASE.holder(connection, stream)
            blocked_by = (_one(connection, _BLOCKED) or "") if holder else ""
            verified = _verified(connection, stream)
            return ReplicaSeen(
                self._clock(connection), beat, progress, holder, blocked_by, control, verified, copies
            )

    @contextmanager
    def session(self, dsn: str, stream: bytes) -> Iterator[_Connection]:
        """The stream's session with a database, read-only, for what else is to be read; between two looks.

        Raises:
            TransientError: it is unreachable, or a statement took too long.
            ConfigurationError: it does not let us in.
        """
        with passing(place_of(dsn)):
            yield self._connection(dsn, stream)

    def _connection(self, dsn: str, stream: bytes) -> _Connection:
        connection = self._connections.get((dsn, stream))
        if connection is None or connection.closed:
            connection = connect(dsn, application_name=_APPLICATION, autocommit=True, settings=_PATIENCE)
            self._connections[dsn, stream] = connection
        return connection

    def _clock(self, connection: _Connection) -> Clock:
        asked = self._wall()
        (told,) = connection.execute(_CLOCK).fetchone() or (0.0,)
        answered = self._wall()
        read_at = (asked + answered) / 2
        return Clock(read_at, told - read_at, (answered - asked) / 2)


def _has(connection: _Connection, *tables: str) -> bool:
    return connection.execute(_TABLES, tables).fetchone() == (True,)


def _beat(connection: _Connection) -> Beat | None:
    row = connection.execute(_BEAT).fetchone()
    return None if row is None else Beat(*row)


def _copies(connection: _Connection) -> tuple[CopySeen, ...]:
    if not _has(connection, "embassy.table_copy", "embassy.awaited_copy"):
        return ()
    return tuple(CopySeen(*row) for row in connection.execute(_COPIES.encode()))


def _one(connection: _Connection, query: str, *parameters: object) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    return None if row is None else row[0]


def _slot(connection: _Connection, slot: str) -> SlotSeen | None:
    row = connection.execute(_SLOT, (slot,)).fetchone()
    if row is None:
        return None
    active, confirmed, wal_status, reason, safe, retained = row
    lost = reason or ("wal_status is lost" if wal_status == "lost" else "")
    return SlotSeen(active, lost, Lsn.parse(confirmed) if confirmed else None, retained, safe)


def _fence(connection: _Connection, stream: bytes, epoch: int) -> FenceSeen | None:
    if not _has(connection, "embassy.fence", "embassy.fence"):
        return None
    row = connection.execute(_FENCE, (stream, epoch)).fetchone()
    return None if row is None else FenceSeen(*row)


def _control(connection: _Connection, stream: bytes) -> ControlSeen | None:
    if not _has(connection, "embassy.control", "embassy.progress"):
        return None  # the replica was provisioned by an earlier version
    row = connection.execute(_CONTROL, (stream,)).fetchone()
    return None if row is None else ControlSeen(*row)


def _verified(connection: _Connection, stream: bytes) -> VerifiedSeen | None:
    if not _has(connection, "embassy.verification", "embassy.verify_run"):
        return None
    row = connection.execute(_VERIFIED.encode(), {"stream": stream}).fetchone()
    return None if row is None else VerifiedSeen(*row)


def _progress(connection: _Connection, stream: bytes) -> ProgressSeen | None:
    row = connection.execute(_PROGRESS, (stream,)).fetchone()
    if row is None:
        return None
    epoch, sequence, resume_lsn, next_offset, applied_at, committed_at = row
    journalled = _has(connection, "embassy.promotion_plan", "embassy.promotion")
    opening = journalled and bool(_one(connection, _OPENING, stream, epoch))
    return ProgressSeen(epoch, sequence, Lsn.parse(resume_lsn), next_offset, applied_at, committed_at, opening)
