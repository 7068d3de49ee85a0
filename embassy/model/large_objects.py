"""Large objects as two tables that are compared like any other, and which of their rows cannot be judged yet. Pure.

They go by the catalogues' names: ``pg_largeobject`` has the pages, by object and number, ``pg_largeobject_metadata`` the
objects, of which owner, rights and comment count.

*Doubt.* A key of either: this row, and each one behind it that is of the same object.
"""

from __future__ import annotations

from collections.abc import Iterable

from embassy.model.verification import Key, TableName

OBJECTS = TableName("pg_catalog", "pg_largeobject_metadata")
PAGES = TableName("pg_catalog", "pg_largeobject")
TABLES = (OBJECTS, PAGES)
"""In the order in which they are compared."""
CHANGES = TableName("embassy", "large_object_change")
"""What large objects travel in; one row per object or page that was written, or is gone."""


def in_doubt(keys: Iterable[Key], doubts: Iterable[Key]) -> frozenset[Key]:
    """Those of the keys that doubts cover."""
    first: dict[str, int] = {}
    for doubt in doubts:
        page = _page(doubt)
        first[doubt[0]] = min(page, first.get(doubt[0], page))
    return frozenset(key for key in keys if key[0] in first and _page(key) >= first[key[0]])


def _page(key: Key) -> int:
    return int(key[1]) if len(key) > 1 else 0
