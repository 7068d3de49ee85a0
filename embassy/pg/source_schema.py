"""What the product keeps in a database at home; the SQL, with its reasons, is schemas/sql/source.sql."""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql

_GRANTS = """
GRANT USAGE ON SCHEMA embassy TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA embassy TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA embassy TO {role};
"""


def ensure(connection: psycopg.Connection[Any], *, producer_role: str) -> None:
    """Create the schema, its tables and functions, and let the producer's role use them; repeatable."""
    script = files("schemas").joinpath("sql", "source.sql").read_text(encoding="utf-8")
    with connection.transaction():
        connection.execute(script.encode())
        for statement in _GRANTS.strip().splitlines():
            connection.execute(sql.SQL(statement).format(role=sql.Identifier(producer_role)))


def is_provisioned(connection: psycopg.Connection[Any]) -> bool:
    """Whether the schema is there."""
    row = connection.execute("SELECT pg_catalog.to_regclass('embassy.stream') IS NOT NULL").fetchone()
    return row is not None and bool(row[0])


def genesis_at(connection: psycopg.Connection[Any], stream: bytes) -> datetime | None:
    """When the stream began, or None if it never did."""
    row = connection.execute("SELECT began_at FROM embassy.stream WHERE stream = %s", (stream,)).fetchone()
    return None if row is None else row[0]


def mark_genesis(connection: psycopg.Connection[Any], stream: bytes) -> None:
    """Note that the stream has begun; repeating it changes nothing."""
    connection.execute("SELECT embassy.mark_genesis(%s)", (stream,))


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
