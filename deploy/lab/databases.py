"""Roles and databases of a site: what a registry's own people would have made before the product came."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from deploy.lab.postgres_server import PostgresServer
from deploy.lab.state import RegistryState
from embassy.model.errors import ConfigurationError

OWNER = "registry_owner"
READER = "registry_reader"
PRODUCER = "embassy_producer"
CONSUMER = "embassy_consumer"
ADMIN = "embassy_admin"

HOME_ROLES: Mapping[str, LiteralString] = {
    # Row security would hide rows from a copy without a word.
    PRODUCER: "LOGIN REPLICATION BYPASSRLS IN ROLE pg_read_all_data",
    OWNER: "LOGIN",
    ADMIN: "LOGIN SUPERUSER",
    CONSUMER: "LOGIN SUPERUSER",  # for the way home, as below
}
EMBASSY_ROLES: Mapping[str, LiteralString] = {
    PRODUCER: "LOGIN REPLICATION BYPASSRLS IN ROLE pg_read_all_data",  # for the way home
    # The consumer replays the source's DDL, grants and ownership: whoever can do that can become superuser anyway.
    CONSUMER: "LOGIN SUPERUSER",
    OWNER: "LOGIN",
    READER: "LOGIN BYPASSRLS IN ROLE pg_read_all_data",
    ADMIN: "LOGIN SUPERUSER",
}


def make_roles(server: PostgresServer, roles: Mapping[str, LiteralString]) -> None:
    """Create the roles that are not there yet; none has a password."""
    with _my_turn(server) as connection:
        present = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for role, attributes in roles.items():
            if role not in present:
                connection.execute(sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(role), sql.SQL(attributes)))


def make_databases(server: PostgresServer, registries: Mapping[str, RegistryState], *, with_tables: bool) -> None:
    """Create each registry's database, unless it was made before.

    A database counts as made once its comment says so, which commits together with the tables; one that an
    interrupted start left unfinished is made again.

    Args:
        server: of the site.
        registries: by name.
        with_tables: whether the registries' people make their tables; else the databases stay empty.

    Raises:
        ConfigurationError: a registry's SQL fails; the message has the server's words.
    """
    with _my_turn(server) as connection:
        made = dict(
            connection.execute(
                "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE NOT datistemplate"
            ).fetchall()
        )
        for name, registry in registries.items():
            if (made.get(name) or "").startswith(_MARK):
                continue
            database = sql.Identifier(name)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(database, sql.Identifier(OWNER))
            )
            _make_tables(server, name, registry.schema_file if with_tables else None)


_MARK = "Registry of the lab, schema "


@contextmanager
def _my_turn(server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """A session that waits for whatever an earlier start left at work.

    A start that was killed leaves its last command running: nobody sees the database that it makes, and nobody else can
    make one of that name.
    """
    with server.connect() as connection:
        connection.execute(
            "SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('data-embassy lab', 0))"
        )  # until the session ends
        yield connection


def _make_tables(server: PostgresServer, name: str, schema_file: Path | None) -> None:
    script = schema_file.read_bytes() if schema_file else b""
    mark = _MARK + (hashlib.sha256(script).hexdigest() if script else "(none)")
    with server.connect(OWNER, name) as connection, connection.transaction():
        try:
            _run_script(connection, script)
        except psycopg.Error as error:
            place = f"{schema_file}, database {name} of {server.site}"
            raise ConfigurationError(
                f"a registry's schema fails: {_words(error)}",
                place=place,
                hint="the owner's role runs it; mend it",
            ) from error
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(mark)))


def _run_script(connection: psycopg.Connection[Any], script: bytes) -> None:
    if script.strip():
        connection.execute(script)


def _words(error: psycopg.Error) -> str:
    at = f" (character {error.diag.statement_position})" if error.diag.statement_position else ""
    return f"{error.diag.message_primary or error}{at}"
