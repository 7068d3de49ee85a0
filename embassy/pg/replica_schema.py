"""What the product keeps in a replica, and the guards on the registry's tables; the SQL is schemas/sql/replica*.sql."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from embassy.pg.own_ddl import enabling, how, unobserved
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
UNION ALL
SELECT '', '', 'event trigger', e.evtname, e.evtenabled::text, true
FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE e.evtenabled <> 'D' AND n.nspname <> 'embassy'
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass AND d.objid = e.oid AND d.deptype = 'e')
ORDER BY 6 DESC, 1, 2, 3, 4"""

# What is on the list and still there, and whether it is disabled.
LISTED = """
SELECT d.relation, d.kind, d.name, d.enabled::text, f.enabled = 'D' AS disabled
FROM embassy.disabled_triggers d
CROSS JOIN LATERAL (
    SELECT tgenabled FROM pg_catalog.pg_trigger
    WHERE d.kind = 'trigger' AND tgrelid = pg_catalog.to_regclass(d.relation) AND tgname = d.name
    UNION ALL SELECT ev_enabled FROM pg_catalog.pg_rewrite
    WHERE d.kind = 'rule' AND ev_class = pg_catalog.to_regclass(d.relation) AND rulename = d.name
    UNION ALL SELECT evtenabled FROM pg_catalog.pg_event_trigger WHERE d.kind = 'event trigger' AND evtname = d.name
) f (enabled)"""


class Firing(NamedTuple):
    """A trigger or rule of the registry's that would fire while the stream is applied.

    An event trigger, too, in whatever mode: the applier and operators execute DDL, and what it writes would come twice,
    or be refused by the guard. One of logins would let nobody in.
    """

    schema: str
    """Empty: it is of no table."""
    table: str
    kind: str
    name: str
    enabled: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" of {self.schema}.{self.table}" if self.schema else "")


def ensure(connection: psycopg.Connection[Any]) -> None:
    """Create the schema and its tables; repeatable.

    Raises:
        RefusedError: the schema is there, and somebody else's.
    """
    with connection.transaction():
        refuse_a_strangers(connection)
        unobserved(connection)
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
        unobserved(connection)
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
        f"""DELETE FROM embassy.disabled_triggers d
            WHERE (relation, kind, name) NOT IN (SELECT relation, kind, name FROM ({LISTED}) l WHERE disabled)""".encode()
    )


def silence(connection: psycopg.Connection[Any], found: Firing) -> None:
    """Disable a trigger or rule, and remember it for promotion."""
    table = sql.Identifier(found.schema, found.table).as_string(connection) if found.schema else ""
    with connection.transaction():
        unobserved(connection)
        connection.execute(
            "INSERT INTO embassy.disabled_triggers VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (relation, kind, name) DO UPDATE SET enabled = excluded.enabled",
            (table, found.kind, found.name, found.enabled),
        )
        connection.execute(_switch(table, found.kind, found.name, "D"))


def silence_event_triggers(connection: psycopg.Connection[Any]) -> None:
    """Those of them that would fire."""
    for found in firing(connection):
        if found.kind == "event trigger":
            silence(connection, found)


def unsilence(connection: psycopg.Connection[Any]) -> None:
    """Enable what was disabled, as it was: before DDL, which may rename or disable it itself; `silence` comes after.

    But for event triggers, which would fire for that DDL, and of which no DDL in the stream is.
    """
    for listed in connection.execute(f"{LISTED} WHERE d.kind <> 'event trigger'".encode()).fetchall():
        enable(connection, *listed[:4])
    connection.execute("DELETE FROM embassy.disabled_triggers WHERE kind <> 'event trigger'")


def enable(connection: psycopg.Connection[Any], relation: str, kind: str, name: str, enabled: str) -> None:
    """Enable again what is on the list, as it was."""
    connection.execute(_switch(relation, kind, name, enabled))


def _switch(relation: str, kind: str, name: str, enabled: str) -> sql.Composed:
    if kind == "event trigger":
        return enabling(name, enabled)
    return sql.SQL("ALTER TABLE {} {} {} {}").format(
        sql.SQL(relation),  # qualified and quoted when it was noted
        how(enabled),
        sql.SQL("TRIGGER" if kind == "trigger" else "RULE"),
        sql.Identifier(name),
    )
