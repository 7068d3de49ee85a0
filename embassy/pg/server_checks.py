"""What is examined of any PostgreSQL server of the product, at home or in an embassy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg

from embassy.model.diagnosis import Level, Remark

_OLDEST, _NEWEST = 14, 18
_SKEW_WARN_SECONDS, _SKEW_FAIL_SECONDS = 2.0, 60.0


class ServerCodes(NamedTuple):
    """The codes of the checks that both sides have."""

    connection: str
    durability: str
    clock: str
    primary: str


def server_remarks(connection: psycopg.Connection[Any], place: str, codes: ServerCodes) -> Iterator[Remark]:
    """Version, encryption, durability, clock, role in a pair."""
    yield _reached(connection, place, codes.connection)
    row = connection.execute(
        """SELECT pg_catalog.current_setting('fsync') = 'on' AND pg_catalog.current_setting('full_page_writes') = 'on',
                  pg_catalog.pg_is_in_recovery()"""
    ).fetchone()
    durable, standby = row or (False, False)
    if not durable:
        yield Remark(
            codes.durability,
            Level.FAIL,
            place,
            "fsync or full_page_writes is off: a power cut destroys the database",
            "switch both on",
        )
    yield _clock(connection, place, codes.clock)
    if standby:
        yield Remark(codes.primary, Level.FAIL, place, "the server is a standby", "name the primary in the dsn")
    else:
        yield Remark(codes.primary, Level.OK, place, "the server is a primary")


def _reached(connection: psycopg.Connection[Any], place: str, code: str) -> Remark:
    major = connection.info.server_version // 10_000
    row = connection.execute(
        "SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()"
    ).fetchone()
    host = connection.info.host or ""
    if not _OLDEST <= major <= _NEWEST:
        return Remark(
            code,
            Level.FAIL if major < _OLDEST else Level.WARN,
            place,
            f"PostgreSQL {major} is not among the versions that the product is tested with",
            f"use {_OLDEST} to {_NEWEST}",
        )
    if row != (True,) and not host.startswith("/"):
        return Remark(
            code, Level.WARN, place, "the connection is not encrypted", "set sslmode=verify-full in the dsn"
        )
    mode = next((option.val for option in connection.pgconn.info if option.keyword == b"sslmode"), None) or b""
    if mode != b"verify-full" and not host.startswith("/"):
        return Remark(
            code,
            Level.WARN,
            place,
            f"whoever answers is taken for the server: sslmode is {mode.decode()}",
            "set sslmode=verify-full in the dsn",
        )
    return Remark(code, Level.OK, place, f"PostgreSQL {connection.info.parameter_status('server_version')}")


def _clock(connection: psycopg.Connection[Any], place: str, code: str) -> Remark:
    asked = time.time()
    (told,) = connection.execute("SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8").fetchone() or (
        0,
    )
    answered = time.time()
    skew = told - (asked + answered) / 2
    uncertain = (answered - asked) / 2
    text = f"its clock differs from this machine's by {skew:+.3f} s (± {uncertain:.3f})"
    if abs(skew) - uncertain <= _SKEW_WARN_SECONDS:
        return Remark(code, Level.OK, place, text)
    level = Level.FAIL if abs(skew) - uncertain > _SKEW_FAIL_SECONDS else Level.WARN
    return Remark(code, level, place, text, "let NTP set both clocks; lag and RPO are told from them")
