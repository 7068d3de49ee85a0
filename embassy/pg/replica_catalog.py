"""What the replica's catalogue says of a table that changes are to be written to."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from embassy.model.relation import Relation
from embassy.model.replica_table import Function, Index, IndexColumn, ReplicaColumn, ReplicaTable

# A domain's chain down to its base type; anything else is its own base. A cast that calls a function, or none at
# all, in place of the type's input function: pg_cast says so (castmethod). varchar and bpchar read text as it is.
_COLUMNS = """
WITH RECURSIVE chain AS (
    SELECT a.attnum, t.oid, t.typtype, t.typbasetype
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT c.attnum, t.oid, t.typtype, t.typbasetype
    FROM chain c JOIN pg_catalog.pg_type t ON t.oid = c.typbasetype
    WHERE c.typtype = 'd'
)
SELECT a.attname, a.attnum, a.atttypid::bigint, a.atttypmod, pg_catalog.format_type(a.atttypid, -1),
       b.oid::bigint, pg_catalog.format_type(b.oid, -1), bn.nspname, b.typname,
       fn.nspname, f.proname, f.pronargs, f.prorettype::bigint,
       (CASE WHEN b.typelem <> 0 THEN b.typelem ELSE b.oid END)::bigint,
       ARRAY(SELECT CASE k.castsource WHEN 25 THEN 'text' WHEN 1043 THEN 'varchar' ELSE 'bpchar' END
             FROM pg_catalog.pg_cast k
             WHERE k.casttarget = b.oid AND k.castsource IN (25, 1042, 1043) AND k.castmethod <> 'i'
               AND NOT (k.casttarget IN (1042, 1043) AND k.castmethod = 'b')),
       a.attnotnull, a.attidentity = 'a', a.attgenerated <> '',
       EXISTS (SELECT FROM chain d JOIN pg_catalog.pg_constraint k ON k.contypid = d.oid
               WHERE d.attnum = a.attnum AND NOT k.convalidated)
FROM pg_catalog.pg_attribute a
JOIN chain c ON c.attnum = a.attnum AND c.typtype <> 'd'
JOIN pg_catalog.pg_type b ON b.oid = c.oid
JOIN pg_catalog.pg_namespace bn ON bn.oid = b.typnamespace
JOIN pg_catalog.pg_proc f ON f.oid = b.typinput
JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace
WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

# Only an index over all rows and plain columns, with the columns' own collations, can find any row by its values.
_INDEXES = """
SELECT i.indexrelid::bigint, i.indisunique, k.number, o.oprname, n.nspname
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = x.relam AND m.amname = 'btree'
CROSS JOIN LATERAL ROWS FROM (
    pg_catalog.unnest(i.indkey::int2[]), pg_catalog.unnest(i.indclass::oid[]), pg_catalog.unnest(i.indcollation::oid[])
) WITH ORDINALITY AS k (number, class, coll, position)
JOIN pg_catalog.pg_opclass c ON c.oid = k.class
JOIN pg_catalog.pg_amop p ON p.amopfamily = c.opcfamily AND p.amopstrategy = 3
     AND p.amoplefttype = c.opcintype AND p.amoprighttype = c.opcintype
JOIN pg_catalog.pg_operator o ON o.oid = p.amopopr
JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE i.indrelid = %(table)s AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND k.position <= i.indnkeyatts
  AND NOT EXISTS (
      SELECT FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) g (position)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[g.position]
      WHERE a.attcollation <> i.indcollation[g.position])
ORDER BY i.indexrelid, k.position
"""

_OWNED_SEQUENCES = """
SELECT pg_catalog.format('%%I.%%I', n.nspname, s.relname)
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  AND d.deptype IN ('a', 'i') AND d.refobjid = %(table)s
"""


def find_table(connection: psycopg.Connection[Any], schema: str, name: str) -> ReplicaTable | None:
    """The replica's table of that name, or None if there is none that rows can be written to."""
    table = _oid(connection, schema, name)
    if table is None:
        return None
    columns = tuple(_column(row) for row in connection.execute(_COLUMNS, {"table": table}).fetchall())
    found: dict[int, tuple[bool, list[IndexColumn]]] = {}
    for index, unique, number, operator, operator_schema in connection.execute(
        _INDEXES, {"table": table}
    ).fetchall():
        found.setdefault(index, (unique, []))[1].append(IndexColumn(number, operator_schema, operator))
    indexes = tuple(Index(unique, tuple(index_columns)) for unique, index_columns in found.values())
    return ReplicaTable(schema, name, columns, indexes)


def owned_sequences(connection: psycopg.Connection[Any], schema: str, name: str) -> list[str]:
    """The sequences that TRUNCATE … RESTART IDENTITY of a table restarts, quoted as SQL wants them."""
    table = _oid(connection, schema, name)
    return [row[0] for row in connection.execute(_OWNED_SEQUENCES, {"table": table}).fetchall()]


def _column(row: tuple[Any, ...]) -> ReplicaColumn:
    name, number, type_oid, modifier, type_name, base_oid, base_name, base_schema, base_plain_name = row[:9]
    casts, not_null, identity_always, generated, unproven_domain = row[14:]
    return ReplicaColumn(
        name=name,
        number=number,
        type_oid=type_oid,
        type_modifier=modifier,
        type_name=type_name,
        base_oid=base_oid,
        base_name=base_name,
        base_schema=base_schema,
        base_plain_name=base_plain_name,
        input=Function(*row[9:14]),
        casts_from=frozenset(casts),
        not_null=not_null,
        identity_always=identity_always,
        generated=generated,
        unproven_domain=unproven_domain,
    )


def _oid(connection: psycopg.Connection[Any], schema: str, name: str) -> int | None:
    row = connection.execute(
        """SELECT c.oid::bigint FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = %s AND c.relname = %s AND c.relkind = 'r'""",
        (schema, name),
    ).fetchone()
    return None if row is None else int(row[0])


def holds_rows(connection: psycopg.Connection[Any], relation: Relation, least: int) -> bool:
    """Whether a table holds at least so many rows; also true where there is no such table."""
    name = sql.Identifier(relation.schema, relation.name)
    found = connection.execute(
        "SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (name.as_string(connection),)
    ).fetchone()
    if found != (True,) or least <= 0:
        return True
    counted = connection.execute(
        sql.SQL("SELECT count(*) FROM (SELECT FROM ONLY {} LIMIT {}) AS found").format(name, sql.Literal(least))
    ).fetchone()
    return counted is not None and int(counted[0]) >= least
