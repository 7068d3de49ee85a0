"""A source's schema as a file: what a replica is made of before its rows come.

Left out are the product's own tables, what belongs to one server (tablespaces) and what would act twice
(publications, subscriptions, the triggers by which the product sees DDL and large objects). Owners, grants and policies
are in.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import sql

from embassy.model.schema_file import RoleNeed, SchemaFile
from embassy.pg.connection import connect
from embassy.pg.dump_client import dump, find_client

_OPTIONS = (
    "--schema-only",
    "--no-publications",
    "--no-subscriptions",
    "--no-tablespaces",
    "--exclude-schema=embassy",
    "--quote-all-identifiers",  # what is a plain name in one version is a reserved word in the next
    "--encoding=UTF8",
)
_RESTRICTED = re.compile(r"^\\restrict (\S+)\n", re.MULTILINE)
_OWN_EVENT_TRIGGERS = """
SELECT e.evtname FROM pg_catalog.pg_event_trigger e
JOIN pg_catalog.pg_proc f ON f.oid = e.evtfoid JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
WHERE n.nspname = 'embassy'"""
_OWN_TRIGGERS = """
SELECT t.tgname FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
WHERE n.nspname = 'embassy' AND c.relnamespace <> n.oid GROUP BY 1"""
# pg_shdepend does not have what the first superuser owns.
_ROLES = """
WITH RECURSIVE named (oid) AS (
    SELECT refobjid FROM pg_catalog.pg_shdepend
    WHERE refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
      AND dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    UNION SELECT 10::oid
    UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN named ON named.oid = m.member
)
SELECT r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication,
       r.rolbypassrls, ARRAY(SELECT g.rolname::text FROM pg_catalog.pg_auth_members m
                             JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid ORDER BY 1)
FROM named JOIN pg_catalog.pg_roles r ON r.oid = named.oid WHERE r.rolname !~ '^pg_' ORDER BY r.rolname"""
_ATTRIBUTES = ("SUPERUSER", "INHERIT", "CREATEROLE", "CREATEDB", "LOGIN", "REPLICATION", "BYPASSRLS")


def take_schema(dsn: str) -> SchemaFile:
    """Read a database's schema.

    Raises:
        ConfigurationError: no pg_dump of this machine can, or the role may not.
        TransientError: the server is unreachable.
    """
    with connect(dsn, application_name="embassy-provision", autocommit=True) as connection:
        version = connection.info.server_version
        row = connection.execute(
            """SELECT pg_catalog.current_database(), pg_catalog.getdatabaseencoding(),
                      pg_catalog.pg_current_wal_insert_lsn()::text"""
        ).fetchone()
        assert row is not None, "a query without FROM has one row"
        database, encoding, lsn = row
        event_triggers = [name for (name,) in connection.execute(_OWN_EVENT_TRIGGERS)]
        triggers = [name for (name,) in connection.execute(_OWN_TRIGGERS)]
        script = _plain(dump(find_client(version), connection, _OPTIONS), event_triggers, triggers)
        roles = tuple(role for role in _roles(connection) if _quoted(role.name) in script)
    return SchemaFile(database, version, encoding, lsn, roles, script)


def _plain(dumped: str, event_triggers: list[str], triggers: list[str]) -> str:
    """The dump as SQL alone, without psql's own commands and without the product's triggers."""
    token = _RESTRICTED.search(dumped)
    if token is not None:
        dumped = dumped.replace(f"\\restrict {token[1]}\n", "").replace(f"\\unrestrict {token[1]}\n", "")
    for name in event_triggers:
        quoted = re.escape(_quoted(name))
        dumped = re.sub(rf"^CREATE EVENT TRIGGER {quoted} ON [^;]*;\n", "", dumped, flags=re.MULTILINE)
        dumped = re.sub(rf"^(ALTER|COMMENT ON) EVENT TRIGGER {quoted} .*;\n", "", dumped, flags=re.MULTILINE)
    for name in triggers:
        quoted = re.escape(_quoted(name))
        made = rf'^CREATE TRIGGER {quoted} .* EXECUTE FUNCTION "embassy"\.[^;]*;\n'
        dumped = re.sub(made, "", dumped, flags=re.MULTILINE)
        dumped = re.sub(rf"^ALTER TABLE .* TRIGGER {quoted};\n", "", dumped, flags=re.MULTILINE)
    return dumped


def _roles(connection: psycopg.Connection[Any]) -> list[RoleNeed]:
    found = []
    for name, *attributes, groups in connection.execute(_ROLES):
        said = [word if has else f"NO{word}" for word, has in zip(_ATTRIBUTES, attributes, strict=True)]
        member = f" IN ROLE {', '.join(map(_quoted, groups))}" if groups else ""
        found.append(RoleNeed(name, f"CREATE ROLE {_quoted(name)} {' '.join(said)}{member}"))
    return found


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
