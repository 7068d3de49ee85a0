"""Which of a registry's tables anyone could write to, because a trigger that refuses writes does not stand on them."""

from __future__ import annotations

from typing import Any, Literal

import psycopg

_WITHOUT = """
SELECT n.nspname, c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('information_schema', 'embassy') AND n.nspname !~ '^pg_'
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_trigger t
      WHERE t.tgrelid = c.oid AND t.tgfoid = pg_catalog.to_regproc(%(function)s) AND t.tgenabled = %(enabled)s
        AND t.tgtype = 62  -- before insert, delete, update or truncate, for each statement
        AND t.tgqual IS NULL AND t.tgattr = ''::int2vector)
ORDER BY 1, 2"""


def tables_without(
    connection: psycopg.Connection[Any], *, function: str, enabled: Literal["O", "A"]
) -> list[tuple[str, str]]:
    """The registry's tables, partitions included, on which no trigger calls a function before every statement.

    Args:
        connection: to the database.
        function: its qualified name.
        enabled: pg_trigger.tgenabled, as the trigger has to be: O fires unless the session replicates, A always.
    """
    return connection.execute(_WITHOUT, {"function": function, "enabled": enabled}).fetchall()
