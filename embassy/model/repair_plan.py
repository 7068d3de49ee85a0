"""What is to be sent to a replica once more: rows of tables, by their keys, in a file that goes from the embassy to home.

Keys are row data: the file is as sensitive as the rows.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from embassy.model.errors import ConfigurationError
from embassy.model.verification import Key, TableName

_SCHEMA = "embassy.repair-plan/2"
KEYS_AT_ONCE = 200
"""Rows of one copy: they are read at one moment, and stand in memory."""


class TableRepair(NamedTuple):
    """What is to be sent of one table."""

    table: TableName
    key_columns: tuple[str, ...]
    keys: tuple[Key, ...]
    """Of the rows that differ, in the order of the key's index; empty: the whole table."""
    differing: int
    """How many rows were found to differ."""

    @property
    def copies(self) -> tuple[tuple[Key, ...], ...]:
        """The keys of each copy that is asked for; empty: the whole table."""
        found = self.keys
        return tuple(found[at : at + KEYS_AT_ONCE] for at in range(0, len(found), KEYS_AT_ONCE)) or ((),)


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
        return sum(len(table.copies) for table in self.tables)


def encode(plan: RepairPlan) -> str:
    """As a file's text."""
    tables = [
        {
            "schema": repair.table.schema,
            "table": repair.table.name,
            "key_columns": list(repair.key_columns),
            "differing": repair.differing,
            "keys": [list(key) for key in repair.keys] or None,
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
                    tuple(_key(key, table) for key in table["keys"] or ()),
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
