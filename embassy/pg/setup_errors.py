"""Errors of the server while something is set up or examined, by what helps against them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors

from embassy.model.errors import ConfigurationError, TransientError

_LOCK_TRIES = 5
_BETWEEN_TRIES_SECONDS = 1.0

_IN_THE_WAY = (errors.LockNotAvailable, errors.DeadlockDetected)
"""The server looks for deadlocks after a second, sooner than a wait for a lock ends."""

LOCK_SETTINGS = {"lock_timeout": "2s"}
"""A statement that waits for a lock keeps others waiting behind it: never for long."""


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn the server's errors into the product's.

    Raises:
        ConfigurationError: the role may not do it, or the server's settings do not allow it.
        TransientError: the session broke, or something is locked.
    """
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            _words(error), place=place, hint="connect as an administrator (streams.NAME.source.dsn, replica.dsn)"
        ) from error
    except errors.DeadlockDetected as error:
        raise TransientError(
            _words(error), place=place, hint="another session waits for what this one has locked; run it again"
        ) from error
    except errors.LockNotAvailable as error:
        raise TransientError(
            _words(error), place=place, hint="a long transaction holds the table; run it again when it has ended"
        ) from error
    except errors.ConfigurationLimitExceeded as error:
        raise ConfigurationError(
            _words(error), place=place, hint=error.diag.message_hint or "raise the server's limit"
        ) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise TransientError(f"PostgreSQL: {_words(error)}", place=place, hint="is the server up?") from error
    except psycopg.Error as error:
        raise ConfigurationError(
            f"PostgreSQL: {_words(error)}", place=place, hint=error.diag.message_hint or "embassy doctor"
        ) from error


def in_turn(connection: psycopg.Connection[Any], change: Callable[[], object]) -> None:
    """Make a change in one transaction; where a lock does not come soon, let others through and try again.

    Raises:
        psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected: it came at no try.
    """
    for left in reversed(range(_LOCK_TRIES)):
        try:
            with connection.transaction():
                change()
        except _IN_THE_WAY:
            if not left:
                raise
            time.sleep(_BETWEEN_TRIES_SECONDS)
        else:
            return


def _words(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).partition("\n")[0]
