"""What ``embassy doctor home`` examines of a registry's database at home. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg

from embassy.model.diagnosis import Level, Remark
from embassy.pg import ddl_capture, slots, source_schema
from embassy.pg import reign as reigns
from embassy.pg.connection import connect, place_of
from embassy.pg.producer_role import role_remarks
from embassy.pg.server_checks import ServerCodes, server_remarks
from embassy.pg.table_checks import table_remarks

_APPLICATION = "embassy-doctor"
_PATIENCE = {"statement_timeout": "30s", "lock_timeout": "5s", "default_transaction_read_only": "on"}
_CODES = ServerCodes("PG01", "PG02", "PG14", "PG18")
_APPLY = "embassy provision apply"
_OLD_TRANSACTION_HOURS = 1
_FAILOVER_VERSION, _IDLE_TIMEOUT_VERSION = 170_000, 180_000
_LOW_HEADROOM = 0.25


class SourceSubject(NamedTuple):
    """Which stream's source is examined."""

    dsn: str
    stream: bytes
    slot: str
    publication: str
    producer_role: str
    """Empty: whoever connects is the producer."""


def source_remarks(subject: SourceSubject) -> Iterator[Remark]:
    """Everything that is found.

    Raises:
        EmbassyError: the server is unreachable, or lets nobody in.
    """
    with connect(subject.dsn, application_name=_APPLICATION, autocommit=True, settings=_PATIENCE) as connection:
        place = place_of(subject.dsn)
        yield from server_remarks(connection, place, _CODES)
        yield from _log(connection, place)
        yield from _room(connection, place, subject.slot)
        yield from _slot(connection, place, subject)
        yield from role_remarks(connection, place, subject.producer_role)
        yield from table_remarks(connection, place, subject.publication, subject.stream)
        yield _ddl(connection, place, subject.publication)
        yield from _keeping(connection, place, subject.slot)
        yield from _transactions(connection, place)
        yield from _standbys(connection, place, subject.slot)


def _setting(connection: psycopg.Connection[Any], name: str) -> str:
    row = connection.execute("SELECT pg_catalog.current_setting(%s, true)", (name,)).fetchone()
    return str(row[0]) if row and row[0] is not None else ""


def _log(connection: psycopg.Connection[Any], place: str) -> Iterator[Remark]:
    level = _setting(connection, "wal_level")
    if level == "logical":
        yield Remark("PG02", Level.OK, place, "wal_level is logical")
    else:
        yield Remark(
            "PG02",
            Level.FAIL,
            place,
            f"wal_level is {level}",
            "ALTER SYSTEM SET wal_level = logical, then restart the server",
        )


def _room(connection: psycopg.Connection[Any], place: str, slot: str) -> Iterator[Remark]:
    row = connection.execute(
        """SELECT pg_catalog.current_setting('max_replication_slots')::int,
                  (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name <> %(slot)s),
                  pg_catalog.current_setting('max_wal_senders')::int,
                  (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE backend_type = 'walsender' AND NOT EXISTS (
                      SELECT FROM pg_catalog.pg_replication_slots s
                      WHERE s.slot_name = %(slot)s AND s.active_pid = a.pid))""",
        {"slot": slot},
    ).fetchone()
    assert row is not None, "a query without FROM has one row"
    slots_most, slots_used, senders_most, senders_used = row
    for what, setting, most, used in (
        ("replication slots", "max_replication_slots", slots_most, slots_used),
        ("walsenders", "max_wal_senders", senders_most, senders_used),
    ):
        if used >= most:
            yield Remark(
                "PG03",
                Level.FAIL,
                place,
                f"all {most} {what} are in use by others",
                f"raise {setting}, then restart",
            )
        else:
            yield Remark("PG03", Level.OK, place, f"{most - used} of {most} {what} are left for this stream")


def _slot(connection: psycopg.Connection[Any], place: str, subject: SourceSubject) -> Iterator[Remark]:
    name = subject.slot
    ensured = source_schema.is_provisioned(connection)
    reign = reigns.reign(connection, subject.stream)
    began = source_schema.begun_at(connection, subject.stream, reign) if ensured else None
    found = slots.find_slot(connection, name)
    if found is None and began is None:
        yield Remark("PG04", Level.FAIL, place, f"slot {name} is not there; the stream has not begun", _APPLY)
    elif found is None:
        yield Remark(
            "PG04",
            Level.FAIL,
            place,
            f"slot {name} is gone, and the stream began at {began:%Y-%m-%dT%H:%M:%SZ}: what was committed since the slot "
            "was dropped is not in the stream",
            "resync the stream under a new enrolment",
        )
    elif (found.database, found.plugin) != (connection.info.dbname, "pgoutput"):
        yield Remark(
            "PG04",
            Level.FAIL,
            place,
            f"slot {name} is another one: database {found.database or '-'}, plugin {found.plugin or '-'}",
            "name a free slot in source.slot",
        )
    elif found.wal_status == "lost" or found.invalidation:
        yield Remark(
            "PG04",
            Level.FAIL,
            place,
            f"slot {name} is lost ({found.invalidation or 'log was removed'})",
            "resync the stream; then raise max_slot_wal_keep_size",
        )
    elif began is None and not (ensured and source_schema.slot_is_proven(connection, subject.stream, name)):
        yield Remark(
            "PG04",
            Level.FAIL,
            place,
            f"slot {name} is there, and nothing shows which rows it begins after",
            f"the stream has not begun: SELECT pg_drop_replication_slot('{name}'), then {_APPLY}",
        )
    elif not found.active and began is not None:
        yield Remark(
            "PG04",
            Level.WARN,
            place,
            f"nobody reads slot {name}, and it keeps home's log",
            "start embassy producer run",
        )
    else:
        yield Remark("PG04", Level.OK, place, f"slot {name} is there, log {found.wal_status}")


def _ddl(connection: psycopg.Connection[Any], place: str, publication: str) -> Remark:
    if ddl_capture.is_captured(connection, publication):
        return Remark("PG19", Level.OK, place, "DDL goes into the stream")
    return Remark(
        "PG19",
        Level.WARN,
        place,
        "DDL does not go into the stream: whoever changes a table must change it on both sides",
        f"{_APPLY}, as a superuser",
    )


def _keeping(connection: psycopg.Connection[Any], place: str, slot: str) -> Iterator[Remark]:
    row = connection.execute(
        """SELECT setting::bigint * 1048576, pg_catalog.pg_size_pretty(setting::bigint * 1048576),
                  (SELECT safe_wal_size FROM pg_catalog.pg_replication_slots WHERE slot_name = %s)
           FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'""",
        (slot,),
    ).fetchone()
    limit, pretty, safe = row or (-1, "", None)
    if limit < 0:
        yield Remark(
            "PG10",
            Level.WARN,
            place,
            "max_slot_wal_keep_size has no limit: an outage of the stream can fill home's disk",
            "set it to the log of the longest outage to survive, below the free disk",
        )
    elif safe is not None and safe < limit * _LOW_HEADROOM:
        yield Remark(
            "PG10",
            Level.FAIL,
            place,
            f"the slot is about to be lost: {max(safe, 0) >> 20} MiB of log until max_slot_wal_keep_size ({pretty})",
            "start the producer or mend what it waits for; raise the limit if the disk allows it",
        )
    else:
        yield Remark("PG10", Level.OK, place, f"max_slot_wal_keep_size is {pretty}")
    if connection.info.server_version >= _IDLE_TIMEOUT_VERSION:
        timeout = _setting(connection, "idle_replication_slot_timeout")
        if timeout not in ("0", "0s", ""):
            yield Remark(
                "PG11",
                Level.FAIL,
                place,
                f"idle_replication_slot_timeout is {timeout}: an outage of that length ends the stream",
                "ALTER SYSTEM SET idle_replication_slot_timeout = 0",
            )
        else:
            yield Remark("PG11", Level.OK, place, "idle slots are kept")


def _transactions(connection: psycopg.Connection[Any], place: str) -> Iterator[Remark]:
    row = connection.execute(
        """SELECT who, pg_catalog.to_char(began, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') FROM (
               SELECT 'process ' || pid || ' (' || usename || ')', xact_start FROM pg_catalog.pg_stat_activity
               WHERE backend_xid IS NOT NULL
               UNION ALL SELECT 'prepared transaction ' || gid, prepared FROM pg_catalog.pg_prepared_xacts) t (who, began)
           WHERE began < pg_catalog.now() - pg_catalog.make_interval(hours => %s) ORDER BY t.began LIMIT 1""",
        (_OLD_TRANSACTION_HOURS,),
    ).fetchone()
    if row is None:
        yield Remark("PG16", Level.OK, place, "no transaction is old")
    else:
        yield Remark("PG16", Level.WARN, place, f"{row[0]} has been open since {row[1]}", "end it")


def _standbys(connection: psycopg.Connection[Any], place: str, slot: str) -> Iterator[Remark]:
    row = connection.execute(
        "SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical'"
    ).fetchone()
    if row == (0,):
        yield Remark("PG17", Level.OK, place, "no standby has a slot here")
    elif connection.info.server_version < _FAILOVER_VERSION:
        yield Remark(
            "PG17",
            Level.WARN,
            place,
            "before 17 a promoted standby does not have the slot: the stream would have to be resynced",
            "upgrade to 17 or newer",
        )
    else:
        found = slots.find_slot(connection, slot)
        if found is not None and not found.failover:
            yield Remark(
                "PG17",
                Level.FAIL,
                place,
                f"slot {slot} is not synchronised to standbys",
                f"ALTER_REPLICATION_SLOT {slot} (FAILOVER true) in a replication session",
            )
        if not _setting(connection, "synchronized_standby_slots"):
            yield Remark(
                "PG17",
                Level.WARN,
                place,
                "the stream may run ahead of the standbys; promoting one then ends it",
                "name the standbys' slots in synchronized_standby_slots",
            )
