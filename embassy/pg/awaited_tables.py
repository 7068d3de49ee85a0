"""In a replica: tables that wait for a copy, followed through the DDL that the stream brings.

What waits is noted by name. A table that is renamed waits on under its new name, and one that is dropped waits for
nothing. At home the same is done for the copies themselves: embassy.follow_copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from embassy.pg.table_copies import AWAITED

_HELD = f"""
SELECT a.schema_name, a.table_name,
       pg_catalog.to_regclass(pg_catalog.format('%I.%I', a.schema_name, a.table_name))::oid::bigint
FROM ({AWAITED}) AS a"""
_FOLLOW = """
WITH gone AS (DELETE FROM embassy.awaited_copy RETURNING *)
INSERT INTO embassy.awaited_copy
SELECT n.nspname, c.relname, g.after_copy, g.awaited_since, g.awaited_by
FROM gone AS g
JOIN ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::bigint[]))
    AS held (schema_name, table_name, relation) USING (schema_name, table_name)
JOIN pg_catalog.pg_class AS c ON c.oid::bigint = held.relation JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY 1, 2"""
# Sorted, so that every row is out before the first is in: two tables may have swapped their names.

Held = Sequence[tuple[str, str, int | None]]
"""Schema, name and oid of each table that waits."""


def held(connection: psycopg.Connection[Any]) -> Held:
    """The tables that wait, before a statement may rename or drop them."""
    return connection.execute(_HELD.encode()).fetchall()


def follow(connection: psycopg.Connection[Any], before: Held) -> None:
    """Let what waited before a statement wait under the name that it has now, if it is still there."""
    if before:
        connection.execute(_FOLLOW, tuple(map(list, zip(*before, strict=True))))
