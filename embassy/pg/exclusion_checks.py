"""Deferrable exclusion constraints, checked by query: which rows exclude another one that is there too.

Keys WITHOUT OVERLAPS (PostgreSQL 18) are kept in the same form, and are among them. Rows are compared by the
constraint's own operators, over its columns and expressions; its index serves for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

_CONSTRAINTS = """
SELECT c.conname, n.nspname, r.relname, coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), ''),
       ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, k.pos::integer, false)
             FROM pg_catalog.unnest(c.conexclop) WITH ORDINALITY AS k (op, pos) ORDER BY k.pos),
       ARRAY(SELECT pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname)
             FROM pg_catalog.unnest(c.conexclop) WITH ORDINALITY AS k (op, pos)
             JOIN pg_catalog.pg_operator o ON o.oid = k.op JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
             ORDER BY k.pos)
FROM pg_catalog.pg_constraint c
JOIN pg_catalog.pg_class r ON r.oid = c.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
JOIN pg_catalog.pg_index i ON i.indexrelid = c.conindid
WHERE c.conexclop IS NOT NULL AND c.condeferrable AND c.conparentid = 0
  AND n.nspname NOT IN ('embassy', 'information_schema') AND n.nspname !~ '^pg_'
ORDER BY 2, 3, 1"""


class Exclusion(NamedTuple):
    """A constraint, and the query that counts the rows that break it."""

    table: str
    constraint: str
    query: sql.Composed


def exclusions(connection: psycopg.Connection[Any]) -> Iterator[Exclusion]:
    """The deferrable ones of the registry; the session's search_path is empty, so expressions are qualified."""
    for name, schema, table, predicate, expressions, operators in connection.execute(
        _CONSTRAINTS.encode()
    ).fetchall():
        # what an index consists of, as the catalogue writes it
        values = [sql.SQL("{} AS {}").format(sql.SQL(text), _value(i)) for i, text in enumerate(expressions)]
        rows = sql.SQL("SELECT tableoid AS leaf, ctid AS place, {} FROM {}{}").format(
            sql.SQL(", ").join(values),
            sql.Identifier(schema, table),
            sql.SQL(" WHERE {}").format(sql.SQL(predicate)) if predicate else sql.SQL(""),
        )
        excluded = sql.SQL(" AND ").join(
            [
                sql.SQL("other.{0} {1} one.{0}").format(_value(i), sql.SQL(operator))
                for i, operator in enumerate(operators)
            ]
        )
        query = sql.SQL(
            "SELECT count(*) FROM ({0}) AS one WHERE EXISTS (SELECT FROM ({0}) AS other"
            " WHERE (other.leaf, other.place) < (one.leaf, one.place) AND {1})"
        ).format(rows, excluded)
        yield Exclusion(f"{schema}.{table}", name, query)


def _value(position: int) -> sql.Identifier:
    return sql.Identifier(f"embassy_value_{position}")
