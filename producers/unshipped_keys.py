"""Which rows and large objects a source's unshipped changes touch, by their keys. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from embassy.model.large_objects import CHANGES, OBJECTS
from embassy.model.lsn import Lsn
from embassy.model.own_tables import OWN_SCHEMA
from embassy.model.relation import Relation, ReplicaIdentity
from embassy.model.touched import Touched
from embassy.model.verification import Key, TableName
from producers import pgoutput_decoder as pgoutput
from producers.described import Described
from producers.pgoutput_decoder import NULL_ELEMENT, Elements

_ROWS = frozenset({pgoutput.INSERT, pgoutput.UPDATE, pgoutput.DELETE})
_TRUNCATE = b"T"[0]
_LENGTH_BYTES = 4
_KEYS_MOST = 200_000
"""Of one table: beyond it, a copy of all of it costs less."""


def touched_rows(messages: Iterable[bytes], after: Lsn, keys_most: int = _KEYS_MOST) -> dict[TableName, Touched]:
    """The rows of transactions that end behind a position: their keys before and after each change.

    Of a table whose rows have no key, that was truncated, or of which too many rows were changed, it is all. A large
    object is a row, whichever of its pages was changed.

    Args:
        messages: of pgoutput, in their order.
        after: what ends up to here is left out.
        keys_most: how many keys of one table are kept.
    """
    described = Described()
    tally = _Tally(keys_most)
    transaction: list[tuple[Relation, Elements | None]] = []
    for message in messages:
        kind = message[0]
        if described.take(message):
            continue
        if kind == pgoutput.BEGIN:
            transaction = []
        elif kind == pgoutput.COMMIT:
            if pgoutput.decode_commit(message).end_lsn > after:
                tally.add(transaction)
        else:
            transaction += _rows(message, described)
    return tally.found


def _rows(message: bytes, described: Described) -> list[tuple[Relation, Elements | None]]:
    """The rows that a message is about; None in place of one: all of its table."""
    if message[0] == _TRUNCATE:
        return [(described.relation(oid, message), None) for oid in pgoutput.decode_truncate(message).oids]
    if message[0] not in _ROWS:
        return []
    change = pgoutput.decode_row_change(message)
    relation = described.relation(change.oid, message)
    return [(relation, row) for row in (change.old, change.new) if row is not None]


class _Tally:
    """What was touched of each table."""

    def __init__(self, keys_most: int) -> None:
        self._keys_most = keys_most
        self._keys: dict[TableName, set[Key] | None] = {}
        self._columns: dict[TableName, tuple[str, ...]] = {}

    @property
    def found(self) -> dict[TableName, Touched]:
        """So far."""
        return {
            name: Touched((), None) if keys is None else Touched(self._columns[name], frozenset(keys))
            for name, keys in self._keys.items()
        }

    def add(self, rows: list[tuple[Relation, Elements | None]]) -> None:
        """Take in what a transaction did."""
        for relation, row in rows:
            if relation.schema != OWN_SCHEMA:
                columns = tuple(relation.columns[position].name for position in relation.key)
                key = None if row is None else _key(relation, row)
                self._add(TableName(relation.schema, relation.name), columns, key)
            elif (
                (relation.schema, relation.name) == CHANGES and row is not None and (key := _object(relation, row))
            ):
                self._add(OBJECTS, ("oid",), key)

    def _add(self, name: TableName, columns: tuple[str, ...], key: Key | None) -> None:
        keys = self._keys.setdefault(name, set())
        if keys is None:
            return
        same = self._columns.setdefault(name, columns) == columns
        if key is None or not same or len(keys) >= self._keys_most:
            self._keys[name] = None
        else:
            keys.add(key)


def _object(relation: Relation, row: Elements) -> Key | None:
    """The object that was written; None if none was: the row was deleted again, or only lists objects."""
    values = {column.name: value for column, value in zip(relation.columns, row, strict=True)}
    texts = [(values[name] or NULL_ELEMENT)[_LENGTH_BYTES:].decode() for name in ("what", "loid")]
    return (texts[1],) if texts[0] in ("object", "page", "gone") else None


def _key(relation: Relation, row: Elements) -> Key | None:
    """The text of a row's key; None if it has none that tells rows apart."""
    if not relation.key or relation.identity is ReplicaIdentity.FULL:
        return None
    values = [row[position] for position in relation.key]
    if any(value is None or value == NULL_ELEMENT for value in values):
        return None
    return tuple(value[_LENGTH_BYTES:].decode("utf-8") for value in values if value is not None)
