"""Whether the producer's role may do what it must, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from embassy.model.diagnosis import Level, Remark
from embassy.pg import source_schema
from embassy.pg.catalog import brief
from embassy.pg.presence import has_table

_APPLY = "embassy provision apply"
# Row security hides rows from a copy without a word; the sessions of the product refuse to be cheated, and fail.
_UNREADABLE = """
SELECT DISTINCT n.nspname || '.' || c.relname
FROM pg_catalog.pg_publication_rel r
JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles o ON o.rolname = %(role)s
WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'embassy'
  AND NOT (pg_catalog.has_schema_privilege(o.oid, n.oid, 'USAGE')
           AND pg_catalog.has_table_privilege(o.oid, c.oid, 'SELECT')
           AND (NOT c.relrowsecurity OR o.rolbypassrls OR o.rolsuper))
ORDER BY 1"""
# A search_path that does not name pg_temp begins with it: a session's own types would take the place of PostgreSQL's.
_OPEN_TO_SESSIONS = """
SELECT pg_catalog.count(*)
FROM pg_catalog.pg_proc p
LEFT JOIN LATERAL pg_catalog.unnest(p.proconfig) c (path) ON c.path ~ '^search_path='
WHERE p.pronamespace = 'embassy'::regnamespace
  AND CASE WHEN c.path IS NULL THEN p.prosecdef ELSE c.path !~ ', pg_temp$' END"""


def role_remarks(connection: psycopg.Connection[Any], place: str, role: str) -> Iterator[Remark]:
    """The role named, or the session's own."""
    row = connection.execute(
        """SELECT r.rolname, r.rolcanlogin, r.rolreplication, r.rolsuper,
                  pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT')
           FROM pg_catalog.pg_roles r WHERE r.rolname = coalesce(nullif(%s, ''), session_user)""",
        (role,),
    ).fetchone()
    if row is None:
        yield Remark(
            "PG05",
            Level.FAIL,
            place,
            f"there is no role {role}",
            f"CREATE ROLE {role} LOGIN REPLICATION, or name the producer's with --producer-role",
        )
        return
    name, logs_in, replicates, superuser, connects = row
    lacks = [what for what, there in (("LOGIN", logs_in), ("REPLICATION", replicates or superuser)) if not there]
    if lacks:
        yield Remark(
            "PG05",
            Level.FAIL,
            place,
            f"role {name} lacks {' and '.join(lacks)}",
            f"ALTER ROLE {name} {' '.join(lacks)}",
        )
    elif not connects:
        yield Remark(
            "PG05", Level.FAIL, place, f"role {name} may not connect", "GRANT CONNECT ON DATABASE … TO it"
        )
    elif superuser:
        yield Remark(
            "PG05", Level.WARN, place, f"role {name} is a superuser", "a role with LOGIN REPLICATION is enough"
        )
    else:
        yield Remark("PG05", Level.OK, place, f"role {name} may replicate")
    yield _schema(connection, place, name)
    yield _reading(connection, place, name)


def _reading(connection: psycopg.Connection[Any], place: str, role: str) -> Remark:
    found = [table for (table,) in connection.execute(_UNREADABLE.encode(), {"role": role})]
    if found:
        return Remark(
            "PG20",
            Level.WARN,
            place,
            f"role {role} may not read all rows of {brief(found)}: they can be neither copied nor verified",
            f"GRANT SELECT ON … TO {role}; where they have row security, ALTER ROLE {role} BYPASSRLS",
        )
    return Remark("PG20", Level.OK, place, f"role {role} may read what is published")


def _schema(connection: psycopg.Connection[Any], place: str, role: str) -> Remark:
    if not source_schema.is_provisioned(connection):
        return Remark("PG15", Level.FAIL, place, "there is no schema embassy", _APPLY)
    row = connection.execute(
        """SELECT pg_catalog.has_schema_privilege(%(role)s, 'embassy', 'USAGE')
              AND (SELECT bool_and(pg_catalog.has_function_privilege(%(role)s, oid, 'EXECUTE'))
                   FROM pg_catalog.pg_proc
                   WHERE pronamespace = 'embassy'::regnamespace
                     AND proname IN ('beat', 'mark_genesis', 'note_incarnation', 'request_copy', 'verify_say'))
              AND pg_catalog.has_table_privilege(%(role)s, 'embassy.stream', 'SELECT')""",
        {"role": role},
    ).fetchone()
    outdated = connection.execute(_OPEN_TO_SESSIONS).fetchone()
    if outdated != (0,):
        return Remark(
            "PG15",
            Level.FAIL,
            place,
            "the functions of schema embassy are of a version in which whoever may run DDL here could have their own "
            "executed with an administrator's rights",
            _APPLY,
        )
    if row == (True,) and not has_table(connection, "embassy.incarnation"):
        earlier = (
            "schema embassy is of an earlier version: a source that was restored from a snapshot may go unnoticed"
        )
        return Remark("PG15", Level.WARN, place, earlier, _APPLY)
    if row == (True,):
        return Remark("PG15", Level.OK, place, f"role {role} may use schema embassy")
    return Remark(
        "PG15", Level.FAIL, place, f"role {role} may not use schema embassy", f"{_APPLY} --producer-role {role}"
    )
