"""A walsender session: the frames of streaming replication, and nothing about what they mean.

psycopg executes ``START_REPLICATION``; the frames of the copy-both stream are then read and written through its
libpq wrapper. This module is the only place that knows. Source: PostgreSQL documentation, "Streaming Replication
Protocol" and "Logical Streaming Replication Protocol".

Reads never block: the blocking call keeps the GIL. The caller waits on `ReplicationSession.fileno` with select.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

import psycopg
from psycopg import errors, pq, sql

from embassy.model.errors import ConfigurationError, IntegrityError, TransientError
from embassy.model.lsn import Lsn
from embassy.pg.connection import connect

_PG_EPOCH_MICROSECONDS = 946_684_800_000_000
_STATUS = struct.Struct(">cqqqqb")
_KEEPALIVE = struct.Struct(">cqqb")
_XLOG_HEADER_BYTES = 25
_SENT_AT = slice(17, 25)
"""Of an XLogData header."""
_FIRST_STREAMED_ORIGIN_VERSION = 160_000
_HELD_POLL_SECONDS = 0.01

_DECODING_MEMORY = (
    "SELECT pg_catalog.set_config(name, '{0}kB', false) FROM pg_catalog.pg_settings"
    " WHERE name = 'logical_decoding_work_mem' AND setting::int < {0}"
)

SERVER = "SELECT pg_catalog.pg_postmaster_start_time()::text"
"""Tells one server from another, and from itself after a restart."""


class SourceIdentity(NamedTuple):
    """Which server, and which branch of its history."""

    system_identifier: int
    timeline: int


class Keepalive(NamedTuple):
    """What the last keepalive said."""

    wal_end: Lsn
    reply_requested: bool


class ReplicationSession:
    """One session on one logical slot; holding it is the producer's lease on the stream."""

    def __init__(
        self, dsn: str, *, slot: str, publication: str, application_name: str, decoding_bytes: int = 0
    ) -> None:
        """Connect.

        Args:
            dsn: of the source.
            slot: to be taken by `start`.
            publication: what to send.
            application_name: shown in pg_stat_activity.
            decoding_bytes: memory that the server may keep a large transaction in, if it is set to less.

        Raises:
            TransientError, ConfigurationError: as `connect`.
        """
        self._slot = slot
        self._publication = publication
        self._connection = connect(
            dsn, application_name=application_name, autocommit=True, replication="database", primary=True
        )
        self._pgconn = self._connection.pgconn
        self._pgconn.exec_(_DECODING_MEMORY.format(decoding_bytes >> 10).encode())
        self.keepalive = Keepalive(Lsn(0), reply_requested=False)
        self.sent_at = 0
        """When the server sent the last message, by its own clock: microseconds since 1970 UTC."""

    @property
    def fileno(self) -> int:
        """The socket to wait on for reading."""
        return self._pgconn.socket

    def identity(self) -> SourceIdentity:
        """IDENTIFY_SYSTEM."""
        row = self._connection.execute("IDENTIFY_SYSTEM").fetchone()
        if row is None:
            raise TransientError("IDENTIFY_SYSTEM returned nothing")
        return SourceIdentity(int(row[0]), int(row[1]))

    def server(self) -> str:
        """See `SERVER`."""
        row = self._connection.execute(SERVER).fetchone()
        assert row is not None, "a query without FROM has one row"
        return str(row[0])

    def switch_points(self, timeline: int) -> dict[int, Lsn]:
        """TIMELINE_HISTORY: for each ancestor of the timeline, where it was left."""
        if timeline == 1:
            return {}
        row = self._connection.execute(sql.SQL("TIMELINE_HISTORY {}").format(sql.Literal(timeline))).fetchone()
        if row is None:
            raise TransientError(f"TIMELINE_HISTORY {timeline} returned nothing")
        content = row[1] if isinstance(row[1], str) else bytes(row[1]).decode()
        points: dict[int, Lsn] = {}
        for line in content.splitlines():
            fields = line.split()
            if len(fields) >= 2 and fields[0].isdigit():
                points[int(fields[0])] = Lsn.parse(fields[1])
        return points

    def start(self, resume_lsn: Lsn, *, wait_seconds: float = 0.0) -> None:
        """Take the slot; transactions that ended by then are not sent again.

        Args:
            resume_lsn: where to begin.
            wait_seconds: how long a session that has just ended may take to let go of the slot.

        Raises:
            TransientError: another session holds the slot.
            ConfigurationError: the slot or the publication does not exist, or the slot was invalidated.
        """
        version = protocol_version(self._pgconn.server_version)
        command = sql.SQL(
            "START_REPLICATION SLOT {slot} LOGICAL {start} (proto_version {version}, publication_names {publication})"
        ).format(
            slot=sql.Identifier(self._slot),
            start=sql.SQL(str(resume_lsn)),
            version=sql.Literal(str(version)),
            publication=sql.Literal(sql.Identifier(self._publication).as_string()),
        )
        end = time.monotonic() + wait_seconds
        while (result := self._pgconn.exec_(command.as_bytes(self._connection))).status != pq.ExecStatus.COPY_BOTH:
            if sqlstate(result) != errors.ObjectInUse.sqlstate or time.monotonic() > end:
                raise self._refusal(result)
            time.sleep(_HELD_POLL_SECONDS)
        self._pgconn.nonblocking = 1

    def drain(self, add: Callable[[bytes], object], messages: int, size: int) -> bool:
        """Pass on the logical decoding messages that have arrived; never waits.

        Args:
            add: called with each.
            messages: no more than so many.
            size: no more than the one that reaches so many bytes.

        Returns whether the socket is dry; if not, there may be more.

        Raises:
            TransientError: the session ended.
            ConfigurationError, IntegrityError: the server refused to go on.
        """
        get, consume = self._pgconn.get_copy_data, self._pgconn.consume_input
        frame = last = None
        dry = False
        while messages > 0 and size > 0:
            length, frame = get(1)
            if length > 0:
                dry = False
                if length >= _XLOG_HEADER_BYTES and frame[0] == 0x77:  # 'w' XLogData
                    add(bytes(frame[_XLOG_HEADER_BYTES:]))
                    last = frame
                    messages -= 1
                    size -= length
                elif frame[0] == 0x6B:  # 'k' keepalive
                    _, wal_end, _, reply = _KEEPALIVE.unpack_from(frame)
                    self.keepalive = Keepalive(Lsn(wal_end), bool(reply))
                continue
            if length < 0:
                raise self._ended()
            if dry:
                break
            try:
                consume()  # under TLS no more than one record, and the walsender puts each message in its own
            except psycopg.OperationalError as error:
                raise TransientError(f"the replication session ended: {error}", place=self._slot) from error
            dry = True
        if last is not None:
            self.sent_at = int.from_bytes(last[_SENT_AT]) + _PG_EPOCH_MICROSECONDS
        return dry

    def confirm(self, flushed: Lsn) -> None:
        """Standby status update: everything up to here is durable elsewhere and need not be sent again.

        It also says what has come, as far as a keepalive has told: a walsender that hears that its receiver lacks
        nothing does not answer with where the log ends (``WalSndWaitForWal``). Not before anything is durable: a server
        that shuts down takes what has come for durable until it has heard of that (``WalSndDone``).
        """
        now = time.time_ns() // 1000 - _PG_EPOCH_MICROSECONDS
        written = max(flushed, self.keepalive.wal_end) if flushed else flushed
        try:
            self._pgconn.put_copy_data(_STATUS.pack(b"r", written, flushed, flushed, now, 0))
            while self._pgconn.flush():
                select.select([], [self._pgconn.socket], [], 1)
        except psycopg.OperationalError as error:
            raise TransientError(f"the replication session ended: {error}", place=self._slot) from error
        if self.keepalive.reply_requested:
            self.keepalive = self.keepalive._replace(reply_requested=False)

    def close(self) -> None:
        """End the session; the slot is free once the server has noticed."""
        self._connection.close()

    def _ended(self) -> Exception:
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            return self._refusal(result)
        return TransientError("the server ended the replication session", place=self._slot)

    def _refusal(self, result: pq.abc.PGresult) -> Exception:
        state = sqlstate(result)
        message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode().strip()
        place = f"slot {self._slot}"
        if state == errors.ObjectInUse.sqlstate:
            return TransientError(message, place=place, hint="another producer holds the stream; this one waits")
        if "invalidat" in message or "can no longer get changes" in message:
            return IntegrityError(
                message, place=place, hint="the source dropped WAL that was not shipped; resync the stream"
            )
        if state == errors.UndefinedObject.sqlstate:
            return IntegrityError(
                message,
                place=place,
                hint="a new stream's slot is made by embassy provision apply; if this one was dropped, the changes since "
                "then are not in the stream: resync it",
            )
        if not state:  # libpq's own words: the connection broke
            return TransientError(f"the replication session ended: {message}", place=place)
        if state.startswith(("57", "58", "08", "53")):
            return TransientError(message, place=place)
        return ConfigurationError(message, place=place, hint="embassy doctor home names the missing setting")


def protocol_version(server_version: int) -> int:
    """Pgoutput's protocol: the newest whose messages are understood here, of those that the server speaks."""
    return 4 if server_version >= _FIRST_STREAMED_ORIGIN_VERSION else 2


def sqlstate(result: pq.abc.PGresult) -> str:
    """The code of a refusal; empty if libpq itself has failed."""
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
