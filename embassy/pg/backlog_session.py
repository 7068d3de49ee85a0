"""Reads a stretch of log from a copy of a slot, by query: the messages that a walsender sends, for less.

A walsender sends each message by itself, in a TLS record of its own, and a client takes each by itself. A query's rows
travel as many as fit a record. But it answers only once the server has decoded all that was asked for, which it keeps
until then in memory and then in a temporary file: nothing for what is on time, and everything for a backlog.

The slot itself is left alone. What is read from is a temporary copy, which the server drops with this session, however
it ends. Source: PostgreSQL documentation, "Replication Management Functions" and "COPY", binary format.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

import psycopg
from psycopg import pq, sql

from embassy.model.errors import TransientError
from embassy.model.lsn import Lsn
from embassy.pg.connection import connect, place_of
from embassy.pg.replication_session import SERVER, protocol_version, sqlstate

_SETTINGS = {
    "work_mem": "64MB",  # a stretch that fits needs no temporary file
}
_NAME_BYTES = 63
_ROW_HEADER_BYTES = 6
"""Number of columns, length of the only one."""
_FILE_HEADER_BYTES = 19
"""Before the first row: signature, flags, length of an extension."""


class Stretch(NamedTuple):
    """Where the log stands."""

    kept_from: Lsn
    """Decoding begins here, whatever is asked for: changes of transactions that were open then."""
    end: Lsn
    """Everything up to here is on the source's disk."""


class BacklogSession:
    """One session on a temporary copy of a logical slot."""

    def __init__(self, dsn: str, *, slot: str, publication: str, application_name: str) -> None:
        """Connect.

        Raises:
            TransientError, ConfigurationError: as `connect`.
        """
        self._slot = slot
        self._copy = f"{slot[: _NAME_BYTES - 9]}_{secrets.token_hex(4)}"
        self._place = f"{place_of(dsn)}, slot {slot}"
        self._publication = publication
        self._connection = connect(dsn, application_name=application_name, autocommit=True, settings=_SETTINGS)
        self._pgconn = self._connection.pgconn
        # A session whose client was killed must not decode to the end; not every platform can tell.
        self._pgconn.exec_(b"SET client_connection_check_interval = '1s'")
        self._upto = Lsn(0)
        self._begun = self._asked = self._has_rows = False
        self._skip = 0
        """Bytes before the next row's value."""
        self._clock_ahead = 0
        self.reached = Lsn(0)
        """Every transaction committed before here was passed on."""

    @property
    def fileno(self) -> int:
        """The socket to wait on for reading."""
        return self._pgconn.socket

    @property
    def sent_at(self) -> int:
        """The source's clock now: microseconds since 1970 UTC."""
        return self._clock_ahead + time.monotonic_ns() // 1000

    def stretch(self) -> Stretch:
        """Where the slot, or its copy once there is one, and the log stand."""
        row = self._connection.execute(
            """SELECT restart_lsn::text, pg_catalog.pg_current_wal_flush_lsn()::text,
                      (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint
               FROM pg_catalog.pg_replication_slots WHERE slot_name = %s""",
            (self._copy if self._begun else self._slot,),
        ).fetchone()
        if row is None or row[0] is None:
            raise TransientError("the replication slot is gone", place=self._place)
        self._clock_ahead = row[2] - time.monotonic_ns() // 1000
        return Stretch(Lsn.parse(row[0]), Lsn.parse(row[1]))

    def server(self) -> str:
        """See `SERVER`."""
        row = self._connection.execute(SERVER).fetchone()
        assert row is not None, "a query without FROM has one row"
        return str(row[0])

    def begin(self, resume_lsn: Lsn) -> None:
        """Make the copy, at the first transaction that ends behind a position.

        Args:
            resume_lsn: not before the slot's confirmed position.

        Raises:
            psycopg.Error: the server does not let us, or has no slot left.
        """
        self._connection.execute(
            "SELECT pg_catalog.pg_copy_logical_replication_slot(%s, %s, true)", (self._slot, self._copy)
        )
        self._connection.execute(
            """SELECT pg_catalog.pg_replication_slot_advance(slot_name, %s)
               FROM pg_catalog.pg_replication_slots WHERE slot_name = %s AND confirmed_flush_lsn < %s::pg_lsn""",
            (str(resume_lsn), self._copy, str(resume_lsn)),
        )
        self._begun = True
        self.reached = resume_lsn

    def ask(self, upto: Lsn) -> None:
        """Ask for the transactions that are committed before a position and were not passed on."""
        query = sql.SQL(
            "COPY (SELECT data FROM pg_catalog.pg_logical_slot_get_binary_changes({copy}, {upto}, NULL, "
            "'proto_version', {version}, 'publication_names', {publication})) TO STDOUT (FORMAT binary)"
        ).format(
            copy=sql.Literal(self._copy),
            upto=sql.Literal(str(upto)),
            version=sql.Literal(str(protocol_version(self._pgconn.server_version))),
            publication=sql.Literal(sql.Identifier(self._publication).as_string()),
        )
        self._pgconn.send_query(query.as_bytes(self._connection))
        self._upto, self._asked, self._skip = upto, True, _FILE_HEADER_BYTES + _ROW_HEADER_BYTES

    @property
    def asked(self) -> bool:
        """Whether what was asked for has not all been passed on yet."""
        return self._asked

    def drain(self, add: Callable[[bytes], object], messages: int, size: int) -> bool:
        """Pass on the logical decoding messages that have arrived; never waits.

        Args:
            add: called with each.
            messages: no more than so many.
            size: no more than the one that reaches so many bytes.

        Returns whether there are no more for the moment.

        Raises:
            TransientError: the session ended, or the server gave up.
        """
        if not (self._has_rows or self._rows_come()):
            return True
        get, skip = self._pgconn.get_copy_data, self._skip
        dry = False
        while messages > 0 and size > 0:
            length, row = get(1)
            if length > 0:
                dry = False
                if length > skip:  # the last one has no value
                    add(bytes(row[skip:]))
                    messages -= 1
                    size -= length
                skip = self._skip = _ROW_HEADER_BYTES
                continue
            if length < 0:
                self._end()
                return True
            if dry:
                return True
            self._consume()
            dry = True
        return False

    def _rows_come(self) -> bool:
        """Whether the server has decoded what was asked for."""
        self._consume()
        if self._pgconn.is_busy():
            return False
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.COPY_OUT:
            raise self._refusal(result)
        self._has_rows = True
        return True

    def _end(self) -> None:
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.COMMAND_OK:
            raise self._refusal(result)
        self._pgconn.get_result()  # none: the session is idle again
        self._asked = self._has_rows = False
        self.reached = self._upto

    def _consume(self) -> None:
        try:
            self._pgconn.consume_input()
        except psycopg.OperationalError as error:
            raise TransientError(f"the session ended: {error}", place=self._place) from error

    def _refusal(self, result: pq.abc.PGresult | None) -> TransientError:
        if result is None:
            return TransientError("the server ended the session", place=self._place)
        message = result.get_error_message().strip()
        return TransientError(
            f"a stretch of log cannot be read by query: {message} ({sqlstate(result)})", place=self._place
        )

    def close(self) -> None:
        """End the session; its copy of the slot goes with it."""
        self._connection.close()
