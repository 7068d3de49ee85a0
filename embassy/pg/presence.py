"""Whether a database has a table: each side, and each version, has tables of the product that others have not."""

from __future__ import annotations

from typing import Any

import psycopg


def has_table(connection: psycopg.Connection[Any], table: str) -> bool:
    """Whether a table is there; its name is qualified, and quoted where it has to be."""
    return connection.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (table,)).fetchone() == (True,)
