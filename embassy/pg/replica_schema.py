"""What the product keeps in a replica, and the guards on the registry's tables; the SQL is schemas/sql/replica*.sql."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from embassy.pg.own_schema import refuse_a_strangers
from embassy.pg.presence import has_table
from embassy.pg.write_triggers import tables_without

GUARD = "embassy_guard"

_SCRIPTS = (
    "replica.sql",
    "replica_copy.sql",
    "shared_ddl.sql",
    "replica_ddl.sql",
    "shared_sequences.sql",
    "replica_control.sql",
    "replica_promotion.sql",
    "replica_verify.sql",
    "shared_large_objects.sql",
    "replica_large_objects.sql",
)
"""Executed in this order."""

# Roots before their partitions: disabling a trigger of a root also disables its likes below.
_FIRING = """
SELECT n.nspname, c.relname, 'trigger', t.tgname, t.tgenabled::text, NOT c.relispartition
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgenabled IN ('A', 'R') AND c.relkind IN ('r', 'p') AND n.nspname NOT IN ('information_schema', 'embassy')
  AND n.nspname !~ '^pg_'
UNION ALL
SELECT n.nspname, c.relname, 'rule', r.rulename, r.ev_enabled::text, NOT c.relispartition
FROM pg_catalog.pg_rewrite r
JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE r.ev_enabled IN ('A', 'R') AND c.relkind IN ('r', 'p') AND n.nspname NOT IN ('information_schema', 'embassy')
  AND n.nspname !~ '^pg_'
ORDER BY 6 DESC, 1, 2, 3, 4"""


class Firing(NamedTuple):
    """A trigger or rule of the registry's that would fire while the stream is applied."""

    schema: str
    table: str
    kind: str
    name: str
    enabled: str


def ensure(connection: psycopg.Connection[Any]) -> None:
    """Create the schema and its tables; repeatable.

    Raises:
        RefusedError: the schema is there, and somebody else's.
    """
    with connection.transaction():
        refuse_a_strangers(connection)
        for script in _SCRIPTS:
            connection.execute(files("schemas").joinpath("sql", script).read_bytes())


def is_provisioned(connection: psycopg.Connection[Any]) -> bool:
    """Whether the schema is there."""
    return has_table(connection, "embassy.progress")


def unguarded(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """The registry's tables, partitions included, that anyone could write to."""
    return tables_without(connection, function="embassy.refuse_write", enabled="O")


def guard(connection: psycopg.Connection[Any], schema: str, name: str) -> None:
    """Let nobody but the applier write to a table."""
    table, trigger = sql.Identifier(schema, name), sql.Identifier(GUARD)
    with connection.transaction():
        connection.execute(
            sql.SQL(
                "CREATE OR REPLACE TRIGGER {} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {} FOR EACH STATEMENT"
                " EXECUTE FUNCTION embassy.refuse_write()"
            ).format(trigger, table)
        )
        connection.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER {}").format(table, trigger))


def firing(connection: psycopg.Connection[Any]) -> list[Firing]:
    """Triggers and rules that would fire while the stream is applied, and change rows a second time."""
    return [Firing(*row[:5]) for row in connection.execute(_FIRING.encode())]


def forget_enabled(connection: psycopg.Connection[Any]) -> None:
    """Take off the list what is enabled: it stands there from an earlier epoch, and may be meant otherwise since."""
    connection.execute(
        """DELETE FROM embassy.disabled_triggers d WHERE NOT EXISTS (
               SELECT FROM pg_catalog.pg_trigger t
               WHERE t.tgrelid = pg_catalog.to_regclass(d.relation) AND t.tgname = d.name AND t.tgenabled = 'D'
               UNION ALL SELECT FROM pg_catalog.pg_rewrite r
               WHERE r.ev_class = pg_catalog.to_regclass(d.relation) AND r.rulename = d.name AND r.ev_enabled = 'D')"""
    )


def silence(connection: psycopg.Connection[Any], found: Firing) -> None:
    """Disable a trigger or rule, and remember it for promotion."""
    table = sql.Identifier(found.schema, found.table)
    kind = sql.SQL("TRIGGER") if found.kind == "trigger" else sql.SQL("RULE")
    with connection.transaction():
        connection.execute(
            "INSERT INTO embassy.disabled_triggers VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (relation, kind, name) DO UPDATE SET enabled = excluded.enabled",
            (table.as_string(connection), found.kind, found.name, found.enabled),
        )
        connection.execute(sql.SQL("ALTER TABLE {} DISABLE {} {}").format(table, kind, sql.Identifier(found.name)))


def unsilence(connection: psycopg.Connection[Any]) -> None:
    """Enable what was disabled, as it was: before DDL, which may rename or disable it itself; `silence` comes after."""
    for relation, kind, name, enabled in connection.execute(
        """DELETE FROM embassy.disabled_triggers d RETURNING relation, kind, name, enabled::text"""
    ).fetchall():
        there = connection.execute(
            """SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = t.relation AND tgname = %(name)s)
                   OR EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = t.relation AND rulename = %(name)s)
               FROM pg_catalog.to_regclass(%(relation)s) t (relation)""",
            {"relation": relation, "name": name},
        ).fetchone()
        if there == (True,):
            connection.execute(
                sql.SQL("ALTER TABLE {} ENABLE {} {} {}").format(
                    sql.SQL(relation),
                    sql.SQL("ALWAYS" if enabled == "A" else "REPLICA"),
                    sql.SQL("TRIGGER" if kind == "trigger" else "RULE"),
                    sql.Identifier(name),
                )
            )
