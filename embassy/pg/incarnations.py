"""What a source notes of its stream's incarnations: each one's name, before its KEY goes to the topic.

A file system's snapshot, or a disk that lost its last writes, comes up on the same timeline, and as soon as its log has
grown past the stream's end no position tells it from the stream's own source. It does not know the names of the KEYs that
were written after that state, though. See docs/adr/0024-a-key-is-noted-at-its-source.md.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from embassy.model import incarnation
from embassy.pg.connection import connect
from embassy.pg.lost_session import passing
from embassy.pg.presence import has_table

_TABLE = "embassy.incarnation"
_WAIT = {"statement_timeout": "10s"}
"""The stream's loop waits for it."""


class Noted(NamedTuple):
    """What a source knows of a stream's incarnations in one epoch."""

    names: tuple[bytes, ...] = ()
    """Of those that may be the newest in the topic, oldest first."""
    at: datetime | None = None
    """When the last one was noted, by the source's clock."""
    possible: bool = True
    """False: the source's schema is of an earlier version, and has no place for them."""


class IncarnationNotes:
    """Notes one stream's incarnations, in one epoch, at its source."""

    def __init__(self, dsn: str, stream: bytes, epoch: int, *, place: str) -> None:
        """Take where; ``place`` is named in errors."""
        self._dsn = dsn
        self._stream = stream
        self._epoch = epoch
        self._place = place

    def begin(self, follows: bytes) -> bytes:
        """The name of the next incarnation; when this returns it is on the source's disk, where there is a place for it.

        Args:
            follows: of the incarnation that counts in the topic now. The source forgets those before it.

        Raises:
            TransientError: the source is unreachable, no primary, or commits nothing just now.
            ConfigurationError: it will never let us in like this.
        """
        with (
            passing(self._place),
            connect(
                self._dsn,
                application_name="embassy-producer-note",
                autocommit=True,
                primary=True,
                settings=_WAIT,
            ) as connection,
        ):
            name = incarnation.new_name(noted=has_table(connection, _TABLE))
            if incarnation.says_noted(name):
                connection.execute(
                    "SELECT embassy.note_incarnation(%s, %s, %s, %s)", (self._stream, self._epoch, name, follows)
                )
            return name


def noted(connection: psycopg.Connection[Any], stream: bytes, epoch: int) -> Noted:
    """Look what the source knows."""
    if not has_table(connection, _TABLE):
        return Noted(possible=False)
    row = connection.execute(
        "SELECT names, noted_at FROM embassy.incarnation WHERE stream = %s AND epoch = %s", (stream, epoch)
    ).fetchone()
    return Noted() if row is None else Noted(tuple(row[0]), row[1])
