"""Whether DDL at home goes into the stream: the event triggers; the SQL is schemas/sql/source_ddl*.sql."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable

from embassy.pg.exchange import plain
from embassy.pg.presence import has_table

_TRIGGERS = 5
_IF_THERE = """
DO $$BEGIN
    IF pg_catalog.to_regprocedure('{}') IS NOT NULL THEN
        PERFORM {};
    END IF;
END$$"""
"""A function is called, in one exchange, unless the schema is of a version that has none."""


def is_captured(connection: psycopg.Connection[Any], publication: str) -> bool:
    """Whether the event triggers are there, fire in every session, and take new tables into the publication."""
    if not has_table(connection, "embassy.ddl_publication"):
        return False
    row = connection.execute(
        """SELECT (SELECT count(*) FROM pg_catalog.pg_event_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.evtfoid
                   WHERE p.pronamespace = 'embassy'::regnamespace AND t.evtenabled = 'A') >= %s
              AND EXISTS (SELECT FROM embassy.ddl_publication WHERE publication = %s)""",
        (_TRIGGERS, publication),
    ).fetchone()
    return row == (True,)


def may_capture(connection: psycopg.Connection[Any]) -> bool:
    """Whether this session's role may create event triggers."""
    row = connection.execute("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").fetchone()
    return row == (True,)


def capture(connection: psycopg.Connection[Any], publication: str) -> None:
    """Put DDL into the stream from now on."""
    with connection.transaction():
        connection.execute((files("schemas") / "sql" / "source_ddl_triggers.sql").read_bytes())
        connection.execute(
            "INSERT INTO embassy.ddl_publication VALUES (%s) ON CONFLICT DO NOTHING", (publication,)
        )
        connection.execute("SELECT embassy.note_owners(NULL)")


SAMPLE_OWNERS = plain(
    _IF_THERE.format("embassy.sample_owners(oid[])", "embassy.sample_owners()"), unless=LockNotAvailable
)
"""Tells the stream of owners that have changed without an event trigger's seeing it: by REASSIGN OWNED.

If somebody has one of those objects just then, nothing is told: the next time will do.
"""


def let_go(connection: psycopg.Connection[Any], *, dry: bool = False) -> int:
    """Capture DDL no more, as in a database that becomes a replica; returns how many event triggers there were."""
    names = [
        name
        for (name,) in connection.execute(
            """SELECT t.evtname FROM pg_catalog.pg_event_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.evtfoid
               JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'embassy'"""
        )
    ]
    for name in () if dry else names:
        connection.execute(sql.SQL("DROP EVENT TRIGGER IF EXISTS {}").format(sql.Identifier(name)))
    return len(names)


CLEAR_ROWS = plain(_IF_THERE.format("embassy.clear_ddl_rows()", "embassy.clear_ddl_rows()"))
"""Lets go of rows that were copied for the stream, which has them; those of open transactions stay."""
