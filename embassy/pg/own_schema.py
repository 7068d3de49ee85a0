"""Whose the schema embassy is: whoever owns it may put other functions in the place of the product's."""

from __future__ import annotations

from typing import Any

import psycopg

from embassy.model.errors import RefusedError

_STRANGER = """
SELECT o.rolname
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner
JOIN pg_catalog.pg_roles me ON me.rolname = current_user
WHERE n.nspname = 'embassy' AND NOT o.rolsuper AND (me.rolsuper OR NOT pg_catalog.pg_has_role(me.oid, o.oid, 'USAGE'))"""


def refuse_a_strangers(connection: psycopg.Connection[Any]) -> None:
    """Before anything of the product's is made in the schema, and later run with its maker's rights.

    Raises:
        RefusedError: it is there, and belongs to a role with fewer rights than this session's.
    """
    found = connection.execute(_STRANGER).fetchone()
    if found is not None:
        raise RefusedError(
            f"the schema embassy belongs to {found[0]}, who could have anything executed with this role's rights",
            place=f"database {connection.info.dbname}",
            hint="find out who made it; if all that is in it is the product's: ALTER SCHEMA embassy OWNER TO "
            "the role that provisions, and its tables and functions likewise; else rename it",
        )
