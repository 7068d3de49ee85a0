"""What is to be sent to a replica once more: ranges of keys of tables, in a file that goes from the embassy to home.

Keys are row data: the file is as sensitive as the rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from embassy.model.errors import ConfigurationError
from embassy.model.verification import Key, TableName

_SCHEMA = "embassy.repair-plan/1"
RANGES_MOST = 100
"""More ranges of a table are joined: each is a copy of its own."""

_SAME_ORDER = frozenset(
    {
        *("smallint", "integer", "bigint", "oid", "numeric", "uuid", "boolean", "bytea", "date"),
        *("timestamp without time zone", "timestamp with time zone"),
    }
)
"""Types whose order is the same on every server."""


class TableRepair(NamedTuple):
    """What is to be sent of one table."""

    table: TableName
    key_columns: tuple[str, ...]
    ranges: tuple[tuple[Key, Key], ...]
    """First and last key of each; empty: the whole table."""
    differing: int
    """How many rows were found to differ."""


class RepairPlan(NamedTuple):
    """What is to be sent of one stream."""

    registry: str
    stream: str
    """Its identity, in hexadecimal."""
    made_at: str
    tables: tuple[TableRepair, ...]

    @property
    def copies(self) -> int:
        """How many copies it asks for."""
        return sum(max(1, len(table.ranges)) for table in self.tables)


def ranges_of(keys: Sequence[Key], types: Sequence[str], most: int = RANGES_MOST) -> tuple[tuple[Key, Key], ...]:
    """Ranges that hold these keys, which stand in the order of the table's key; empty if only the whole table does.

    Args:
        keys: of the rows that differ.
        types: of the key's columns. What may be sorted otherwise at home is not joined: a range there is none here.
        most: how many ranges there may be.
    """
    if len(keys) > most and not _SAME_ORDER.issuperset(types):
        return ()
    size = -(-len(keys) // most)
    return tuple((keys[at], keys[min(at + size, len(keys)) - 1]) for at in range(0, len(keys), max(1, size)))


def encode(plan: RepairPlan) -> str:
    """As a file's text."""
    tables = [
        {
            "schema": repair.table.schema,
            "table": repair.table.name,
            "key_columns": list(repair.key_columns),
            "differing": repair.differing,
            "ranges": [{"from": list(first), "to": list(last)} for first, last in repair.ranges] or None,
        }
        for repair in plan.tables
    ]
    found = {"schema": _SCHEMA, **plan._asdict(), "tables": tables}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def decode(text: bytes, place: str) -> RepairPlan:
    """Read a file's text.

    Raises:
        ConfigurationError: it is not a plan that this version knows.
    """
    try:
        fields: dict[str, Any] = json.loads(text)
        if fields["schema"] != _SCHEMA:
            raise _foreign(place)
        return RepairPlan(
            str(fields["registry"]),
            str(fields["stream"]),
            str(fields["made_at"]),
            tuple(
                TableRepair(
                    TableName(str(table["schema"]), str(table["table"])),
                    tuple(map(str, table["key_columns"])),
                    tuple((_key(r["from"], table), _key(r["to"], table)) for r in table["ranges"] or ()),
                    int(table["differing"]),
                )
                for table in fields["tables"]
            ),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _foreign(place) from error


def _key(values: Any, table: dict[str, Any]) -> Key:
    if not isinstance(values, list) or len(values) != len(table["key_columns"]):
        raise ValueError
    return tuple(map(str, values))


def _foreign(place: str) -> ConfigurationError:
    return ConfigurationError(
        "not a plan that this version's embassy repair plan has written",
        place=place,
        hint="make it anew, in the embassy",
    )
