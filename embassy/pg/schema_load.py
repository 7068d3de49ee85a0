"""Making an empty replica's schema from the source's, in one transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
from psycopg import errors, sql

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.model.schema_file import SchemaFile
from embassy.model.step import Step

_TRANSACTION_TIMEOUT_VERSION = 170_000
_TRANSACTION_TIMEOUT = re.compile(r"^SET transaction_timeout = 0;\n", re.MULTILINE)
_UNIVERSAL = "UTF8"
_HOLDS_SOMETHING = """
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND n.nspname NOT IN ('information_schema', 'embassy') AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = c.oid
                      AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass))"""


def is_empty(connection: psycopg.Connection[Any]) -> bool:
    """Whether a database has no table, view or sequence of anybody's but the product's and extensions'."""
    return connection.execute(_HOLDS_SOMETHING).fetchone() == (False,)


def schema_steps(connection: psycopg.Connection[Any], place: str, schema: SchemaFile) -> Iterator[Step]:
    """The roles that the schema names, where they are missing, and the schema, in a database that is empty.

    Roles are made without any right, and cannot log in: so nothing of owners, grants and policies is lost. Each step
    names the statement that made the role at home.

    Raises:
        RefusedError: the server is older than the source, or its encoding does not hold every text.
    """
    version = connection.info.server_version
    if version // 10_000 < schema.server_version // 10_000:
        raise RefusedError(
            f"the replica's server is of version {version // 10_000}, and the source's of "
            f"{schema.server_version // 10_000}: it may not know what the source has",
            place=place,
            hint="use a replica of the same version or a newer one",
        )
    (encoding,) = connection.execute("SELECT pg_catalog.getdatabaseencoding()").fetchone() or ("",)
    if encoding not in (schema.encoding, _UNIVERSAL):
        raise RefusedError(
            f"the replica is encoded in {encoding}, and the source in {schema.encoding}: not every text would fit",
            place=place,
            hint="make the replica's database anew: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
    there = {name for (name,) in connection.execute("SELECT rolname FROM pg_catalog.pg_roles")}
    for role in schema.roles:
        if role.name not in there:
            make = partial(_make_role, connection, role.name)
            yield Step(place, f"role {role.name}, NOLOGIN and without rights (at home: {role.create})", make)
    what = f"schema of {schema.database}, as of {schema.lsn}"
    yield Step(place, what, partial(_load, connection, place, schema.script))


def _make_role(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))


def _load(connection: psycopg.Connection[Any], place: str, script: str) -> None:
    if connection.info.server_version < _TRANSACTION_TIMEOUT_VERSION:
        script = _TRANSACTION_TIMEOUT.sub(
            "\n", script, count=1
        )  # a newer pg_dump's; older servers know no such option
    try:
        with connection.transaction():
            connection.execute(script.encode())
            # the dump has set what suits it; the session goes on as it was opened
            connection.execute("RESET ALL")
            if connection.info.server_version >= _TRANSACTION_TIMEOUT_VERSION:
                connection.execute("SET transaction_timeout = 0")
    except (errors.UndefinedFile, errors.FeatureNotSupported, errors.UndefinedObject) as error:
        raise ConfigurationError(
            f"the schema cannot be made here: {error.diag.message_primary}{_at(script, error)}",
            place=place,
            hint=error.diag.message_hint or "install on the replica's server what the source's has",
        ) from error


def _at(script: str, error: psycopg.Error) -> str:
    """Where in the file the server stopped."""
    position = error.diag.statement_position
    return f" (line {script.count(chr(10), 0, int(position)) + 3} of the schema file)" if position else ""
