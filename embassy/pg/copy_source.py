"""A table at home as a copy reads it: what it is, and its rows a chunk at a time, as COPY text.

Each chunk is read in a transaction of its own, short and read-only, that has one snapshot. The table is locked first
(ACCESS SHARE): TRUNCATE and rewriting ALTER TABLE do not respect older snapshots, which then find the table empty.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import errors, generators, pq, sql, waiting

from embassy.model.errors import RefusedError
from embassy.model.lsn import Lsn
from embassy.model.relation import Column, Relation, ReplicaIdentity
from embassy.pg.connection import NO_VIEWS

_FIRST_UNSTABLE_OID = 10_000
_LOCK_SECONDS = 5

# Types whose order is the same on every server. Text sorts by its collation's library, whose versions differ.
_SAME_ORDER = (
    *("int2", "int4", "int8", "oid", "uuid", "bool", "numeric", "float4", "float8", "bytea", "bit", "varbit"),
    *("date", "time", "timetz", "timestamp", "timestamptz", "interval"),
    *("inet", "cidr", "macaddr", "macaddr8", "char", "name", "pg_lsn"),
)

_TABLE = """
SELECT c.oid::bigint, c.relreplident::text, greatest(c.reltuples, 0)::bigint,
       pg_catalog.pg_relation_size(c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind = 'r' AND c.relpersistence = 'p'"""
# A domain is described by its base type, as the stream does.
_COLUMNS = """
WITH RECURSIVE base AS (
    SELECT a.attnum, t.oid, t.typtype, t.typbasetype
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    UNION ALL
    SELECT b.attnum, t.oid, t.typtype, t.typbasetype
    FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
)
SELECT a.attnum, a.attname, a.atttypid::bigint, n.nspname || '.' || t.typname, a.atttypmod, n.nspname,
       pg_catalog.format_type(t.oid, -1),
       n.nspname = 'pg_catalog' AND (
           t.typname = ANY (%(same_order)s)
           OR t.typname IN ('text', 'varchar', 'bpchar') AND l.collname IN ('C', 'POSIX', 'ucs_basic'))
FROM pg_catalog.pg_attribute a
JOIN base b ON b.attnum = a.attnum AND b.typtype <> 'd'
JOIN pg_catalog.pg_type t ON t.oid = b.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
WHERE a.attrelid = %(table)s
ORDER BY a.attnum"""
_KEY = """
SELECT pg_catalog.array_agg(k.number ORDER BY k.position)
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL pg_catalog.unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (number, position)
WHERE i.indrelid = %(table)s AND i.indisvalid AND i.indimmediate
  AND CASE %(identity)s WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
GROUP BY i.indexrelid"""
# Whoever writes to a table holds its lock until its effects can be seen.
_WRITERS = """
SELECT DISTINCT x.transactionid::text::bigint
FROM pg_catalog.pg_locks t
JOIN pg_catalog.pg_locks x ON x.virtualtransaction = t.virtualtransaction AND x.locktype = 'transactionid' AND x.granted
     AND x.mode = 'ExclusiveLock'
WHERE t.locktype = 'relation' AND t.granted AND t.relation = %s
  AND t.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND t.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"""

_LOCK = sql.SQL(
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL lock_timeout = {}; "
    "LOCK TABLE ONLY {} IN ACCESS SHARE MODE"
)


class CopiedTable(NamedTuple):
    """A table to be copied."""

    oid: int
    relation: Relation
    """As the stream describes it."""
    key: tuple[int, ...]
    """Positions of the columns that it is walked by, in the order of their index; empty: it is read as a whole."""
    key_types: tuple[str, ...]
    """As SQL writes them."""
    same_order: bool
    """Whether every server sorts these keys alike."""
    rows_expected: int


class Range(NamedTuple):
    """A range of keys; each bound empty if there is none."""

    lower: tuple[str, ...] = ()
    lower_inclusive: bool = False
    upper: tuple[str, ...] = ()
    """Always inclusive."""
    keys: tuple[tuple[str, ...], ...] = ()
    """Only these, if there are any."""


class Moment(NamedTuple):
    """What a read sees."""

    snapshot: str
    """pg_current_snapshot()."""
    log_end: Lsn
    """Whatever is seen has its commit record before here."""


def find(connection: psycopg.Connection[Any], schema: str, name: str) -> CopiedTable | None:
    """The table, or None if there is none with rows of its own."""
    row = connection.execute(_TABLE, (schema, name)).fetchone()
    if row is None:
        return None
    oid, identity, expected, _ = row
    found = connection.execute(_KEY, {"table": oid, "identity": identity}).fetchone()
    numbers: list[int] = list(found[0]) if found else []
    columns: list[Column] = []
    positions: dict[int, int] = {}
    types: dict[int, str] = {}
    same_order = True
    walkable = bool(numbers)
    for number, column, type_oid, type_name, modifier, type_schema, sql_type, sorts in connection.execute(
        _COLUMNS, {"table": oid, "same_order": list(_SAME_ORDER)}
    ).fetchall():
        in_key = identity == "f" or number in numbers
        known = type_name if type_oid >= _FIRST_UNSTABLE_OID else ""
        positions[number] = len(columns)
        types[number] = sql_type
        columns.append(Column(column, type_oid, known, modifier, in_key))
        if number in numbers:
            same_order = same_order and sorts
            walkable = walkable and type_schema == "pg_catalog"
    if not (walkable and all(number in positions for number in numbers)):
        numbers = []
    return CopiedTable(
        oid,
        Relation(schema, name, ReplicaIdentity(identity), tuple(columns)),
        tuple(positions[number] for number in numbers),
        tuple(types[number] for number in numbers),
        same_order,
        expected,
    )


def named(connection: psycopg.Connection[Any], oid: int) -> CopiedTable | None:
    """The table of that oid, under the name that it has now; None if there is none with rows of its own."""
    row = connection.execute(
        """SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s""",
        (oid,),
    ).fetchone()
    found = None if row is None else find(connection, *row)
    return found if found is not None and found.oid == oid else None


def writers(connection: psycopg.Connection[Any], oid: int) -> frozenset[int]:
    """The transactions that have written to the table, as far as a new snapshot does not see them yet."""
    return frozenset(xid for (xid,) in connection.execute(_WRITERS, (oid,)))


@contextmanager
def reading(
    connection: psycopg.Connection[Any], schema: str, name: str, locked: Callable[[], None] = lambda: None
) -> Iterator[tuple[CopiedTable, Moment] | None]:
    """Hold one moment of a table while in the block; None if the table is gone.

    Args:
        connection: in autocommit mode.
        schema: the table's schema.
        name: its name.
        locked: called when the table is locked and the moment is yet to come.

    Raises:
        psycopg.errors.LockNotAvailable: someone alters the table.
        RefusedError: the session's role may not read it.
    """
    table = sql.Identifier(schema, name)
    connection.execute(NO_VIEWS)
    try:
        with connection.transaction():
            connection.execute(_LOCK.format(sql.Literal(f"{_LOCK_SECONDS}s"), table))
            locked()
            row = connection.execute(
                """SELECT pg_catalog.pg_current_snapshot()::text,
                          (pg_catalog.pg_current_wal_insert_lsn())::text"""
            ).fetchone()
            assert row is not None, "a query without FROM has one row"
            found = find(connection, schema, name)
            yield None if found is None else (found, Moment(row[0], Lsn.parse(row[1])))
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        yield None
    except psycopg.errors.InsufficientPrivilege as error:
        raise RefusedError(
            "the producer's role may not read the table",
            place=f"{schema}.{name}",
            hint="embassy provision apply lets it; with row security, the role needs BYPASSRLS",
        ) from error


def copy_rows(
    connection: psycopg.Connection[Any], table: CopiedTable, within: Range, limit: int | None
) -> Generator[bytes]:
    """Rows in the order of the key, as blocks of whole rows of COPY text; within `reading`.

    Closed before its end, it cancels the query, and with it the transaction.
    """
    with connection.cursor() as cursor, cursor.copy(_query(table, within, limit)):
        yield from _blocks(connection)


def _blocks(connection: psycopg.Connection[Any]) -> Iterator[bytes]:
    """What a COPY … TO STDOUT sends, as it arrives.

    Each row is a message. `psycopg.Copy` goes through a generator and a wait for each, which for narrow rows costs more
    than all else that is done to them; here that is done once for what libpq has at hand. Leaving early is left to it.
    """
    pgconn = connection.pgconn
    rows: list[memoryview] = []
    while True:
        size, row = pgconn.get_copy_data(1)
        if size > 0:
            rows.append(row)
            continue
        if size < 0:  # before the last rows are handed out: whoever leaves then must find the session at rest
            ended = connection.wait(generators.fetch_many(pgconn))[-1]
            if ended.status != pq.ExecStatus.COMMAND_OK:
                raise errors.error_from_result(ended)
        if rows:
            yield b"".join(rows)
            rows.clear()
        if size < 0:
            return
        connection.wait(_received(pgconn))


def _received(pgconn: pq.abc.PGconn) -> Generator[waiting.Wait, Any, None]:
    while not (yield waiting.Wait.R):
        pass
    pgconn.consume_input()


def _query(table: CopiedTable, within: Range, limit: int | None) -> sql.Composed:
    relation = table.relation
    conditions = [
        _bound(table, operator, bound)
        for operator, bound in (
            (">=" if within.lower_inclusive else ">", within.lower),
            ("<=", within.upper),
        )
        if bound
    ]
    if within.keys:
        keys = sql.SQL(", ").join([_values(table, key) for key in within.keys])
        conditions.append(sql.SQL("({}) IN ({})").format(_names(table), keys))
    return sql.SQL("COPY (SELECT {} FROM ONLY {}{}{}{}) TO STDOUT").format(
        sql.SQL(", ").join([sql.Identifier(column.name) for column in relation.columns]),
        sql.Identifier(relation.schema, relation.name),
        sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(conditions)) if conditions else sql.SQL(""),
        sql.SQL(" ORDER BY {}").format(_names(table)) if table.key else sql.SQL(""),
        sql.SQL(" LIMIT {}").format(sql.Literal(limit)) if limit is not None else sql.SQL(""),
    )


def _names(table: CopiedTable) -> sql.Composed:
    return sql.SQL(", ").join([sql.Identifier(table.relation.columns[i].name) for i in table.key])


def _bound(table: CopiedTable, operator: LiteralString, bound: Sequence[str]) -> sql.Composed:
    return sql.SQL("({}) {} {}").format(_names(table), sql.SQL(operator), _values(table, bound))


def _values(table: CopiedTable, bound: Sequence[str]) -> sql.Composed:
    if len(bound) != len(table.key):
        raise RefusedError(
            f"a bound of {len(bound)} values, and the key has {len(table.key)} columns",
            place=str(table.relation),
            hint="ask for the copy again",
        )
    values = [
        sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(type_name))
        for value, type_name in zip(bound, table.key_types, strict=True)
    ]
    return sql.SQL("({})").format(sql.SQL(", ").join(values))
