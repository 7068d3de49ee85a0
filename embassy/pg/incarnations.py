"""What a source notes of its stream's incarnations: each one's name, before its KEY goes to the topic.

A file system's snapshot, or a disk that lost its last writes, comes up on the same timeline, and as soon as its log has
grown past the stream's end no position tells it from the stream's own source. It does not know the names of the KEYs that
were written after that state, though. See docs/adr/0024-a-key-is-noted-at-its-source.md.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import errors

from embassy.model import incarnation
from embassy.pg.connection import connect
from embassy.pg.exchange import Answer, Errand, Exchange, Question
from embassy.pg.lost_session import passing
from embassy.pg.presence import has_table

_TABLE = "embassy.incarnation"
_WAIT = {"statement_timeout": "10s"}
"""The stream's loop waits for it."""
_NOTE = """
SELECT embassy.note_incarnation($1::bytea, $2::bigint, $3::bytea, $4::bytea),
       pg_catalog.set_config('synchronous_commit', 'local', true)"""
"""Whatever the session's commits wait for otherwise, this one waits for the source's own disk. Not for a standby's: once
one is promoted, its position decides."""
_NOT_YET = (errors.UndefinedFunction, errors.InsufficientPrivilege, errors.QueryCanceled, errors.LockNotAvailable)
"""What keeps a name from being noted ahead: it is tried again, at the latest by who needs it."""


class Noted(NamedTuple):
    """What a source knows of a stream's incarnations in one epoch."""

    names: tuple[bytes, ...] = ()
    """Of those that may be the newest in the topic, oldest first."""
    at: datetime | None = None
    """When the last one was noted, by the source's clock."""
    possible: bool = True
    """False: the source's schema is of an earlier version, and has no place for them."""


class _Ahead(NamedTuple):
    """A name that was noted, and has begun nothing yet."""

    follows: bytes
    name: bytes


class IncarnationNotes:
    """Notes one stream's incarnations, in one epoch, at its source."""

    def __init__(self, dsn: str, stream: bytes, epoch: int, *, place: str) -> None:
        """Take where; ``place`` is named in errors."""
        self._dsn = dsn
        self._stream = stream
        self._epoch = epoch
        self._place = place
        self._ahead: _Ahead | None = None

    def lacks(self, follows: bytes) -> bool:
        """Whether the one behind another has not been noted ahead; from any thread."""
        ahead = self._ahead
        return ahead is None or ahead.follows != follows

    def errand(self, follows: Callable[[], bytes]) -> Errand:
        """Note the next one ahead, on the session of somebody who asks the source other things too.

        Args:
            follows: which one counts in the topic now.
        """
        asked = _Ahead(b"", b"")

        def ask() -> Question:
            nonlocal asked
            asked = _Ahead(follows(), incarnation.new_name(noted=True))
            return self._question(asked)

        def take(answer: Answer) -> bool:
            if not isinstance(answer, psycopg.Error):
                self._ahead = asked
            return True

        return Errand(ask, take, _NOT_YET)

    def begin(self, follows: bytes) -> bytes:
        """The name of the next incarnation; when this returns it is on the source's disk, where there is a place for it.

        It is given to one caller only, noted ahead or not.

        Args:
            follows: of the incarnation that counts in the topic now. The source forgets those before it.

        Raises:
            TransientError: the source is unreachable, no primary, or commits nothing just now.
            ConfigurationError: it will never let us in like this.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.follows == follows:
            return ahead.name
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
                answer = Exchange(connection).ask([self._question(_Ahead(follows, name))])[0]
                if isinstance(answer, psycopg.Error):
                    raise answer
            return name

    def _question(self, noted: _Ahead) -> Question:
        stream, name, follows = (
            b"\\x" + value.hex().encode() for value in (self._stream, noted.name, noted.follows)
        )
        return Question(_NOTE.encode(), (stream, b"%d" % self._epoch, name, follows))


def noted(connection: psycopg.Connection[Any], stream: bytes, epoch: int) -> Noted:
    """Look what the source knows."""
    if not has_table(connection, _TABLE):
        return Noted(possible=False)
    row = connection.execute(
        "SELECT names, noted_at FROM embassy.incarnation WHERE stream = %s AND epoch = %s", (stream, epoch)
    ).fetchone()
    return Noted() if row is None else Noted(tuple(row[0]), row[1])
