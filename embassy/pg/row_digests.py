"""Rows as keys and digests: the statements are the same at home and in the replica, so that equal rows look equal.

A row's digest is SHA-256 of its text (`embassy.model.row_text`). Values are texts of their types' output functions
under the sessions' pinned settings, by ``format``, which takes no cast that someone may have declared. Generated
columns are left out, as they are in the stream. Rows are ordered and compared by the operators of the key's index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from embassy.model.verification import Key
from embassy.model.visibility import Visibility
from embassy.pg.digested_table import DigestedTable, KeyColumn

_ARGUMENTS_MOST = 90
"""A function takes a hundred."""
_LISTED_MOST = 100


class Row(NamedTuple):
    """One row."""

    key: Key
    digest: bytes
    version: str
    """Another one once the row was written again; of no meaning elsewhere."""


class Range(NamedTuple):
    """The rows behind one key, up to another one and with it; None: without an end."""

    after: Key | None = None
    until: Key | None = None


def current_snapshot(connection: psycopg.Connection[Any]) -> Visibility:
    """What a statement sees now."""
    row = connection.execute("SELECT pg_catalog.pg_current_snapshot()::text").fetchone()
    assert row is not None, "a query without FROM has one row"
    return Visibility.parse(row[0])


@contextmanager
def one_snapshot(connection: psycopg.Connection[Any]) -> Iterator[Visibility]:
    """Inside the context, which is a transaction that only reads, every statement sees the snapshot that is given."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    try:
        yield current_snapshot(connection)
    finally:
        connection.execute("ROLLBACK")


def page(
    connection: psycopg.Connection[Any], table: DigestedTable, within: Range, limit: int | None = None
) -> list[Row]:
    """Rows of a range in the order of their keys, at most ``limit``."""
    order = sql.SQL(", ").join(
        sql.SQL("t.{} USING {}").format(sql.Identifier(column.name), _operator(column.below))
        for column in table.key
    )
    statement = sql.SQL("SELECT {}, t.xmin, {} FROM {} AS t WHERE {} ORDER BY {}{}").format(
        _digest(table), _key_columns(table), _source(table), _where(table, within), order, _limit(limit)
    )
    return list(_rows(connection.execute(statement)))


def boundary(
    connection: psycopg.Connection[Any], table: DigestedTable, after: Key | None, rows: int
) -> Key | None:
    """The key of the last of so many rows behind a key; None if there are not so many."""
    order = sql.SQL(", ").join(
        sql.SQL("t.{} USING {}").format(sql.Identifier(column.name), _operator(column.below))
        for column in table.key
    )
    statement = sql.SQL("SELECT '', '', {} FROM {} AS t WHERE {} ORDER BY {} LIMIT 1 OFFSET {}").format(
        _key_columns(table), _source(table), _where(table, Range(after)), order, sql.Literal(rows - 1)
    )
    result = connection.execute(statement).pgresult
    return _key(result, 0, len(table.key)) if result is not None and result.ntuples else None


def range_rows(connection: psycopg.Connection[Any], table: DigestedTable, within: Range) -> list[Row]:
    """Rows of a range, in no order."""
    statement = sql.SQL("SELECT {}, t.xmin, {} FROM {} AS t WHERE {}").format(
        _digest(table), _key_columns(table), _source(table), _where(table, within)
    )
    return list(_rows(connection.execute(statement)))


def range_sum(connection: psycopg.Connection[Any], table: DigestedTable, within: Range) -> tuple[int, bytes]:
    """How many rows a range has, and the sum of their digests."""
    return _sum(connection, table, _where(table, within))


def listed_rows(connection: psycopg.Connection[Any], table: DigestedTable, keys: Sequence[Key]) -> list[Row]:
    """Those of the rows listed that are there."""
    found: list[Row] = []
    for start in range(0, len(keys), _LISTED_MOST):
        # one branch a key: each finds its row by the index, whatever the planner thinks of the table
        statement = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}, t.xmin, {} FROM {} AS t WHERE {}").format(
                _digest(table), _key_columns(table), _source(table), _equal(table, key)
            )
            for key in keys[start : start + _LISTED_MOST]
        )
        found += _rows(connection.execute(statement))
    return found


def in_order(connection: psycopg.Connection[Any], table: DigestedTable, keys: Sequence[Key]) -> list[Key]:
    """Keys in the order of the table's key."""
    if not keys:
        return []
    values = sql.SQL(", ").join(
        sql.SQL("({}, {})").format(
            sql.Literal(number),
            sql.SQL(", ").join(_value(column, value) for column, value in zip(table.key, key, strict=True)),
        )
        for number, key in enumerate(keys)
    )
    names = sql.SQL(", ").join(sql.Identifier(f"k{i}") for i in range(len(table.key)))
    order = sql.SQL(", ").join(
        sql.SQL("{}{} USING {}").format(sql.Identifier(f"k{i}"), _collate(column), _operator(column.below))
        for i, column in enumerate(table.key)
    )
    statement = sql.SQL("SELECT number FROM (VALUES {}) AS v (number, {}) ORDER BY {}").format(
        values, names, order
    )
    return [keys[number] for (number,) in connection.execute(statement)]


def bag_rows(
    connection: psycopg.Connection[Any], table: DigestedTable, first_byte: tuple[int, int] = (0, 256)
) -> Iterator[bytes]:
    """The digests of all rows whose digest begins with a byte of a range; for tables without a key."""
    statement = sql.SQL("SELECT d FROM (SELECT {} AS d FROM {} AS t) AS rows WHERE {}").format(
        _digest(table), _source(table), _first_byte(first_byte)
    )
    with connection.cursor("embassy_rows", withhold=False) as cursor:
        cursor.itersize = 20_000
        cursor.execute(statement)
        for (digest,) in cursor:
            yield bytes(digest)


def bag_sum(
    connection: psycopg.Connection[Any], table: DigestedTable, first_byte: tuple[int, int]
) -> tuple[int, bytes]:
    """How many rows those are, and the sum of their digests."""
    return _sum(connection, table, None, first_byte)


def _sum(
    connection: psycopg.Connection[Any],
    table: DigestedTable,
    where: sql.Composable | None,
    first_byte: tuple[int, int] = (0, 256),
) -> tuple[int, bytes]:
    statement = sql.SQL(
        "SELECT pg_catalog.count(*), pg_catalog.sha256(coalesce(pg_catalog.string_agg(d, ''::bytea ORDER BY d), ''))"
        " FROM (SELECT {} AS d FROM {} AS t WHERE {}) AS rows WHERE {}"
    ).format(_digest(table), _source(table), where or sql.SQL("true"), _first_byte(first_byte))
    row = connection.execute(statement).fetchone()
    assert row is not None, "an aggregate has one row"
    return int(row[0]), bytes(row[1])


def _first_byte(wanted: tuple[int, int]) -> sql.Composable:
    if wanted == (0, 256):
        return sql.SQL("true")
    return sql.SQL("pg_catalog.get_byte(d, 0) >= {} AND pg_catalog.get_byte(d, 0) < {}").format(
        sql.Literal(wanted[0]), sql.Literal(wanted[1])
    )


def _rows(cursor: psycopg.Cursor[Any]) -> Iterator[Row]:
    result = cursor.pgresult
    assert result is not None, "a query has a result"
    keys = result.nfields - 2
    for number in range(result.ntuples):
        digest = (result.get_value(number, 0) or b"").decode().removeprefix("\\x")
        version = (result.get_value(number, 1) or b"").decode()
        yield Row(_key(result, number, keys), bytes.fromhex(digest), version)


def _key(result: Any, number: int, columns: int) -> Key:
    # the bytes are what the type's output function made, as in the stream
    return tuple((result.get_value(number, 2 + i) or b"").decode() for i in range(columns))


def _digest(table: DigestedTable) -> sql.Composable:
    texts = []
    for start in range(0, len(table.columns), _ARGUMENTS_MOST):
        names = table.columns[start : start + _ARGUMENTS_MOST]
        texts.append(
            sql.SQL("pg_catalog.format({}, {})").format(
                sql.Literal(" ".join(["%L"] * len(names))),
                sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in names),
            )
        )
    text = sql.SQL(" || ' ' || ").join(texts) if texts else sql.SQL("''")
    return sql.SQL("pg_catalog.sha256(pg_catalog.convert_to({}, 'UTF8'))").format(text)


def _where(table: DigestedTable, within: Range) -> sql.Composable:
    parts: list[sql.Composable] = []
    if within.after is not None:
        parts.append(_above(table, within.after))
    if within.until is not None:
        up_to = {column.up_to for column in table.key}
        below = sql.SQL("NOT ({})").format(_above(table, within.until))
        parts.append(_whole(table, up_to.pop(), within.until) if len(up_to) == 1 else below)
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true")


def _above(table: DigestedTable, key: Key) -> sql.Composable:
    """Whether a row stands behind a key; as one comparison of rows it lets an index go to the place."""
    above = {column.above for column in table.key}
    if len(above) == 1:
        return _whole(table, above.pop(), key)
    cases = []
    for number, column in enumerate(table.key):
        same = [_one(before, before.equals, value) for before, value in zip(table.key[:number], key, strict=False)]
        cases.append(
            sql.SQL("({})").format(sql.SQL(" AND ").join([*same, _one(column, column.above, key[number])]))
        )
    return sql.SQL("({})").format(sql.SQL(" OR ").join(cases))


def _equal(table: DigestedTable, key: Key) -> sql.Composable:
    return sql.SQL(" AND ").join(
        _one(column, column.equals, value) for column, value in zip(table.key, key, strict=True)
    )


def _whole(table: DigestedTable, operator: tuple[str, str], key: Key) -> sql.Composable:
    names = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(column.name)) for column in table.key)
    values = sql.SQL(", ").join(_value(column, value) for column, value in zip(table.key, key, strict=True))
    return sql.SQL("({}) {} ({})").format(names, _operator(operator), values)


def _one(column: KeyColumn, operator: tuple[str, str], value: str) -> sql.Composable:
    return sql.SQL("t.{} {} {}").format(sql.Identifier(column.name), _operator(operator), _value(column, value))


def _value(column: KeyColumn, value: str) -> sql.Composable:
    # a literal of no type yet is read by the type's input function, not by a cast
    return sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(column.type_name))


def _operator(operator: tuple[str, str]) -> sql.Composable:
    schema, name = operator
    return sql.SQL("OPERATOR({}.{})").format(sql.Identifier(schema), sql.SQL(name))


def _collate(column: KeyColumn) -> sql.Composable:
    return sql.SQL(f" COLLATE {column.collate}" if column.collate else "")


def _key_columns(table: DigestedTable) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(column.name)) for column in table.key)


def _source(table: DigestedTable) -> sql.Composable:
    if table.read_from:
        return sql.SQL("({})").format(sql.SQL(table.read_from))
    return sql.SQL("ONLY {}").format(sql.Identifier(*table.table))


def _limit(limit: int | None) -> sql.Composable:
    return sql.SQL("") if limit is None else sql.SQL(" LIMIT {}").format(sql.Literal(limit))
