"""Which copies are wanted at home, and how far each is: tables embassy.table_copy and embassy.copy_place."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import psycopg

from embassy.model.errors import RefusedError
from embassy.pg.catalog import brief
from embassy.pg.presence import has_table

MOVED = "its key changed while its table was copied"
"""Why single rows are asked for by the producer itself."""

LACKS_KEY = "reason LIKE 'waits for a key%' AND reason NOT LIKE '%begun anew%'"
"""Of a copy in ``embassy.table_copy``, on either side: home keeps the table out of the stream until it has a key."""

UNFINISHED = """
SELECT c.copy, c.schema_name, c.table_name, c.from_key, c.to_key, coalesce(p.ahead_key, p.sure_key), c.rows_copied,
       c.bytes_copied, c.reason, t.relation::bigint, t.walk, t.round, pg_catalog.to_jsonb(t) -> 'keys'
FROM embassy.table_copy c JOIN embassy.copied_table t ON t.copy = c.copy
LEFT JOIN embassy.copy_place p ON p.copy = c.copy
WHERE c.state <> 'done' AND NOT embassy.breaks_updates(t.relation) ORDER BY c.copy"""
# Of a table that is kept out of the stream until it has a key, nothing is copied before. Where an earlier version has
# provisioned, there is no column of keys.


AWAITED = """
SELECT a.schema_name, a.table_name FROM embassy.awaited_copy a WHERE NOT EXISTS (
    SELECT FROM embassy.table_copy c
    WHERE (c.schema_name, c.table_name) = (a.schema_name, a.table_name) AND c.from_key IS NULL AND c.to_key IS NULL
      AND c.state = 'done' AND c.copy > a.after_copy)
ORDER BY 1, 2"""
"""Tables of a replica whose rows an operator, or a failback, knows to be missing, until a whole copy has come."""

_LEAVES = """
SELECT n.nspname, c.relname
FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
CROSS JOIN LATERAL (SELECT r.oid UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree(r.oid) t) l (oid)
JOIN pg_catalog.pg_class c ON c.oid = l.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE rn.nspname = %s AND r.relname = %s AND c.relkind = 'r' AND c.relpersistence = 'p' ORDER BY 1, 2"""


class WantedCopy(NamedTuple):
    """A copy that is not finished."""

    copy: int
    schema: str
    name: str
    from_key: tuple[str, ...]
    to_key: tuple[str, ...]
    at: tuple[str, ...]
    """Everything up to this key is in the stream; empty: nothing yet."""
    rows: int
    bytes: int
    moved: bool
    """Whether it is of a single row whose key has changed."""
    oid: int
    """The table's, whatever its name is."""
    walk: str
    """See `walk`."""
    round: int
    """How often it has begun: a table whose key is changed meanwhile is copied from its first row."""
    keys: tuple[tuple[str, ...], ...] = ()
    """Only these rows, between the first key and the last; empty: all that are."""

    @property
    def whole(self) -> bool:
        """Whether it is of all rows."""
        return not (self.from_key or self.to_key)


class CopyNote(NamedTuple):
    """How far a copy has come."""

    ahead_key: tuple[str, ...]
    ahead_sequence: int
    """Of the record that brought everything up to that key."""
    rows: int
    bytes: int
    rows_expected: int
    done: bool
    round: int
    """Of the copy: see `WantedCopy`."""


def unfinished(connection: psycopg.Connection[Any]) -> list[WantedCopy]:
    """The copies that are not done, oldest first; none where the product is not provisioned for them."""
    if not has_table(connection, "embassy.copied_table"):
        return []
    return [
        WantedCopy(
            copy,
            schema,
            name,
            tuple(from_key or ()),
            tuple(to_key or ()),
            tuple(at or ()),
            rows,
            size,
            reason == MOVED and from_key == to_key,
            oid,
            walked,
            begun,
            tuple(tuple(key) for key in keys or ()),
        )
        for copy, schema, name, from_key, to_key, at, rows, size, reason, oid, walked, begun, keys in (
            connection.execute(UNFINISHED)
        )
    ]


def follow(connection: psycopg.Connection[Any]) -> None:
    """Let unfinished copies become what their tables have become: renamed, over, or begun anew."""
    if has_table(connection, "embassy.copied_table"):
        connection.execute("SELECT embassy.follow_copies()")


def walk(connection: psycopg.Connection[Any], oid: int) -> str:
    """By what a table is walked now; places in it are worth something only as long as that stays."""
    row = connection.execute("SELECT coalesce(embassy.copy_walk(%s), '')", (oid,)).fetchone()
    return "" if row is None else str(row[0])


def request(
    connection: psycopg.Connection[Any],
    schema: str,
    name: str,
    from_key: list[str] | None = None,
    to_key: list[str] | None = None,
    *,
    reason: str,
) -> int:
    """Ask for a copy; returns its number."""
    row = connection.execute(
        "SELECT embassy.request_copy(%s, %s, %s, %s, %s)", (schema, name, from_key, to_key, reason)
    ).fetchone()
    assert row is not None, "the function returns the number"
    return int(row[0])


def adopt(connection: psycopg.Connection[Any], mine: bytes, before: bytes, sequence: int) -> None:
    """Take over the copies: from now on only what this incarnation notes counts.

    Args:
        connection: to the source.
        mine: the incarnation that begins.
        before: the one that it continues.
        sequence: of the last record of that one that is in the topic.
    """
    if has_table(connection, "embassy.copy_place"):
        connection.execute("SELECT embassy.adopt_copies(%s, %s, %s)", (mine, before, sequence))


def number_on(connection: psycopg.Connection[Any]) -> None:
    """Let the next copy's number be higher than any that is there: this database has numbers of another one."""
    connection.execute(
        """SELECT pg_catalog.setval(s, greatest((SELECT max(copy) FROM embassy.table_copy),
                                                pg_catalog.pg_sequence_last_value(s), 1))
           FROM pg_catalog.to_regclass(pg_catalog.pg_get_serial_sequence('embassy.table_copy', 'copy')) s"""
    )


def note(connection: psycopg.Connection[Any], mine: bytes, copy: int, noted: CopyNote) -> bool | None:
    """Note what the topic has acknowledged.

    Returns:
        False if another producer has taken over, None if the copy has ended or was begun anew meanwhile.
    """
    row = connection.execute(
        "SELECT embassy.note_copy(%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            mine,
            copy,
            noted.round,
            list(noted.ahead_key),
            noted.ahead_sequence,
            noted.rows,
            noted.bytes,
            noted.rows_expected,
            noted.done,
        ),
    ).fetchone()
    return None if row is None else row[0]


def make_sure(connection: psycopg.Connection[Any], mine: bytes, copy: int, noted: CopyNote) -> bool | None:
    """Note what is in the topic for good; returns what `note` does."""
    row = connection.execute(
        "SELECT embassy.confirm_copy(%s, %s, %s, %s, %s, %s, %s)",
        (mine, copy, noted.round, list(noted.ahead_key), noted.rows, noted.bytes, noted.done),
    ).fetchone()
    return None if row is None else row[0]


class CopyState(NamedTuple):
    """A copy as whoever waits for it sees it."""

    state: str
    rows: int
    bytes: int
    rows_expected: int | None


def state(connection: psycopg.Connection[Any], copy: int) -> CopyState | None:
    """A copy by its number; None if there is none."""
    row = connection.execute(
        "SELECT state, rows_copied, bytes_copied, rows_expected FROM embassy.table_copy WHERE copy = %s", (copy,)
    ).fetchone()
    return None if row is None else CopyState(*row)


def table_and_leaves(connection: psycopg.Connection[Any], name: str) -> list[tuple[str, str]]:
    """The tables that hold the rows of one, by its name as SQL writes it (``public`` if it names no schema).

    Raises:
        RefusedError: there is no such table, or not of the registry.
    """
    parts = connection.execute("SELECT pg_catalog.parse_ident(%s)", (name,)).fetchone()
    schema, table = (["public", *parts[0]] if parts else [])[-2:]
    found = connection.execute(_LEAVES, (schema, table)).fetchall()
    if not found or schema == "embassy":
        known = [".".join(of) for of in registry_tables(connection)]
        elsewhere = [of for of in known if of.endswith(f".{table}")]
        near = elsewhere or difflib.get_close_matches(f"{schema}.{table}", known, n=1)
        raise RefusedError(
            f"there is no table {schema}.{table} whose rows are replicated"
            + (f", did you mean {' or '.join(near)}?" if near else ""),
            hint="name it as SQL does: schema.table, with double quotes where they are needed; the registry has "
            + (brief(known) or "no table"),
        )
    return [(of, leaf) for of, leaf in found]


def registry_tables(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Every table of the registry that holds rows and is replicated: schema and name."""
    return connection.execute(
        """SELECT n.nspname, c.relname
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('information_schema', 'embassy')
             AND n.nspname !~ '^pg_'
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                             WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                               AND d.deptype = 'e')
           ORDER BY 1, 2"""
    ).fetchall()


def await_copy(connection: psycopg.Connection[Any], schema: str, name: str) -> None:
    """In a replica: let changes of a table miss rows until a whole copy of it has come."""
    connection.execute(
        """INSERT INTO embassy.awaited_copy AS a (schema_name, table_name, after_copy)
           VALUES (%(schema)s, %(name)s, coalesce((
               SELECT max(copy) FROM embassy.table_copy
               WHERE (schema_name, table_name, state) = (%(schema)s, %(name)s, 'done')
                 AND from_key IS NULL AND to_key IS NULL), 0))
           ON CONFLICT (schema_name, table_name) DO UPDATE
           SET (after_copy, awaited_since, awaited_by) = (
               excluded.after_copy, excluded.awaited_since, excluded.awaited_by)""",
        {"schema": schema, "name": name},
    )


def awaited(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """In a replica: the tables that still wait for rows, by their schema and name."""
    return connection.execute(AWAITED).fetchall()


def await_no_more(connection: psycopg.Connection[Any]) -> None:
    """In a replica, or what was one: note that every table is whole."""
    if has_table(connection, "embassy.awaited_copy"):
        connection.execute("DELETE FROM embassy.awaited_copy")
