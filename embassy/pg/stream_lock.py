"""Advisory locks of a stream in its replica: the consumer's lease, and the promotion's lock.

Each is held by the very session that writes. So whoever has lost the session has lost the lock, and the server frees it
when it notices that the peer is gone; both sides' keepalives see to that within about 20 s. A holder that is only paused
keeps it; should it be resumed after all, the compare-and-set on the progress row, and on the epoch, still decides.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import psycopg

_TAKE_OVER_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class StreamLock:
    """One lock in each replica; `domain` tells it from others of the same stream."""

    domain: bytes

    def try_take(self, connection: psycopg.Connection[Any], stream: bytes) -> bool:
        """Take it until the session ends; False if another session has it."""
        row = connection.execute("SELECT pg_catalog.pg_try_advisory_lock(%s)", (self._key(stream),)).fetchone()
        return row == (True,)

    def take_over(self, connection: psycopg.Connection[Any], stream: bytes, limit_seconds: float) -> bool:
        """Take it from whoever has it, by ending that session; False if it did not come in time.

        What the ended session had not committed is rolled back.
        """
        deadline = time.monotonic() + limit_seconds
        while not self.try_take(connection, stream):
            if time.monotonic() > deadline:
                return False
            # Its place is tried at once: a consumer that comes back has to connect first.
            connection.execute(_END_HOLDER, self._halves(stream))
            time.sleep(_TAKE_OVER_POLL_SECONDS)
        return True

    def release(self, connection: psycopg.Connection[Any], stream: bytes) -> None:
        """Give it back before the session ends."""
        connection.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", (self._key(stream),))

    def holder(self, connection: psycopg.Connection[Any], stream: bytes) -> str:
        """Who has it, for a message; empty: nobody."""
        row = connection.execute(_HOLDER, self._halves(stream)).fetchone()
        return "" if row is None else f"{row[0]} at {row[1]}, process {row[2]} of the replica's server"

    def in_whose_hands(self, connection: psycopg.Connection[Any], stream: bytes) -> str:
        """The same where it could not be had: whoever had it then may have gone since."""
        return self.holder(connection, stream) or "nobody any more"

    def _halves(self, stream: bytes) -> tuple[int, int]:
        """As pg_locks shows it."""
        key = self._key(stream)
        return (key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF

    def _key(self, stream: bytes) -> int:
        return int.from_bytes(hashlib.sha256(self.domain + stream).digest()[:8], "big", signed=True)


CONSUMER_LEASE = StreamLock(b"data-embassy consumer lease 1\0")
PROMOTION_LOCK = StreamLock(b"data-embassy promotion lock 1\0")

_HELD = """
    l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND l.classid::bigint = %s AND l.objid::bigint = %s"""
_HOLDER = f"""SELECT a.application_name, coalesce(host(a.client_addr), 'local'), a.pid
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid WHERE {_HELD}"""
_END_HOLDER = (
    f"SELECT pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks l WHERE {_HELD}"
    " AND l.pid <> pg_catalog.pg_backend_pid()"
)
