"""Which rows of a table something is about, as far as it is known."""

from __future__ import annotations

from typing import NamedTuple


class Touched(NamedTuple):
    """Rows of one table that changes are of."""

    columns: tuple[str, ...]
    """Of the key."""
    keys: frozenset[tuple[str, ...]] | None
    """Text of each, old and new; None: it is not known which, or there are too many."""
