"""What ``embassy doctor embassy`` examines of a registry's replica. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg

from embassy.model.diagnosis import Level, Remark
from embassy.model.errors import RefusedError
from embassy.model.own_tables import PUBLISHED
from embassy.model.record import Head
from embassy.pg import progress_store, replica_schema
from embassy.pg.catalog import brief
from embassy.pg.connection import connect, place_of
from embassy.pg.schema_load import is_empty
from embassy.pg.server_checks import ServerCodes, server_remarks

_APPLICATION = "embassy-doctor"
_PATIENCE = {"statement_timeout": "30s", "lock_timeout": "5s", "default_transaction_read_only": "on"}
_CODES = ServerCodes("RP01", "RP10", "RP11", "RP12")
_APPLY = "embassy provision apply"

_UNLOGGED = """
SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname !~ '^pg_' ORDER BY 1"""
_SUBSCRIPTIONS = """
SELECT subname FROM pg_catalog.pg_subscription
WHERE subenabled AND subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY 1"""
_OWNERS = """
SELECT r.rolname FROM pg_catalog.pg_roles r
WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> %s AND EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('information_schema', 'embassy') AND n.nspname !~ '^pg_'
      AND pg_catalog.pg_has_role(r.oid, c.relowner, 'MEMBER'))
ORDER BY 1"""
_LARGE_OBJECTS = """
SELECT r.rolsuper FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid JOIN pg_catalog.pg_roles r ON r.oid = f.proowner
WHERE t.tgrelid = pg_catalog.to_regclass('embassy.large_object_change') AND t.tgname = 'apply_large_object'
  AND t.tgenabled = 'R'"""
_UNWRITABLE = """
SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND (n.nspname <> 'embassy' OR c.relname IN ('control', 'progress', 'verification', 'verify_finding', 'verify_run')
       OR c.relname = ANY (%(own_tables)s))
  AND NOT (pg_catalog.has_schema_privilege(%(role)s, n.oid, 'USAGE')
           AND pg_catalog.has_table_privilege(%(role)s, c.oid, 'SELECT')
           AND pg_catalog.has_table_privilege(%(role)s, c.oid, 'INSERT')
           AND pg_catalog.has_table_privilege(%(role)s, c.oid, 'UPDATE')
           AND pg_catalog.has_table_privilege(%(role)s, c.oid, 'DELETE'))
ORDER BY 1"""


class ReplicaSubject(NamedTuple):
    """Which stream's replica is examined."""

    dsn: str
    stream: bytes
    genesis: Head | None
    """None: the enrolment cannot be read, which has a remark of its own."""
    consumer_role: str
    """Empty: whoever connects is the consumer."""


def replica_remarks(subject: ReplicaSubject) -> Iterator[Remark]:
    """Everything that is found.

    Raises:
        EmbassyError: the server is unreachable, or lets nobody in.
    """
    with connect(subject.dsn, application_name=_APPLICATION, autocommit=True, settings=_PATIENCE) as connection:
        place = place_of(subject.dsn)
        yield from server_remarks(connection, place, _CODES)
        if replica_schema.is_provisioned(connection):
            yield Remark("RP02", Level.OK, place, "the schema embassy is there")
            yield _progress(connection, place, subject)
            yield _large_objects(connection, place)
        else:
            yield Remark("RP02", Level.FAIL, place, "there is no schema embassy", _APPLY)
        if is_empty(connection):
            yield Remark("RP13", Level.FAIL, place, "there is no table of the registry", f"{_APPLY} --schema FILE")
        else:
            yield Remark("RP13", Level.OK, place, "the registry's tables are there")
        yield from _guards(connection, place)
        yield from _firing(connection, place)
        yield from _consumer(connection, place, subject.consumer_role)
        yield _others(connection, place, subject.consumer_role)
        yield _listed(
            connection,
            _SUBSCRIPTIONS,
            Remark("RP08", Level.FAIL, place, "subscriptions that write here", "DROP SUBSCRIPTION"),
        )
        yield _listed(
            connection,
            _UNLOGGED,
            Remark(
                "RP09",
                Level.WARN,
                place,
                "unlogged tables, which a crash empties",
                "ALTER TABLE … SET LOGGED, if they are logged at home",
            ),
        )


def _progress(connection: psycopg.Connection[Any], place: str, subject: ReplicaSubject) -> Remark:
    progress = progress_store.read(connection, subject.stream)
    if progress is None:
        return Remark("RP05", Level.FAIL, place, f"no progress row of stream {subject.stream.hex()}", _APPLY)
    if subject.genesis is not None:
        try:
            progress_store.check(progress, subject.genesis)
        except RefusedError as error:
            return Remark("RP05", Level.FAIL, place, str(error.args[0]), error.hint)
    head = progress.head
    return Remark("RP05", Level.OK, place, f"at record {head.sequence} of epoch {head.epoch}")


def _guards(connection: psycopg.Connection[Any], place: str) -> Iterator[Remark]:
    found = replica_schema.unguarded(connection)
    for schema, table in found:
        yield Remark("RP03", Level.FAIL, f"{schema}.{table}", "no guard: its owner can write to it", _APPLY)
    if not found:
        yield Remark("RP03", Level.OK, place, "each table has its guard")


def _firing(connection: psycopg.Connection[Any], place: str) -> Iterator[Remark]:
    found = replica_schema.firing(connection)
    for one in found:
        yield Remark(
            "RP04",
            Level.FAIL,
            f"{one.schema}.{one.table}" if one.schema else place,
            f"{one.kind} {one.name} fires while the stream is applied, as it did at home: its effect would come twice",
            _APPLY,
        )
    if not found:
        yield Remark("RP04", Level.OK, place, "nothing fires while the stream is applied")


def _large_objects(connection: psycopg.Connection[Any], place: str) -> Remark:
    row = connection.execute(_LARGE_OBJECTS).fetchone()
    if row is None:
        return Remark("RP14", Level.FAIL, place, "the stream's large objects would not be taken", _APPLY)
    if row != (True,):
        return Remark(
            "RP14",
            Level.WARN,
            place,
            "large objects cannot be taken: who provisioned the replica is no superuser; the first one halts the stream",
            f"{_APPLY} as a superuser",
        )
    return Remark("RP14", Level.OK, place, "large objects are taken as they come")


def _consumer(connection: psycopg.Connection[Any], place: str, role: str) -> Iterator[Remark]:
    row = connection.execute(
        """SELECT rolname, rolcanlogin, rolsuper, rolbypassrls,
                  pg_catalog.has_parameter_privilege(oid, 'session_replication_role', 'SET')
           FROM pg_catalog.pg_roles WHERE rolname = coalesce(nullif(%s, ''), session_user)""",
        (role,),
    ).fetchone()
    if row is None:
        yield Remark(
            "RP06", Level.FAIL, place, f"there is no role {role}", "create it, or name yours with --consumer-role"
        )
        return
    name, logs_in, superuser, bypasses, switches = row
    if not logs_in:
        yield Remark("RP06", Level.FAIL, place, f"role {name} lacks LOGIN", f"ALTER ROLE {name} LOGIN")
    elif superuser:
        yield Remark("RP06", Level.OK, place, f"role {name} may apply; it is a superuser")
    elif not (switches and bypasses):
        yield Remark(
            "RP06",
            Level.FAIL,
            place,
            f"role {name} may not apply",
            f"GRANT SET ON PARAMETER session_replication_role TO {name}; ALTER ROLE {name} BYPASSRLS",
        )
    else:
        lacking = [
            table
            for (table,) in connection.execute(_UNWRITABLE.encode(), {"role": name, "own_tables": list(PUBLISHED)})
        ]
        if lacking:
            yield Remark(
                "RP06",
                Level.FAIL,
                place,
                f"role {name} may not write {brief(lacking)}",
                f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA … TO {name}",
            )
        else:
            yield Remark("RP06", Level.OK, place, f"role {name} may apply rows, and no DDL")


def _others(connection: psycopg.Connection[Any], place: str, consumer: str) -> Remark:
    found = [name for (name,) in connection.execute(_OWNERS.encode(), (consumer or connection.info.user,))]
    if not found:
        return Remark("RP07", Level.OK, place, "no application role that owns tables can log in")
    return Remark(
        "RP07",
        Level.WARN,
        place,
        f"roles that own tables can log in, and drop a guard: {brief(found)}",
        "ALTER ROLE … NOLOGIN until promotion",
    )


def _listed(connection: psycopg.Connection[Any], query: str, wrong: Remark) -> Remark:
    """What a query of names finds wrong, or that it finds nothing."""
    found = [name for (name,) in connection.execute(query.encode())]
    if found:
        return wrong._replace(text=f"{wrong.text}: {brief(found)}")
    return Remark(wrong.code, Level.OK, wrong.place, f"none: {wrong.text}")
