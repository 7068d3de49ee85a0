"""What a database consists of, as text: two databases that were made alike say the same."""

from __future__ import annotations

from typing import Any

import psycopg

_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema', 'embassy') AND n.nspname !~ '^pg_(toast|temp)'"
_QUERIES = {
    "schemas": f"SELECT n.nspname, n.nspowner::regrole, n.nspacl::text FROM pg_namespace n WHERE {_OURS}",
    "relations": f"""
        SELECT n.nspname, c.relname, c.relkind, c.relpersistence, c.relowner::regrole, c.relacl::text, c.reloptions::text,
               c.relrowsecurity, c.relispartition, pg_get_expr(c.relpartbound, c.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}""",
    "columns": f"""
        SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               a.attgenerated, a.attcollation::regcollation::text, pg_get_expr(d.adbin, d.adrelid), a.attacl::text
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE {_OURS} AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'i'""",
    "indexes": f"""
        SELECT pg_get_indexdef(i.indexrelid), i.indisvalid FROM pg_index i
        JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}""",
    "constraints": f"""
        SELECT k.conname, k.conrelid::regclass::text, k.contypid::regtype::text, pg_get_constraintdef(k.oid),
               k.convalidated
        FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE {_OURS} AND k.contype <> 'n'""",
    "views": f"""
        SELECT n.nspname, c.relname, pg_get_viewdef(c.oid) FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS} AND c.relkind IN ('v', 'm')""",
    "functions": f"""
        SELECT p.oid::regprocedure::text, p.proowner::regrole, p.proacl::text,
               CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {_OURS}""",
    "types": f"""
        SELECT t.oid::regtype::text, t.typtype, t.typowner::regrole, t.typdefault,
               ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE {_OURS}""",
    "triggers": f"""
        SELECT c.oid::regclass::text, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid) FROM pg_trigger t
        JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_OURS} AND NOT t.tgisinternal AND t.tgname <> 'embassy_guard'""",
    "rules": f"""
        SELECT pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}""",
    "policies": f"""
        SELECT c.oid::regclass::text, p.polname, p.polcmd, pg_get_expr(p.polqual, p.polrelid) FROM pg_policy p
        JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}""",
    "inheritance": """
        SELECT inhrelid::regclass::text, inhparent::regclass::text, inhseqno FROM pg_inherits
        WHERE inhrelid::regclass::text !~ '^pg_'""",
    "extensions": "SELECT extname, extversion FROM pg_extension",
    "comments": """
        SELECT i.type, i.identity, d.description FROM pg_description d,
               pg_identify_object(d.classoid, d.objoid, d.objsubid) i
        WHERE i.schema NOT IN ('pg_catalog', 'information_schema', 'embassy', 'pg_toast') AND d.objoid >= 16384
          AND i.identity !~ '\\mpg_temp_'""",
    "default privileges": """
        SELECT defaclrole::regrole, defaclnamespace::regnamespace, defaclobjtype, defaclacl::text FROM pg_default_acl""",
    "statistics": """
        SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext
        WHERE stxnamespace::regnamespace::text !~ '^pg_temp_'""",
}
_WORDED_BY_VERSION = ("relations", "views", "rules", "functions", "columns", "constraints", "default privileges")


def catalog_of(connection: psycopg.Connection[Any]) -> dict[str, set[tuple[str, ...]]]:
    """Everything that DDL makes in the session's database, by kind."""
    with connection.transaction():
        connection.execute("SET LOCAL search_path = ''")
        return {
            kind: {tuple(map(str, row)) for row in connection.execute(query.encode())}
            for kind, query in _QUERIES.items()
        }


def catalog_differences(
    source: psycopg.Connection[Any], replica: psycopg.Connection[Any]
) -> list[tuple[str, tuple[str, ...]]]:
    """What only one of two databases has."""
    here, there = catalog_of(source), catalog_of(replica)
    if source.info.server_version // 10_000 != replica.info.server_version // 10_000:
        for kind in _WORDED_BY_VERSION:
            here.pop(kind), there.pop(kind)
    return [
        (f"{kind} only {side}", row)
        for kind in here
        for side, rows in (("at home", here[kind] - there[kind]), ("abroad", there[kind] - here[kind]))
        for row in sorted(rows)
    ]
