"""What batches mean, in the plainest way: tables as lists of rows, and both ways of applying a batch to them.

The fast way takes each segment as one SQL statement: rows are matched against the table as it was before the
statement, each by exactly one, and a key that two rows have is refused at once. The exact way takes change after
change in commit order.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from embassy.model.batch import Batch, Operation, Segment
from embassy.model.relation import Relation, ReplicaIdentity

Value = bytes | None
_ESCAPES = {b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


class Change(NamedTuple):
    """One change, as the source made it. Rows are by column name."""

    operation: Operation
    tables: tuple[str, ...]
    old: dict[str, Value]
    """What it is matched by."""
    new: dict[str, Value]
    """What was sent."""
    options: int = 0


class Tables:
    """A database of text columns."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Value]]] = {}

    def contents(self) -> dict[str, Counter[frozenset[tuple[str, bytes]]]]:
        """Per table that has rows, how often each row is there; NULLs left out."""
        return {
            name: Counter(frozenset((k, v) for k, v in row.items() if v is not None) for row in rows)
            for name, rows in self.rows.items()
            if rows
        }

    def load(self, name: str, columns: Sequence[str], copy_text: bytes) -> None:
        """Fill a table from COPY text."""
        self.rows[name] = [
            dict(zip(columns, map(_unescaped, line.split(b"\t")), strict=True))
            for line in copy_text.split(b"\n")[:-1]
        ]

    def apply(self, changes: Sequence[Change], key: Sequence[str] = ()) -> None:
        """Apply changes of one table and operation as one statement."""
        name, operation = changes[0].tables[0], changes[0].operation
        table = self.rows.setdefault(name, [])
        if operation is Operation.TRUNCATE:
            for truncated in changes[0].tables:
                self.rows[truncated] = []
            return
        taken: set[int] = set()
        matched = []
        for change in changes:
            if operation is Operation.INSERT:
                continue
            found = next(
                (i for i, row in enumerate(table) if i not in taken and _matches(row, change.old)),
                None,
            )
            assert found is not None, f"no row of {name} for {change}"
            taken.add(found)
            matched.append((table[found], change))
        if operation is Operation.INSERT:
            for change in changes:
                table.append(dict(change.new))
        elif operation is Operation.DELETE:
            self.rows[name] = table = [row for i, row in enumerate(table) if i not in taken]
        else:
            for row, change in matched:
                row.update(change.new)
                self._unique(name, table, key)
        self._unique(name, table, key)

    def apply_fast(self, batch: Batch) -> None:
        """Apply a batch segment by segment, superseded ones left out."""
        for segment in batch.segments:
            if not segment.superseded:
                relation = batch.relations[segment.relation]
                self.apply(list(segment_changes(batch, segment)), _unique_key(relation))

    def apply_exactly(self, batch: Batch) -> None:
        """Apply a batch change by change."""
        for change in exact_changes(batch):
            self.apply([change])

    @staticmethod
    def _unique(name: str, table: list[dict[str, Value]], key: Sequence[str]) -> None:
        if key:
            seen = Counter(tuple(row.get(column) for column in key) for row in table)
            assert all(count == 1 for count in seen.values()), f"{name}: two rows of one key"


def exact_changes(batch: Batch) -> Iterator[Change]:
    """Every change of a batch, in commit order."""
    cursors = [segment_changes(batch, segment) for segment in batch.segments]
    for (index,) in struct.iter_unpack("<H", batch.order):
        yield next(cursors[index])
    for cursor in cursors:
        assert next(cursor, None) is None, "a row that the order does not name"


def segment_changes(batch: Batch, segment: Segment) -> Iterator[Change]:
    """The changes of a segment, in its own order."""
    relation = batch.relations[segment.relation]
    names = [column.name for column in relation.columns]
    if segment.operation is Operation.TRUNCATE:
        yield Change(
            Operation.TRUNCATE,
            tuple(batch.relations[i].name for i in segment.truncated),
            {},
            {},
            segment.truncate_options,
        )
        return
    if segment.operation is Operation.INSERT:
        columns = [[_unescaped(field) for field in column.split(b"\n")] for column in segment.texts]
        assert all(len(column) == segment.rows for column in columns)
        new = [list(row) for row in zip(*columns, strict=True)] if columns else [[]] * segment.rows
    else:
        new = _rows(segment.values, segment.rows)
    old = _rows(segment.old, segment.rows)
    for before, after in zip(old, new, strict=True):
        values = {names[i]: value for i, value in zip(segment.columns, after, strict=True)}
        match = {names[i]: value for i, value in zip(segment.key, before, strict=True)}
        if segment.operation is Operation.UPDATE and not segment.key:
            match = {names[i]: values[names[i]] for i in relation.key}
        yield Change(segment.operation, (relation.name,), match, values)


def _matches(row: dict[str, Value], image: dict[str, Value]) -> bool:
    return all(row.get(column) == value for column, value in image.items())


def _unique_key(relation: Relation) -> Sequence[str]:
    if relation.identity is ReplicaIdentity.FULL:
        return []
    return [relation.columns[i].name for i in relation.key]


def _rows(columns: Sequence[bytes], rows: int) -> list[list[Value]]:
    values = [list(_elements(column)) for column in columns]
    assert all(len(column) == rows for column in values)
    return [[column[i] for column in values] for i in range(rows)]


def _elements(column: bytes) -> Iterator[Value]:
    at = 0
    while at < len(column):
        (length,) = struct.unpack_from(">i", column, at)
        at += 4
        if length == -1:
            yield None
            continue
        assert at + length <= len(column)
        yield column[at : at + length]
        at += length


def _unescaped(field: bytes) -> Value:
    if field == rb"\N":
        return None
    first, *rest = field.split(b"\\")
    text = [first]
    escaped = iter(rest)
    for piece in escaped:
        if piece:
            text.append(_ESCAPES[piece[:1]] + piece[1:])
        else:  # two backslashes stand for one
            text.append(b"\\" + next(escaped))
    return b"".join(text)
