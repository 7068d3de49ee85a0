from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest
from psycopg import errors

from embassy.model.errors import IntegrityError, TransientError
from embassy.pg.lost_session import TriedAgain
from embassy.runtime.stop import Stop


class _Loop:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, stop: threading.Event, pulse: Callable[[], None]) -> None:
        raise self._error


def _run(error: Exception) -> None:
    TriedAgain(_Loop(error), "streams.land.source").run(Stop(), lambda: None)


@pytest.mark.parametrize(
    "error",
    [
        errors.AdminShutdown("terminating connection\nDETAIL: and more"),
        psycopg.OperationalError("consuming input failed: SSL error: unexpected eof while reading"),
        psycopg.InterfaceError("the connection is closed"),
        errors.DiskFull("could not extend file"),
    ],
)
def test_a_broken_session_is_tried_again(error: Exception) -> None:
    with pytest.raises(TransientError) as caught:
        _run(error)
    assert caught.value.args[0] == f"PostgreSQL: {str(error).splitlines()[0]}"
    assert caught.value.place == "streams.land.source"


@pytest.mark.parametrize("error", [errors.UndefinedTable("x"), IntegrityError("x"), KeyError("x")])
def test_anything_else_is_passed_on(error: Exception) -> None:
    with pytest.raises(type(error)):
        _run(error)
