"""DDL of the product's own, which no event trigger of the registry's may look at.

An event trigger that logs DDL into a table would write to one that is guarded or fenced, so that a registry could be
neither made a replica nor shut.
"""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

# event_triggers is there from version 17 on; before, those that always fire cannot be helped.
_UNOBSERVED = """
SELECT pg_catalog.set_config(s.name, v.value, true)
FROM (VALUES ('session_replication_role', 'replica'), ('event_triggers', 'off')) v (name, value)
JOIN pg_catalog.pg_settings s ON s.name = v.name
WHERE (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)"""

_HOW: dict[str, LiteralString] = {"A": "ENABLE ALWAYS", "R": "ENABLE REPLICA", "D": "DISABLE"}


def how(enabled: str) -> sql.SQL:
    """What ALTER says for a value of pg_trigger.tgenabled and its like."""
    return sql.SQL(_HOW.get(enabled, "ENABLE"))


def enabling(name: str, enabled: str) -> sql.Composed:
    """The statement that gives an event trigger a value of pg_event_trigger.evtenabled."""
    return sql.SQL("ALTER EVENT TRIGGER {} {}").format(sql.Identifier(name), how(enabled))


def unobserved(connection: psycopg.Connection[Any]) -> None:
    """Let no event trigger fire for what follows in the transaction that is open, where the role may say so."""
    connection.execute(_UNOBSERVED)
