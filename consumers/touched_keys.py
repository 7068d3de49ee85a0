"""Which rows of a table the transactions of a batch have touched, by the keys that a verification tells rows apart by.

Pure. Old keys and new ones count: a row that moved is touched at both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from consumers.text_rows import elements, segment_rows
from embassy.model.batch import Batch, Operation, Segment
from embassy.model.large_objects import CHANGES, OBJECTS
from embassy.model.relation import Relation
from embassy.model.row_text import row_digest
from embassy.model.verification import DIGEST_BYTES, Key, TableName

_Values = Mapping[int, bytes | None]


class RowsOf(NamedTuple):
    """How a verification tells a table's rows apart."""

    table: TableName
    columns: tuple[str, ...]
    key: tuple[str, ...]
    """Empty: by the digest of all columns."""


class Touch(NamedTuple):
    """What one transaction did to one table."""

    xid: int
    keys: list[Key]
    everything: str
    """Why it may be any row of the table; else empty."""


class _Unknown(Exception):  # noqa: N818 - every row counts as touched then
    """A change does not say which row it touches."""


def touches(batch: Batch, rows_of: RowsOf) -> Iterator[Touch]:
    """What each transaction of a batch did to a table; nothing if it did nothing."""
    yield from _in_order(batch, _cursors(batch, rows_of), "a change at home may have touched any row")


def told_objects(batch: Batch, table: TableName) -> Iterator[Touch]:
    """What each transaction of a batch told of large objects, as doubts about the rows of one of their two tables."""
    cursors: dict[int, Iterator[list[Key] | None]] = {}
    for index, segment in enumerate(batch.segments):
        relation = batch.relations[segment.relation]
        if segment.operation is Operation.INSERT and (relation.schema, relation.name) == CHANGES:
            names = [relation.columns[position].name for position in segment.columns]
            cursors[index] = (_told(dict(zip(names, row, strict=True)), table) for row in segment_rows(segment))
    yield from _in_order(batch, cursors, "large objects were sent once more")


def _told(row: Mapping[str, bytes | None], table: TableName) -> list[Key] | None:
    """The rows that a row of ``embassy.large_object_change`` is about; None: any."""
    what, loid, page = ((row[name] or b"").decode() for name in ("what", "loid", "page"))
    if what not in ("object", "page", "gone"):
        return None
    if table == OBJECTS:
        return [(loid,)] if row["standing"] is not None or what == "gone" else []
    if what == "object" and row["pages"] is None:
        return []
    return [(loid, "0" if what == "gone" else page)]


def _in_order(batch: Batch, cursors: Mapping[int, Iterator[list[Key] | None]], anything: str) -> Iterator[Touch]:
    """What transactions touched, by what the changes of some segments did."""
    if not cursors:
        return
    order = batch.in_order()
    at = 0
    for transaction in batch.transactions:
        keys: list[Key] = []
        everything = ""
        for index in order[at : at + transaction.changes]:
            if index in cursors:
                found = next(cursors[index])
                if found is None:
                    everything = anything
                else:
                    keys += found
        at += transaction.changes
        if keys or everything:
            yield Touch(transaction.xid, keys, everything)


def _cursors(batch: Batch, rows_of: RowsOf) -> dict[int, Iterator[list[Key] | None]]:
    """By segment what its changes touch, one after another."""
    ours = {
        index
        for index, relation in enumerate(batch.relations)
        if (relation.schema, relation.name) == rows_of.table
    }
    cursors: dict[int, Iterator[list[Key] | None]] = {}
    for index, segment in enumerate(batch.segments if ours else ()):
        if segment.operation is Operation.TRUNCATE:
            if ours.intersection(segment.truncated):
                cursors[index] = iter([None])
        elif segment.relation in ours:
            cursors[index] = _keys(segment, batch.relations[segment.relation], rows_of)
    return cursors


def _keys(segment: Segment, relation: Relation, rows_of: RowsOf) -> Iterator[list[Key] | None]:
    """Per row of a segment the keys that it touches; None if it does not say."""
    names = [column.name for column in relation.columns]
    wanted = rows_of.key or rows_of.columns
    if not set(wanted) <= set(names):
        yield from [None] * segment.rows
        return
    positions = [names.index(name) for name in wanted]
    for new, old in _rows(segment):
        try:
            keys = []
            if segment.operation is not Operation.DELETE:
                keys.append(_key(positions, {**old, **new}, rows_of))
            if segment.operation is not Operation.INSERT:
                # what is not sent as old was matched by its new values: they are the old ones too
                before = {**{p: new[p] for p in relation.key if p in new}, **old} if not segment.key else old
                keys.append(_key(positions, before, rows_of))
            yield keys
        except _Unknown:
            yield None


def _rows(segment: Segment) -> Iterator[tuple[_Values, _Values]]:
    """The new and the old values of each row, by position."""
    if segment.operation is Operation.INSERT:
        for row in segment_rows(segment):
            yield dict(zip(segment.columns, row, strict=True)), {}
        return
    columns = [*map(elements, segment.values)]
    old = [*map(elements, segment.old)]
    for _ in range(segment.rows):
        yield (
            dict(zip(segment.columns, map(next, columns), strict=True)),
            dict(zip(segment.key, map(next, old), strict=True)),
        )


def _key(positions: Sequence[int], values: _Values, rows_of: RowsOf) -> Key:
    if any(position not in values for position in positions):
        raise _Unknown
    texts = [values[position] for position in positions]
    if not rows_of.key:
        return (row_digest(texts)[:DIGEST_BYTES].hex(),)
    return tuple("" if text is None else text.decode() for text in texts)
