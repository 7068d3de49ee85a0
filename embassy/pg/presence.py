"""Whether a database has a table: each side, and each version, has tables of the product that others have not."""

from __future__ import annotations

from typing import Any

import psycopg


def has_table(connection: psycopg.Connection[Any], table: str) -> bool:
    """Whether a table is there; its name is qualified, and quoted where it has to be."""
    return connection.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (table,)).fetchone() == (True,)


def tables_there(connection: psycopg.Connection[Any], *tables: str) -> set[str]:
    """Which of some tables are there, in one exchange; as `has_table`."""
    rows = connection.execute(
        "SELECT t FROM pg_catalog.unnest(%s::text[]) t WHERE pg_catalog.to_regclass(t) IS NOT NULL",
        (list(tables),),
    )
    return {table for (table,) in rows}
