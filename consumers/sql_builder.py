"""The statements that write a whole segment to the replica's table. Pure: strings from facts.

Each takes one ``text[]`` a column. A text becomes a value of the column's type by the type's own input function, as in
COPY: ``text::type`` does so where no cast is declared; where one is, it would run instead, and a way around it is
taken (`consumers.sql_terms.typed`). Lengths and precisions are left to the assignment, which refuses what does not
fit; an explicit cast would cut it off.

Rows are found by the replica identity's columns, with the operators of the index that finds them; or, under REPLICA
IDENTITY FULL, by the *image*, the text output of the whole row (``=`` calls rows equal that are not), one each.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

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
from embassy.model.errors import IntegrityError


class Access(Enum):
    """How the planner has to find a segment's rows."""

    BY_COLUMN = "each by an index that begins with the only column of its key"
    BY_KEY = "each by an index"
    BY_INDEX_AND_IMAGE = "each by an index and its image"
    BY_SCAN = "all in one scan"


class SegmentSql(NamedTuple):
    """A statement for a segment: its parameters are the segment's ``values`` and then its ``old``, as arrays.

    The number of rows that it reports must be the segment's.
    """

    sql: str
    access: Access


def copy(destination: Target, columns: Sequence[int]) -> str:
    """COPY for the rows of an insert segment; unlike INSERT it takes values of identity columns as they are."""
    names = ", ".join(quoted(destination.columns[position].name) for position in columns)
    return f"COPY {destination.name} ({names}) FROM STDIN" if names else f"COPY {destination.name} FROM STDIN"


def truncate(destinations: Sequence[Target], *, restart_identity: bool) -> str:
    """TRUNCATE of exactly these tables; what the source's CASCADE reached is among them."""
    tables = ", ".join(f"ONLY {destination.name}" for destination in destinations)
    return f"TRUNCATE {tables} {'RESTART' if restart_identity else 'CONTINUE'} IDENTITY"


def update(destination: Target, columns: Sequence[int], key: Sequence[int]) -> SegmentSql | None:
    """UPDATE for a segment, or None if its rows can only be written one by one.

    Args:
        destination: the table.
        columns: positions of the new values.
        key: positions of the old values; empty if rows are matched by the new values of the key.

    Raises:
        IntegrityError: the segment has nothing to match rows by.
    """
    changes = changes_of(destination, columns, key)
    sets = [_set(destination, position, f"v.c{position}") for position in changes.assigned]
    checks = [unchanged(destination, position, f"v.c{position}") for position in changes.kept]
    rows = _by_image(destination, columns, key) if destination.by_image else _by_key(destination, columns, key)
    if rows is None or None in sets:
        return None
    where = " AND ".join([*rows.conditions, *checks])
    if sets:
        settings = ", ".join(text for text in sets if text)
        statement = (
            f"{rows.before}UPDATE ONLY {destination.name} AS t SET {settings} FROM {rows.source} WHERE {where}"
        )
    else:
        statement = f"{rows.before}SELECT 1 FROM ONLY {destination.name} AS t, {rows.source} WHERE {where}"
    return SegmentSql(statement, rows.access)


def delete(destination: Target, key: Sequence[int]) -> SegmentSql | None:
    """DELETE for a segment, or None if its rows can only be deleted one by one."""
    if destination.by_image and not key:
        return None  # a table without columns
    rows = _by_image(destination, (), key) if destination.by_image else _by_key(destination, (), key)
    if rows is None:
        return None
    where = " AND ".join(rows.conditions)
    return SegmentSql(
        f"{rows.before}DELETE FROM ONLY {destination.name} AS t USING {rows.source} WHERE {where}", rows.access
    )


def counted(statement: str, parameter: int) -> str:
    """A statement for a segment that fails (22012) unless it reports as many rows as a parameter of this number says.

    So what travels behind it in the same exchange is not executed then.
    """
    return f"WITH done AS ({statement} RETURNING 1) SELECT 1 / (count(*) = ${parameter})::integer FROM done"


class Changes(NamedTuple):
    """What an update does to the columns whose new values were sent, by position."""

    assigned: tuple[int, ...]
    kept: tuple[int, ...]
    """Cannot be assigned (GENERATED ALWAYS AS IDENTITY): as a rule they are what the replica has."""


def changes_of(destination: Target, columns: Sequence[int], key: Sequence[int]) -> Changes:
    """Sort an update's columns. Those that the row is matched by, being equal to the byte, are not written.

    Raises:
        IntegrityError: neither old values nor the new values of the key were sent.
    """
    relation = destination.relation
    matched = () if key else relation.key
    if not (key or (matched and set(matched) <= set(columns))) or (destination.by_image and not key):
        raise IntegrityError(
            "an update came without the values that its row is matched by",
            place=str(relation),
            hint="the producer and this consumer are of different versions, or the producer is at fault",
        )
    always = {position for position in columns if destination.columns[position].identity_always}
    others = [position for position in columns if position not in matched]
    return Changes(
        tuple(position for position in others if position not in always),
        tuple(position for position in others if position in always),
    )


def unchanged(destination: Target, position: int, text: str) -> str:
    """That an identity column is what the update says it is."""
    column = destination.columns[position]
    return f"t.{quoted(column.name)} OPERATOR(pg_catalog.=) {text}::{column.base_name}"


class _Rows(NamedTuple):
    """The segment's rows as ``v``, and how the table's rows ``t`` are matched with them."""

    before: str
    source: str
    conditions: list[str]
    access: Access


def _by_key(destination: Target, columns: Sequence[int], key: Sequence[int]) -> _Rows | None:
    """Match by key columns.

    The keys are computed below an OFFSET 0, through which the planner does not look: an input function that is
    declared volatile, as the default is, would otherwise keep it from using the index. Rows that an index finds come
    in the order of their keys' bytes: what lies side by side is then found in pages that were touched a moment ago.
    """
    found, indexed = found_by(destination, key or destination.relation.key)
    prefix = "o" if key else "c"
    keys = [typed(destination.columns[column.position], f"{prefix}{column.position}") for column in found]
    if None in keys:
        return None
    names = [*(f"c{position}" for position in columns), *(f"o{position}" for position in key)]
    selected = ", ".join([*(f"{text} AS k{i}" for i, text in enumerate(keys)), *(f"c{p}" for p in columns)])
    conditions = [
        f"t.{quoted(destination.columns[column.position].name)} {column.equals} v.k{i}"
        for i, column in enumerate(found)
    ]
    order = ", ".join(f'{prefix}{column.position} COLLATE pg_catalog."C"' for column in found)
    source = f"(SELECT {selected} FROM {_columns(names)}{f' ORDER BY {order}' if indexed else ''} OFFSET 0) AS v"
    access = (Access.BY_COLUMN if len(found) == 1 else Access.BY_KEY) if indexed else Access.BY_SCAN
    return _Rows("", source, conditions, access)


def _by_image(destination: Target, columns: Sequence[int], key: Sequence[int]) -> _Rows:
    """Match by the text of the whole row, one row each.

    ``r`` numbers the segment's rows of one image, ``m`` the table's, so that equal rows pair one to one. A FULL JOIN can
    only be hashed or merged; with any other the planner could choose to compare each with each. What it lets in beyond
    the pairs, WHERE keeps out.
    """
    olds = [f"o{position}" for position in key]
    names = [*(f"c{position}" for position in columns), *olds]
    theirs = image("t", [destination.columns[position] for position in key])
    rank = "pg_catalog.row_number() OVER (PARTITION BY i.image ORDER BY t.ctid) AS n"
    narrowing = narrowed_by(destination, key)
    keys = [typed(destination.columns[column.position], f"o{column.position}") for column in narrowing]
    if narrowing and None not in keys:
        selected = ", ".join(f"{text} AS k{i}" for i, text in enumerate(keys))
        same = " AND ".join(
            f"t.{quoted(destination.columns[column.position].name)} {column.equals} i.k{i}"
            for i, column in enumerate(narrowing)
        )
        matches = (
            f"SELECT t.ctid, i.image, {rank} FROM (SELECT image, {selected} FROM r WHERE n = 1 OFFSET 0) AS i "
            f"CROSS JOIN LATERAL (SELECT t.ctid FROM ONLY {destination.name} AS t "
            f"WHERE {same} AND {theirs} = i.image OFFSET 0) AS t"
        )
        access = Access.BY_INDEX_AND_IMAGE
    else:
        matches = (
            f"SELECT t.ctid, i.image, {rank} FROM (SELECT image FROM r WHERE n = 1) AS i "
            f"JOIN ONLY {destination.name} AS t ON {theirs} = i.image"
        )
        access = Access.BY_SCAN
    carried = "".join(f", r.c{position}" for position in columns)
    before = (
        f"WITH r AS MATERIALIZED (SELECT *, pg_catalog.row_number() OVER (PARTITION BY image ORDER BY ord) AS n "
        f"FROM (SELECT *, {image_of_texts(olds)} AS image FROM {_numbered(names)}) AS u), "
        f"m AS MATERIALIZED ({matches}), "
        f"p AS MATERIALIZED (SELECT m.ctid AS tid, r.ord{carried} "
        f"FROM r FULL JOIN m ON m.image = r.image AND m.n = r.n) "
    )
    return _Rows(before, "p AS v", ["t.ctid = v.tid", "v.ord IS NOT NULL"], access)


def _columns(names: Sequence[str]) -> str:
    """The parameters, unnested side by side, as ``u``: as rows pass, where ROWS FROM would store each column first."""
    columns = ", ".join(f"pg_catalog.unnest(${i}) AS {name}" for i, name in enumerate(names, 1))
    return f"(SELECT {columns}) AS u"


def _numbered(names: Sequence[str]) -> str:
    """The same with the rows' numbers, from 1, as ``ord``."""
    functions = ", ".join(f"pg_catalog.unnest(${i})" for i in range(1, len(names) + 1))
    return f"ROWS FROM ({functions}) WITH ORDINALITY AS u ({', '.join([*names, 'ord'])})"


def _set(destination: Target, position: int, text: str) -> str | None:
    column = destination.columns[position]
    value = typed(column, text)
    return None if value is None else f"{quoted(column.name)} = {assigned(column, text, value)}"
