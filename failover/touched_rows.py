"""Which rows and large objects transactions touch that the embassy does not have, by their keys. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from embassy.model.batch import Operation
from embassy.model.large_objects import CHANGES, OBJECTS
from embassy.model.own_tables import OWN_SCHEMA
from embassy.model.relation import Relation, ReplicaIdentity
from embassy.model.source_transaction import Change, SourceTransaction, Values
from embassy.model.touched import Touched
from embassy.model.verification import Key, TableName

_KEYS_MOST = 200_000
"""Of one table: beyond it, a copy of all of it costs less."""


def touched_rows(
    transactions: Iterable[SourceTransaction], keys_most: int = _KEYS_MOST
) -> dict[TableName, Touched]:
    """The rows of transactions: their keys before and after each change.

    Of a table whose rows have no key, that was truncated, or of which too many rows were changed, it is all. A large
    object is a row, whichever of its pages was changed.

    Args:
        transactions: in their order.
        keys_most: how many keys of one table are kept.
    """
    tally = _Tally(keys_most)
    for transaction in transactions:
        for change in transaction.changes:
            tally.add(change)
    return tally.found


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

    def add(self, change: Change) -> None:
        """Take in what a change did."""
        relation = change.relation
        rows = [row for row in (change.old, change.new) if row is not None]
        if relation.schema != OWN_SCHEMA:
            columns = tuple(relation.columns[position].name for position in relation.key)
            keys = (
                [None]
                if change.operation is Operation.TRUNCATE
                else [_key(relation, columns, row) for row in rows]
            )
            for key in keys:
                self._add(TableName(relation.schema, relation.name), columns, key)
        elif (relation.schema, relation.name) == CHANGES:
            for row in rows:
                if (key := _object(row)) is not None:
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


def _object(row: Values) -> Key | None:
    """The object that was written; None if none was: the row was deleted again, or only lists objects."""
    what, loid = ((row.get(name) or b"").decode() for name in ("what", "loid"))
    return (loid,) if what in ("object", "page", "gone") else None


def _key(relation: Relation, columns: tuple[str, ...], row: Values) -> Key | None:
    """The text of a row's key; None if it has none that tells rows apart."""
    if not relation.key or relation.identity is ReplicaIdentity.FULL:
        return None
    values = [row.get(name) for name in columns]
    if any(value is None for value in values):
        return None
    return tuple(value.decode("utf-8") for value in values if value is not None)
