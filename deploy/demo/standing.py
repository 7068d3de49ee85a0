"""Whether a replica shows all that was committed up to a moment: asked of the two databases."""

from __future__ import annotations

from datetime import datetime

import psycopg

_LIMIT_SECONDS = 10


def source_time(dsn: str) -> datetime:
    """The present by a source's clock.

    Raises:
        psycopg.Error: it is unreachable.
    """
    with psycopg.connect(dsn, connect_timeout=_LIMIT_SECONDS) as connection:
        row = connection.execute("SELECT pg_catalog.clock_timestamp()").fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


def shows(replica_dsn: str, moment: datetime) -> bool:
    """Whether a replica shows everything that was committed at its source before a moment, by the source's clock.

    The heartbeat is a row like any other and replicas show transactions in the order of their commits: a beat of
    later than the moment came after all of them. False too while the replica cannot be asked.
    """
    try:
        with psycopg.connect(replica_dsn, connect_timeout=_LIMIT_SECONDS) as connection:
            row = connection.execute("SELECT max(beat_at) FROM embassy.heartbeat").fetchone()
    except psycopg.OperationalError:
        return False
    return row is not None and row[0] is not None and row[0] > moment
