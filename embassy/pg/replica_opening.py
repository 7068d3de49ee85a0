"""Opening a replica whose epoch was raised: sequences, triggers, guards and roles. Each may be repeated at any time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from embassy.pg.presence import has_table
from embassy.pg.replica_schema import GUARD, LISTED, enable
from embassy.pg.setup_errors import in_turn

# An owned sequence (serial, identity) belongs to a column, whose largest value tells at least how far it has come.
_SEQUENCES = """
SELECT n.nspname, c.relname, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle,
       coalesce(o.schema_name, ''), coalesce(o.table_name, ''), coalesce(o.column_name, '')
FROM pg_catalog.pg_sequence s
JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT tn.nspname AS schema_name, t.relname AS table_name, a.attname AS column_name
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class t ON t.oid = d.refobjid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid > 0 LIMIT 1) AS o ON true
WHERE c.relpersistence <> 't' AND n.nspname NOT IN ('embassy', 'information_schema') AND n.nspname !~ '^pg_'
ORDER BY 1, 2"""
_SAMPLES = "SELECT schema_name, sequence_name, last_value FROM embassy.sequence_state"
_GUARDED = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgfoid = pg_catalog.to_regproc('embassy.refuse_write') AND t.tgname = %s AND t.tgparentid = 0
ORDER BY 1, 2"""


class SetSequence(NamedTuple):
    """A sequence as it was set."""

    sequence: str
    value: int
    """The last value; the next one handed out is behind it."""
    based_on: str
    """``sample``: what the source said in the stream; ``rows``: the largest value in its column; ``nothing``: neither."""
    headroom: int
    """How far beyond that it was set: a gap, so that no value is handed out twice."""


def set_sequences(connection: psycopg.Connection[Any], headroom: int) -> list[SetSequence]:
    """Set every sequence beyond all that the source may have handed out and the replica does not show.

    Args:
        connection: an administrator's, in autocommit mode.
        headroom: how many increments beyond what is known.
    """
    samples = {}
    if has_table(connection, "embassy.sequence_state"):
        samples = {
            (schema, name): value for schema, name, value in connection.execute(_SAMPLES) if value is not None
        }
    found = []
    for schema, name, increment, least, most, cycles, *owner in connection.execute(_SEQUENCES.encode()).fetchall():
        known = samples.get((schema, name))
        basis = "sample" if known is not None else "nothing"
        shown = _extreme(connection, owner, largest=increment > 0) if owner[0] else None
        if shown is not None and (known is None or (shown - known) * increment > 0):
            known, basis = shown, "rows"
        sequence = sql.Identifier(schema, name)
        row = connection.execute(sql.SQL("SELECT last_value, is_called FROM {}").format(sequence)).fetchone()
        assert row is not None, "a sequence has one row"
        last, called = row
        if known is None:
            found.append(SetSequence(f"{schema}.{name}", last, basis, 0))
            continue
        target = known + headroom * increment
        target = max(least, min(most, target))
        if not cycles and called and (last - target) * increment > 0:
            target = last  # it was set before, and used since
        connection.execute(
            sql.SQL("SELECT pg_catalog.setval({}::pg_catalog.regclass, %s, true)").format(
                sql.Literal(sequence.as_string(connection))
            ),
            (target,),
        )
        found.append(SetSequence(f"{schema}.{name}", target, basis, abs(target - known)))
    return found


def enable_triggers(connection: psycopg.Connection[Any], *kinds: str) -> int:
    """Enable again what of these kinds was disabled while the stream was applied; returns how many are on the list."""
    listed = connection.execute(
        f"{LISTED} WHERE d.kind = ANY (%s) ORDER BY d.relation, d.kind, d.name".encode(), (list(kinds),)
    ).fetchall()
    for found in listed:
        in_turn(connection, partial(enable, connection, *found[:4]))
    return len(listed)


def guarded(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """The tables that have their guard."""
    return [(schema, name) for schema, name in connection.execute(_GUARDED.encode(), (GUARD,))]


def drop_guards(connection: psycopg.Connection[Any]) -> int:
    """Let everyone write to whom the registry grants it; returns how many tables had a guard."""
    tables = guarded(connection)
    for schema, table in tables:
        statement = sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
            sql.Identifier(GUARD), sql.Identifier(schema, table)
        )
        in_turn(connection, partial(connection.execute, statement))
    return len(tables)


def missing_roles(connection: psycopg.Connection[Any], roles: Sequence[str]) -> list[str]:
    """Roles that do not exist here."""
    known = {name for (name,) in connection.execute("SELECT rolname FROM pg_catalog.pg_roles")}
    return [role for role in roles if role not in known]


def let_in(connection: psycopg.Connection[Any], roles: Sequence[str]) -> None:
    """Let the application's roles log in."""
    for role in roles:
        can = connection.execute(
            "SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = %s", (role,)
        ).fetchone()
        if can != (True,):  # ten registries of one server share their roles: the row is not written ten times
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role)))


def _extreme(connection: psycopg.Connection[Any], owner: Sequence[str], *, largest: bool) -> int | None:
    """The largest (or smallest) value of the column that a sequence belongs to."""
    schema, table, column = owner
    row = connection.execute(
        sql.SQL("SELECT {}({})::bigint FROM {}").format(
            sql.SQL("max" if largest else "min"), sql.Identifier(column), sql.Identifier(schema, table)
        )
    ).fetchone()
    return None if row is None or row[0] is None else int(row[0])
