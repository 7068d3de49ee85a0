"""The consumer's lease on a stream: an advisory lock in the replica, held by the very session that writes to it.

So whoever has lost the session has lost the lease, and the server frees it when it notices that the peer is gone; both
sides' keepalives see to that within about 20 s. A holder that is only paused keeps it; should it be resumed after all,
the compare-and-set on the progress row still decides.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

import psycopg

_DOMAIN = b"data-embassy consumer lease 1\0"
_TAKE_OVER_POLL_SECONDS = 0.01


def try_lease(connection: psycopg.Connection[Any], stream: bytes) -> bool:
    """Take the lease of a stream until the session ends; False if another session has it."""
    row = connection.execute("SELECT pg_catalog.pg_try_advisory_lock(%s)", (_key(stream),)).fetchone()
    return row == (True,)


def take_over(connection: psycopg.Connection[Any], stream: bytes, limit_seconds: float) -> bool:
    """Take the lease of a stream from whoever has it, by ending that session; False if it did not come in time.

    What the ended session had not committed is rolled back.
    """
    deadline = time.monotonic() + limit_seconds
    while not try_lease(connection, stream):
        if time.monotonic() > deadline:
            return False
        # Its place is tried at once: a consumer that comes back has to connect first.
        connection.execute(_END_HOLDER, _halves(_key(stream)))
        time.sleep(_TAKE_OVER_POLL_SECONDS)
    return True


def release(connection: psycopg.Connection[Any], stream: bytes) -> None:
    """Give the lease back before the session ends."""
    connection.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", (_key(stream),))


def holder(connection: psycopg.Connection[Any], stream: bytes) -> str:
    """Who has the lease, for a message."""
    return held_by(connection, stream) or "nobody any more"


def held_by(connection: psycopg.Connection[Any], stream: bytes) -> str:
    """Who has the lease; empty: nobody."""
    row = connection.execute(
        f"""SELECT a.application_name, coalesce(host(a.client_addr), 'local'), a.pid
            FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid WHERE {_HELD}""",
        _halves(_key(stream)),
    ).fetchone()
    return "" if row is None else f"{row[0]} at {row[1]}, process {row[2]} of the replica's server"


def is_held(connection: psycopg.Connection[Any], key: int) -> bool:
    """Whether any session of this database has an advisory lock of 64 bits."""
    row = connection.execute(f"SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE {_HELD})", _halves(key))
    return row.fetchone() == (True,)


_HELD = """
    l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND l.classid::bigint = %s AND l.objid::bigint = %s"""
_END_HOLDER = (
    f"SELECT pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks l WHERE {_HELD}"
    " AND l.pid <> pg_catalog.pg_backend_pid()"
)


def _halves(key: int) -> tuple[int, int]:
    """A lock as pg_locks shows it."""
    return (key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF


def _key(stream: bytes) -> int:
    return int.from_bytes(hashlib.sha256(_DOMAIN + stream).digest()[:8], "big", signed=True)
