"""Constraints that applying as a replica bypasses, checked by query.

A session with ``session_replication_role = replica`` fires no constraint trigger: foreign keys are not looked up, and
deferrable unique constraints are not checked again. ``VALIDATE CONSTRAINT`` does nothing for a foreign key that counts as
valid. So rows are compared here. CHECK, NOT NULL and immediate unique constraints are enforced whoever writes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from embassy.pg.exclusion_checks import exclusions

# Clones of a partitioned table's constraint are checked with the original. A PERIOD (18+) is matched by ranges.
_FOREIGN_KEYS = """
SELECT c.conname, cn.nspname, cc.relname, cc.relkind = 'p', pn.nspname, pc.relname, pc.relkind = 'p',
       c.confmatchtype = 'f',
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(c.conkey) WITH ORDINALITY AS k(num, pos)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num ORDER BY k.pos),
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(c.confkey) WITH ORDINALITY AS k(num, pos)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.num ORDER BY k.pos),
       ARRAY(SELECT n.nspname || E'\\t' || o.oprname FROM pg_catalog.unnest(c.conpfeqop) WITH ORDINALITY AS k(op, pos)
             JOIN pg_catalog.pg_operator o ON o.oid = k.op JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
             ORDER BY k.pos),
       coalesce((pg_catalog.to_jsonb(c) ->> 'conperiod')::boolean, false)
FROM pg_catalog.pg_constraint c
JOIN pg_catalog.pg_class cc ON cc.oid = c.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = cc.relnamespace
JOIN pg_catalog.pg_class pc ON pc.oid = c.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace
WHERE c.contype = 'f' AND c.conparentid = 0 AND c.convalidated
  AND coalesce((pg_catalog.to_jsonb(c) ->> 'conenforced')::boolean, true)
  AND cn.nspname NOT IN ('embassy', 'information_schema') AND cn.nspname !~ '^pg_'
ORDER BY 2, 3, 1"""
_DEFERRABLE_KEYS = """
SELECT c.conname, n.nspname, r.relname,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(c.conkey) WITH ORDINALITY AS k(num, pos)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num ORDER BY k.pos)
FROM pg_catalog.pg_constraint c
JOIN pg_catalog.pg_class r ON r.oid = c.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
WHERE c.contype IN ('u', 'p') AND c.conexclop IS NULL AND c.condeferrable AND c.conparentid = 0
  AND n.nspname NOT IN ('embassy', 'information_schema') AND n.nspname !~ '^pg_'
ORDER BY 2, 3, 1"""


class Violation(NamedTuple):
    """A constraint that rows break."""

    table: str
    constraint: str
    rows: int


class Checked(NamedTuple):
    """What the checks found."""

    constraints: int
    violations: tuple[Violation, ...]


def check_constraints(connection: psycopg.Connection[Any]) -> Checked:
    """Compare the rows of every table with its bypassed constraints; reads whole tables, writes nothing."""
    violations: list[Violation] = []
    count = 0
    for (
        name,
        schema,
        table,
        split,
        schema2,
        table2,
        split2,
        full,
        own,
        other,
        operators,
        period,
    ) in connection.execute(_FOREIGN_KEYS.encode()).fetchall():
        count += 1
        child, parent = _source(schema, table, split=split), _source(schema2, table2, split=split2)
        query = _orphans(child, parent, own, other, operators, full=full, period=period)
        rows = _count(connection, query)
        if rows:
            violations.append(Violation(f"{schema}.{table}", name, rows))
    for name, schema, table, columns in connection.execute(_DEFERRABLE_KEYS.encode()).fetchall():
        count += 1
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        present = sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(c)) for c in columns)
        query = sql.SQL(
            "SELECT coalesce(sum(n - 1), 0)::bigint FROM (SELECT count(*) AS n FROM {} WHERE {} GROUP BY {}"
            " HAVING count(*) > 1) AS twice"
        ).format(sql.Identifier(schema, table), present, listed)
        rows = _count(connection, query)
        if rows:
            violations.append(Violation(f"{schema}.{table}", name, rows))
    for exclusion in exclusions(connection):
        count += 1
        rows = _count(connection, exclusion.query)
        if rows:
            violations.append(Violation(exclusion.table, exclusion.constraint, rows))
    return Checked(count, tuple(violations))


def _orphans(
    child: sql.Composable,
    parent: sql.Composable,
    own: list[str],
    other: list[str],
    operators: list[str],
    *,
    full: bool,
    period: bool,
) -> sql.Composed:
    """Counts the rows that refer to none; those with a PERIOD, to none or to ranges that do not cover their own."""
    matches = []
    for mine, theirs, operator in zip(own, other, operators, strict=True):
        schema, _, name = operator.partition("\t")
        called = sql.SQL("OPERATOR({}.{})").format(
            sql.Identifier(schema), sql.SQL(name)
        )  # an operator's name, from the catalogue
        matches.append(sql.SQL("p.{} {} c.{}").format(sql.Identifier(theirs), called, sql.Identifier(mine)))
    some = sql.SQL(" OR " if full else " AND ").join(
        sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(name)) for name in own
    )
    covered = sql.SQL("(SELECT c.{} OPERATOR(pg_catalog.<@) pg_catalog.range_agg(p.{})").format(
        sql.Identifier(own[-1]), sql.Identifier(other[-1])
    )
    found = covered if period else sql.SQL("EXISTS (SELECT")
    return sql.SQL("SELECT count(*) FROM {} AS c WHERE ({}) AND ({} FROM {} AS p WHERE {})) IS NOT TRUE").format(
        child, some, found, parent, sql.SQL(" AND ").join(matches)
    )


def _source(schema: str, table: str, *, split: bool) -> sql.Composable:
    """A table as a foreign key means it: with its partitions, without those who inherit from it."""
    name = sql.Identifier(schema, table)
    return name if split else sql.SQL("ONLY {}").format(name)


def _count(connection: psycopg.Connection[Any], query: sql.Composed) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None, "an aggregate has one row"
    return int(row[0])
