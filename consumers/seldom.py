"""What is done again and again, but not each time that there is an occasion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg


class Seldom:
    """Does something with a session when it was not done for a while."""

    def __init__(
        self, every_seconds: float, do: Callable[[psycopg.Connection[Any]], None], clock: Callable[[], float]
    ) -> None:
        self._every_seconds = every_seconds
        self._do = do
        self._clock = clock
        self._due = 0.0

    def __call__(self, connection: psycopg.Connection[Any]) -> None:
        """Here is an occasion."""
        now = self._clock()
        if now >= self._due:
            self._due = now + self._every_seconds
            self._do(connection)
