"""The session in which a command speaks about applying a stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from embassy.cli.options import Options
from embassy.model.errors import ConfigurationError
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import transient
from embassy.runtime.config import Stream

_PATIENCE = {"statement_timeout": "30s", "lock_timeout": "20s"}


@contextmanager
def replica_of(options: Options, name: str, stream: Stream) -> Iterator[psycopg.Connection[Any]]:
    """A session with a stream's replica, in autocommit mode.

    Raises:
        ConfigurationError: the configuration names no replica, or the role may not write there.
        TransientError: the server is unreachable.
    """
    replica = options.need(stream.replica, f"streams.{name}.replica")
    place = place_of(replica.dsn)
    with transient(place):
        connection = connect(replica.dsn, application_name="embassy-operator", autocommit=True, settings=_PATIENCE)
        try:
            yield connection
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                "the role may not write to embassy.control",
                place=place,
                hint="use the configuration of the replica's administrator",
            ) from error
        finally:
            connection.close()
