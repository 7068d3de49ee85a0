"""DDL of the product's own, which no event trigger of the registry's may look at.

An event trigger that logs DDL into a table would write to one that is guarded or fenced, so that a registry could be
neither made a replica nor shut.
"""

from __future__ import annotations

from typing import Any

import psycopg

# event_triggers is there from version 17 on; before, those that always fire cannot be helped.
_UNOBSERVED = """
SELECT pg_catalog.set_config(s.name, v.value, true)
FROM (VALUES ('session_replication_role', 'replica'), ('event_triggers', 'off')) v (name, value)
JOIN pg_catalog.pg_settings s ON s.name = v.name
WHERE (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)"""


def unobserved(connection: psycopg.Connection[Any]) -> None:
    """Let no event trigger fire for what follows in the transaction that is open, where the role may say so."""
    connection.execute(_UNOBSERVED)
