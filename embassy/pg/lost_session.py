"""The last net under a stream: a session with PostgreSQL that breaks is a reason to try again, wherever it breaks.

`embassy.pg.connection.connect` names the family of what goes wrong while connecting. A server that is killed in the
middle of any later statement shows as psycopg's own error in whatever call was under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import psycopg

from embassy.model.errors import TransientError
from embassy.runtime.stop import Stop


@contextmanager
def transient(place: str) -> Iterator[None]:
    """Turn a broken session into a transient error.

    Raises:
        TransientError: the session with the server broke, or the server was too busy.
    """
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        said = error.diag.message_primary or str(error).partition("\n")[0]
        raise TransientError(f"PostgreSQL: {said}", place=place, hint="is the server up?") from error


@contextmanager
def passing(place: str) -> Iterator[None]:
    """Turn whatever the server refuses into a transient error: for work that is tried again whatever the reason.

    Raises:
        TransientError: a statement failed, or the session broke.
    """
    try:
        with transient(place):
            yield
    except psycopg.Error as error:
        raise TransientError(f"PostgreSQL: {type(error).__name__} ({error.sqlstate})", place=place) from error


class Runnable(Protocol):
    """A stream's loop."""

    def run(self, stop: Stop, pulse: Callable[[], None]) -> None:
        """Work until told to stop."""


class TriedAgain:
    """A stream's loop whose broken sessions are transient errors."""

    def __init__(self, loop: Runnable, place: str) -> None:
        self._loop = loop
        self._place = place

    def run(self, stop: Stop, pulse: Callable[[], None]) -> None:
        """Run the loop; see `transient`."""
        with transient(self._place):
            self._loop.run(stop, pulse)
