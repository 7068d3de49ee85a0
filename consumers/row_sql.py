"""The statements that write one row, for the replay of a batch in its exact order.

A parameter here is declared to be of the column's own type, so its text goes through the type's input function and no
cast is involved. The parameters are a row's new values, then its old ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from consumers.sql_builder import changes_of
from consumers.sql_terms import (
    Target,
    assigned,
    found_by,
    image,
    image_of_texts,
    narrowed_by,
    quoted,
    typed,
)
from consumers.text_rows import TEXT_OID
from consumers.way_sql import deletions
from embassy.model.replica_table import Uniques


class RowSql(NamedTuple):
    """A statement for a row."""

    sql: str
    types: tuple[int, ...]
    """Oids of the parameters' types."""


def insert(destination: Target, columns: Sequence[int]) -> RowSql:
    """INSERT of a row."""
    if not columns:
        return RowSql(f"INSERT INTO {destination.name} DEFAULT VALUES", ())
    targets = [destination.columns[position] for position in columns]
    names = ", ".join(quoted(column.name) for column in targets)
    values = ", ".join(f"${i}" for i in range(1, len(columns) + 1))
    return RowSql(
        f"INSERT INTO {destination.name} ({names}) OVERRIDING SYSTEM VALUE VALUES ({values})",
        tuple(column.base_oid for column in targets),
    )


def update(destination: Target, columns: Sequence[int], key: Sequence[int]) -> RowSql:
    """UPDATE of a row; see `consumers.sql_builder.update`.

    A column GENERATED ALWAYS AS IDENTITY has another value only after ``SET column = DEFAULT``, which would make yet
    another one here. INSERT can say the value, so the row is taken out and put in again.

    Raises:
        IntegrityError: there is nothing to match the row by.
    """
    changes = changes_of(destination, columns, key)
    parameters = {position: f"${i}" for i, position in enumerate(columns, 1)}
    where, old_types = _conditions(destination, columns, key)
    types = (*(destination.columns[position].base_oid for position in columns), *old_types)
    values = {
        position: assigned(destination.columns[position], parameters[position], parameters[position])
        for position in (*changes.assigned, *changes.kept)
    }
    if changes.kept:
        return RowSql(_put_in_again(destination, values, where), types)
    if values:
        sets = ", ".join(
            f"{quoted(destination.columns[position].name)} = {value}" for position, value in values.items()
        )
        return RowSql(f"UPDATE ONLY {destination.name} AS t SET {sets} WHERE {where}", types)
    return RowSql(f"SELECT 1 FROM ONLY {destination.name} AS t WHERE {where}", types)


def _put_in_again(destination: Target, values: Mapping[int, str], where: str) -> str:
    """One row of the table out, and in again with new values; what was not sent is what it was."""
    named = [*enumerate(destination.columns), *((-1, column) for column in destination.others)]
    names = ", ".join(quoted(column.name) for _, column in named)
    rows = ", ".join(values.get(position, f"t.{quoted(column.name)}") for position, column in named)
    return (
        f"WITH t AS (DELETE FROM ONLY {destination.name} AS t WHERE {where} RETURNING t.*) "
        f"INSERT INTO {destination.name} ({names}) OVERRIDING SYSTEM VALUE SELECT {rows} FROM t"
    )


def out_of_the_way(
    destination: Target, uniques: Uniques, columns: Sequence[int], key: Sequence[int], *, inserts: bool
) -> list[RowSql]:
    """DELETEs of the rows that have a unique value of a row to come, with the parameters of its INSERT or UPDATE.

    Of an update that does not find its row here nothing is known to be in the way, if it does not send all of the row.
    """
    given = {destination.columns[position].name: f"${i}" for i, position in enumerate(columns, 1)}
    types = tuple(destination.columns[position].base_oid for position in columns)
    spared, source = "", ""
    if not inserts:
        spared, old_types = _conditions(destination, columns, key)
        types += old_types
        kept = [column.name for column in (*destination.columns, *destination.others) if column.name not in given]
        if kept:
            source = f" FROM ONLY {destination.name} AS t WHERE {spared}"
            given |= {name: f"t.{quoted(name)}" for name in kept}
    return [RowSql(sql, types) for sql in deletions(destination.name, uniques, given, source, spared)]


def delete(destination: Target, key: Sequence[int]) -> RowSql:
    """DELETE of a row."""
    where, types = _conditions(destination, (), key)
    return RowSql(f"DELETE FROM ONLY {destination.name} AS t WHERE {where}", types)


def _conditions(destination: Target, columns: Sequence[int], key: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """How the row is matched, and the types of the parameters behind the new values."""
    first = len(columns) + 1
    if destination.by_image:
        return _one_by_image(destination, first, key), (TEXT_OID,) * len(key)
    numbers = {position: first + i for i, position in enumerate(key)} or {
        position: i for i, position in enumerate(columns, 1)
    }
    found, _ = found_by(destination, key or destination.relation.key)
    conditions = [
        f"t.{quoted(destination.columns[column.position].name)} {column.equals} ${numbers[column.position]}"
        for column in found
    ]
    return " AND ".join(conditions), tuple(destination.columns[position].base_oid for position in key)


def _one_by_image(destination: Target, first: int, key: Sequence[int]) -> str:
    """One of the rows whose text is that of the old row; the index is asked first where there is one."""
    numbers = {position: f"${first + i}" for i, position in enumerate(key)}
    narrowing = [
        f"t.{quoted(destination.columns[column.position].name)} {column.equals} {value}"
        for column in narrowed_by(destination, key)
        if (value := typed(destination.columns[column.position], numbers[column.position])) is not None
    ]
    same = f"{image('t', [destination.columns[p] for p in key])} = {image_of_texts(list(numbers.values()))}"
    return f"t.ctid = (SELECT t.ctid FROM ONLY {destination.name} AS t WHERE {' AND '.join([*narrowing, same])} LIMIT 1)"
