"""What must be unique in a replica's table, whatever says so: keys, unique indexes, partial ones, exclusion constraints.

Only what is checked row by row: in a session with ``session_replication_role = replica`` deferrable constraints are not
checked at all.
"""

from __future__ import annotations

from typing import Any

import psycopg

from embassy.model.replica_table import Unique, UniqueColumn, UniquePart, Uniques

_COLUMNS = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
       coalesce((SELECT pg_catalog.format('%%I.%%I', n.nspname, l.collname)
                 FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
                 WHERE l.oid = a.attcollation), ''),
       CASE WHEN a.attgenerated <> '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) ELSE '' END
FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum"""
# The operators of an exclusion constraint, as which PostgreSQL 18 keeps WITHOUT OVERLAPS too, are its own; those of a
# unique index are its operator classes' equality. NULLS NOT DISTINCT is of 15 and later.
_UNIQUES = """
SELECT i.indexrelid::bigint, coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), ''),
       coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false),
       pg_catalog.pg_get_indexdef(i.indexrelid, k.position::integer, false), n.nspname, o.oprname,
       coalesce((SELECT pg_catalog.format('%%I.%%I', ln.nspname, l.collname)
                 FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace
                 WHERE l.oid = k.coll), '')
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL ROWS FROM (
    pg_catalog.unnest(i.indclass::oid[]), pg_catalog.unnest(i.indcollation::oid[])
) WITH ORDINALITY AS k (class, coll, position)
LEFT JOIN pg_catalog.pg_constraint x ON x.conindid = i.indexrelid AND x.conrelid = i.indrelid AND x.conexclop IS NOT NULL
JOIN pg_catalog.pg_opclass c ON c.oid = k.class
LEFT JOIN pg_catalog.pg_amop p ON p.amopfamily = c.opcfamily AND p.amopstrategy = 3
     AND p.amoplefttype = c.opcintype AND p.amoprighttype = c.opcintype AND x.oid IS NULL
JOIN pg_catalog.pg_operator o ON o.oid = coalesce(x.conexclop[k.position], p.amopopr)
JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE i.indrelid = %(table)s AND i.indisready AND i.indimmediate AND (i.indisunique OR i.indisexclusion)
ORDER BY i.indexrelid, k.position"""


def find_uniques(connection: psycopg.Connection[Any], name: str) -> Uniques:
    """All that is unique in a table.

    Args:
        connection: with an empty search_path, so that whatever an expression names is qualified.
        name: the table's, quoted and qualified.
    """
    row = connection.execute("SELECT %s::pg_catalog.regclass::oid::bigint", (name,)).fetchone()
    table = {"table": row[0] if row else 0}
    columns = tuple(UniqueColumn(*found) for found in connection.execute(_COLUMNS, table))
    found: dict[int, tuple[str, bool, list[UniquePart]]] = {}
    for index, predicate, nulls_equal, *part in connection.execute(_UNIQUES, table):
        found.setdefault(index, (predicate, nulls_equal, []))[2].append(UniquePart(*part))
    return Uniques(
        columns, tuple(Unique(tuple(parts), predicate, nulls) for predicate, nulls, parts in found.values())
    )
