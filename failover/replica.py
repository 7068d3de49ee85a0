"""The replica that a promotion works on, through one session that holds its locks."""

from __future__ import annotations

from typing import Any

import psycopg

from embassy.model.errors import RefusedError
from embassy.pg import progress_store
from embassy.pg.connection import connect, place_of
from embassy.pg.progress_store import Progress
from embassy.pg.setup_errors import LOCK_SETTINGS

_APPLICATION = "embassy-promote"


class Replica:
    """Connects when it is first asked something."""

    def __init__(self, dsn: str, stream: bytes) -> None:
        self.place = place_of(dsn)
        self.stream = stream
        self._dsn = dsn
        self._session: psycopg.Connection[Any] | None = None

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The session, in autocommit.

        Raises:
            TransientError: the server is unreachable.
        """
        if self._session is None:
            self._session = connect(
                self._dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS
            )
        return self._session

    def progress(self) -> Progress:
        """How far the stream is applied.

        Raises:
            RefusedError: the replica has no such stream.
        """
        progress = progress_store.read(self.connection, self.stream)
        if progress is None:
            raise RefusedError(
                "the replica does not know this stream", place=self.place, hint="check streams.NAME.replica.dsn"
            )
        return progress

    def close(self) -> None:
        """End the session, and with it its locks."""
        if self._session is not None:
            self._session.close()
