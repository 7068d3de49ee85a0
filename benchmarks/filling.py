"""A register of a given size, for benchmarks that copy it (`snapshot.sql`)."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

_PERSON_BYTES, _DEED_BYTES, _ENTRY_BYTES = 640, 12_600, 125
"""About what a row takes on disk, its large values included."""
_SHARES = {"person": 0.35, "deed": 0.45, "entry": 0.2}
_COUNTIES, _OFFICES, _CLERKS = 15, 400, 6_000

_SMALL: LiteralString = """
INSERT INTO county SELECT i, 'County ' || i FROM generate_series(1, {counties}) i;
INSERT INTO office SELECT i, 1 + i % {counties}, 'Office ' || i, 'Street ' || i FROM generate_series(1, {offices}) i;
INSERT INTO clerk SELECT i, 1 + i % {offices}, 'Clerk ' || md5(i::text), i % 9 <> 0 FROM generate_series(1, {clerks}) i"""
_PERSONS: LiteralString = """
INSERT INTO person
SELECT i, lpad((i * 7919 % 100000000000)::text, 11, '3'), 'Given' || (i % 4999), 'Surname' || (i * 31 % 99991),
       CASE WHEN i % 5 = 0 THEN 'Birth' || (i % 9973) END, date '1930-01-01' + (i % 32000)::int,
       CASE WHEN i % 11 = 0 THEN date '2001-01-01' + (i % 8000)::int END, CASE WHEN i % 2 = 0 THEN 'F' ELSE 'M' END,
       'EST', 'Town ' || (i % 977), 'Street ' || (i % 3001) || ', house ' || (i % 251) || ', Tallinn',
       (10000 + i % 89999)::text, 1 + i % {counties}, i % 79, 'p' || i || '@example.org', '+372 5' || (i % 9999999),
       i % 5, i + 1, i / 2, i / 3, i % 8, 'et',
       jsonb_build_array(
         jsonb_build_object('type', 'id-card', 'no', 'AA' || lpad(i::text, 9, '0'), 'valid_to', '2031-05-01'),
         jsonb_build_object('type', 'passport', 'no', 'KB' || lpad((i * 3)::text, 9, '0'), 'valid_to', '2030-01-15')),
       i % 97 = 0, (i % 1000000) / 7.0, sha256(int8send(i)), timestamptz '2004-01-01 00:00:00+00' + i * interval '1 s',
       timestamptz '2024-01-01 00:00:00+00' + i * interval '1 s', 'import', md5(i::text) || md5((i + 1)::text)
FROM generate_series(1::bigint, {rows}) i"""
# What large values are cut from: nothing in it comes twice, and a chunk of a copy is far smaller.
_POOL: LiteralString = """
CREATE TEMPORARY TABLE pool (bytes bytea STORAGE EXTERNAL);
INSERT INTO pool SELECT string_agg(sha512(int8send(n)), '') FROM generate_series(1, 524288) n"""
# Values of about 8 kB that hardly compress, as scans and signed containers are, and a seal that does not at all.
_DEEDS: LiteralString = """
INSERT INTO deed
SELECT i, 'D-' || lpad(i::text, 10, '0'), i * 7919 % {persons} + 1, 'Deed of ' || (i % 3001),
       encode(substr(bytes, (i * 10000 % 33000000)::int + 1, 6000), 'base64'),
       substr(bytes, (i * 10000 % 33000000)::int + 6001, 3840),
       timestamptz '2004-01-01 00:00:00+00' + i * interval '7 s'
FROM generate_series(1::bigint, {rows}) i, pool"""
_ENTRIES: LiteralString = """
INSERT INTO entry
SELECT i, i * 104729 % {persons} + 1, i % 7, 'residence', 'Street ' || (i % 3001),
       'Street ' || (i * 7 % 3001) || ', Tartu', 1 + i % {clerks},
       timestamptz '2004-01-01 00:00:00+00' + i * interval '3 s'
FROM generate_series(1::bigint, {rows}) i"""


def fill(connection: psycopg.Connection[Any], megabytes: int) -> None:
    """Fill empty tables with about so much, indexes not counted; needs autocommit."""
    wanted = megabytes << 20
    rows = {
        table: max(100, int(wanted * _SHARES[table] / size))
        for table, size in (("person", _PERSON_BYTES), ("deed", _DEED_BYTES), ("entry", _ENTRY_BYTES))
    }
    counts = {"persons": rows["person"], "counties": _COUNTIES, "offices": _OFFICES, "clerks": _CLERKS}
    connection.execute(_POOL)
    connection.execute(_filled(_SMALL, counts))
    for statement, table in ((_PERSONS, "person"), (_DEEDS, "deed"), (_ENTRIES, "entry")):
        connection.execute(_filled(statement, {**counts, "rows": rows[table]}))
    connection.execute("DROP TABLE pool")
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("CHECKPOINT")


def table_megabytes(connection: psycopg.Connection[Any]) -> float:
    """What the registry's tables take on disk, large values included, indexes not; in MB of 1,000,000 bytes."""
    row = connection.execute(
        "SELECT sum(pg_table_size(c.oid))::float8 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname = 'public'"
    ).fetchone()
    return float(row[0]) / 1e6 if row else 0.0


def _filled(statement: LiteralString, numbers: dict[str, int]) -> sql.Composed:
    return sql.SQL(statement).format(**{name: sql.Literal(number) for name, number in numbers.items()})
