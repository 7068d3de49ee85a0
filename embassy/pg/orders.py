"""What a stream's producer is asked for at home, and what it must look for there all the time: in one exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from embassy.pg.exchange import Errand
from embassy.pg.large_objects import CHANGES
from embassy.pg.presence import Look, Part
from embassy.pg.table_copies import UNFINISHED

_PARTS = (
    Part(
        "(SELECT requested_at FROM embassy.rotation_request WHERE stream = {stream})",
        ("embassy.rotation_request",),
    ),
    Part(f"EXISTS ({UNFINISHED})", ("embassy.copied_table",)),
    Part(f"({CHANGES})"),
)


class Orders(NamedTuple):
    """What was found."""

    rotation_requested_at: datetime | None
    """When a fresh data key was last asked for; None: never, or it cannot be."""
    copies: bool
    """Whether a copy is wanted that is not done."""
    large_object_changes: int
    """How much has been written to large objects, or asked for: see `large_objects.CHANGES`."""


class OrdersLook:
    """Looks for one stream's orders."""

    def __init__(self, stream: bytes) -> None:
        self._look = Look(*_PARTS, stream=stream)

    def __call__(self, connection: psycopg.Connection[Any]) -> Orders:
        """Look, with a connection in autocommit mode."""
        return _orders(self._look(connection))

    def errand(self, found: Callable[[Orders], None]) -> Errand:
        """The same, to be asked along with other things."""
        return self._look.errand(lambda values: found(_orders(values)))


def _orders(values: Sequence[Any]) -> Orders:
    requested_at, copies, changes = values
    return Orders(requested_at, bool(copies), int(changes or 0))
