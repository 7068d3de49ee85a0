"""Comparing two databases table by table, by what their rows look like as text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from deploy.workload.registry import Connection

_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "client_encoding": "UTF8",
    "search_path": "",
    "row_security": "off",  # a role that may not see every row gets an error, not a smaller table
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_BUCKETS = 4096
_DIFFERENCES = 5
_BUCKET_ROWS = 20_000
_SHOWN_CHARACTERS = 2_000

_TABLES = """
    SELECT n.nspname, c.relname,
           array_agg(a.attname::text ORDER BY a.attname) FILTER (WHERE a.attname IS NOT NULL)
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind = 'r' AND c.relpersistence = 'p'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'embassy') AND n.nspname !~ '^pg_toast'
    GROUP BY n.nspname, c.relname"""
_SEQUENCES = """
    SELECT schemaname, sequencename, last_value FROM pg_catalog.pg_sequences WHERE schemaname <> 'embassy'"""


class _Table(NamedTuple):
    schema: str
    name: str

    def __str__(self) -> str:
        return sql.Identifier(self.schema, self.name).as_string()


class _Digest(NamedTuple):
    rows: int
    total: Decimal
    """Sum of the rows' 64-bit hashes: the order of rows does not matter, how often each occurs does."""


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A row that one side has more often than the other."""

    side: str
    """``source`` or ``replica``."""
    row: str
    """The row as text, its columns in order of their names, cut off after 2,000 characters."""


@dataclass(frozen=True, slots=True)
class TableComparison:
    """One table on both sides; None rows where it does not exist."""

    table: str
    source_rows: int | None
    replica_rows: int | None
    equal: bool
    first_differences: tuple[RowDifference, ...] = ()
    note: str = ""
    """Why they differ, where it is not the rows."""


@dataclass(frozen=True, slots=True)
class SequenceComparison:
    """The last value of one sequence on both sides; None where it was never used or does not exist.

    Sequences may differ while all is well: logical decoding leaves them out until a promotion sets them.
    """

    sequence: str
    source_value: int | None
    replica_value: int | None


def compare_tables(source_dsn: str, replica_dsn: str) -> list[TableComparison]:
    """Compare all ordinary tables and partitions outside the system's schemas and ``embassy``, in order of their names.

    Each side is read in one snapshot. Rows are equal when their texts are, whatever ``=`` says of their types.

    Raises:
        psycopg.Error: a side is unreachable, or its role may not read every row.
    """
    with _open(source_dsn) as source, _open(replica_dsn) as replica:
        ours, theirs = _tables(source), _tables(replica)
        return [
            _compare(source, replica, table, ours.get(table), theirs.get(table)) for table in sorted(ours | theirs)
        ]


def compare_sequences(source_dsn: str, replica_dsn: str) -> list[SequenceComparison]:
    """Report where each sequence stands on both sides.

    Raises:
        psycopg.Error: a side is unreachable.
    """
    values = []
    for dsn in (source_dsn, replica_dsn):
        with _open(dsn) as connection:
            rows = connection.execute(_SEQUENCES).fetchall()
            values.append({_Table(schema, name): value for schema, name, value in rows})
    ours, theirs = values
    return [SequenceComparison(str(name), ours.get(name), theirs.get(name)) for name in sorted(ours | theirs)]


def _open(dsn: str) -> Connection:
    connection = psycopg.connect(dsn, application_name="embassy comparison", connect_timeout=10)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    for name, value in _SETTINGS.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
    connection.commit()
    return connection


def _tables(connection: Connection) -> dict[_Table, tuple[str, ...]]:
    rows = connection.execute(_TABLES).fetchall()
    return {_Table(schema, name): tuple(columns or ()) for schema, name, columns in rows}


def _compare(
    source: Connection,
    replica: Connection,
    table: _Table,
    ours: tuple[str, ...] | None,
    theirs: tuple[str, ...] | None,
) -> TableComparison:
    if ours is None or theirs is None:
        return TableComparison(
            str(table),
            None if ours is None else _digest(source, table, ours).rows,
            None if theirs is None else _digest(replica, table, theirs).rows,
            equal=False,
            note="only on the replica" if ours is None else "only on the source",
        )
    our_digest, their_digest = _digest(source, table, ours), _digest(replica, table, theirs)
    if ours != theirs:
        odd = ", ".join(sorted(set(ours) ^ set(theirs)))
        return TableComparison(
            str(table), our_digest.rows, their_digest.rows, equal=False, note=f"columns on one side only: {odd}"
        )
    equal = our_digest == their_digest
    differences = () if equal else tuple(islice(_differences(source, replica, table, ours), _DIFFERENCES))
    return TableComparison(str(table), our_digest.rows, their_digest.rows, equal, differences)


def _row_text(columns: tuple[str, ...]) -> sql.Composable:
    """Return the expression for a row's text; by column name, since a replica's columns may stand in another order."""
    fields = sql.SQL(", ").join(sql.Identifier("t", column) for column in columns)
    return sql.SQL('(ROW({})::text COLLATE pg_catalog."C")').format(fields)


def _digest(connection: Connection, table: _Table, columns: tuple[str, ...]) -> _Digest:
    query = sql.SQL(
        "SELECT count(*), coalesce(sum(pg_catalog.hashtextextended({}, 0)::numeric), 0) FROM ONLY {} AS t"
    ).format(_row_text(columns), sql.Identifier(*table))
    (digest,) = connection.execute(query).fetchall()
    return _Digest(*digest)


def _differences(
    source: Connection, replica: Connection, table: _Table, columns: tuple[str, ...]
) -> Iterator[RowDifference]:
    """Yield rows that differ, holding no more than two buckets of each side in memory."""
    ours, theirs = _buckets(source, table, columns), _buckets(replica, table, columns)
    for bucket in sorted(ours.keys() | theirs.keys()):
        if ours.get(bucket) == theirs.get(bucket):
            continue
        our_rows, their_rows = (_bucket(side, table, columns, bucket) for side in (source, replica))
        for side, surplus in (("source", our_rows - their_rows), ("replica", their_rows - our_rows)):
            for (_, text), count in sorted(surplus.items()):
                yield from (RowDifference(side, text) for _ in range(count))


def _buckets(connection: Connection, table: _Table, columns: tuple[str, ...]) -> dict[int, _Digest]:
    query = sql.SQL(
        """
        SELECT h & {}, count(*), sum(h::numeric)
        FROM (SELECT pg_catalog.hashtextextended({}, 0) AS h FROM ONLY {} AS t) AS hashed GROUP BY 1"""
    ).format(sql.Literal(_BUCKETS - 1), _row_text(columns), sql.Identifier(*table))
    return {bucket: _Digest(rows, total) for bucket, rows, total in connection.execute(query)}


def _bucket(
    connection: Connection, table: _Table, columns: tuple[str, ...], bucket: int
) -> Counter[tuple[int, str]]:
    query = sql.SQL(
        """
        SELECT h, left(r, {shown}) FROM (
            SELECT pg_catalog.hashtextextended({row}, 0) AS h, {row} AS r FROM ONLY {table} AS t) AS hashed
        WHERE h & {mask} = {bucket} ORDER BY h LIMIT {limit}"""
    ).format(
        shown=sql.Literal(_SHOWN_CHARACTERS),
        row=_row_text(columns),
        table=sql.Identifier(*table),
        mask=sql.Literal(_BUCKETS - 1),
        bucket=sql.Literal(bucket),
        limit=sql.Literal(_BUCKET_ROWS),
    )
    return Counter((row_hash, text) for row_hash, text in connection.execute(query))
