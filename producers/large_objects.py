"""Looks for what is new in large objects, which no change in the log tells of, and has it carried.

A look reads all of them. Where there is none, the heart's session takes it along. Where there are some, statistics say
when one is worth while; they cost next to nothing and are asked on that session too. They may come late or be lost, so a
look is taken now and then although they say nothing. However large the objects, looks take no more than a small share
of the time. Such a look has a thread and a session of its own for as long as it lasts: neither the heart nor the stream
waits for it, and between two looks nothing is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

import psycopg
import structlog

from embassy.model.errors import EmbassyError
from embassy.pg import large_objects
from embassy.pg.connection import connect
from embassy.pg.exchange import Errand
from embassy.pg.lost_session import passing

_JOIN_SECONDS = 5.0
_AGAIN_SECONDS = 0.2
_FAILED_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0


class Cadence:
    """When to look. Pure."""

    LEAST_SECONDS = 2.0
    """Between two looks, when there is something new all the time."""
    MOST_SECONDS = 300.0
    """Between two looks, when statistics say that nothing is new."""
    NONE_SECONDS = 240.0
    """Between two looks on the heart's session, where there is nothing: before one of the others is due."""
    PAUSE = 20
    """Or so many times as long as the last look took, if that is longer."""

    def __init__(self) -> None:
        self._ended_at: float | None = None
        self._took = 0.0
        self._changes = -1

    def is_due(self, now: float, changes: int) -> bool:
        """Whether to look now.

        Args:
            now: seconds, monotonic.
            changes: what statistics count.
        """
        if self._ended_at is None:
            return True
        rested = now - self._ended_at
        pause = self.PAUSE * self._took
        if changes != self._changes:
            return rested >= max(self.LEAST_SECONDS, pause)
        return rested >= max(self.MOST_SECONDS, pause)

    def looked(self, began: float, ended: float, changes: int) -> None:
        """A look is over; ``changes`` is what statistics counted before it."""
        self._ended_at = ended
        self._took = ended - began
        self._changes = changes


class LargeObjectSweep:
    """Looks while entered, when it was told that it is time."""

    def __init__(
        self,
        name: str,
        *,
        dsn: str,
        stream: bytes,
        clock: Callable[[], float],
        known: Callable[[psycopg.Connection[Any]], None],
        carried: Callable[[float], None],
    ) -> None:
        """Take what it needs; nothing is connected to yet.

        Args:
            name: the stream's, in logs.
            dsn: the source's.
            stream: whose looks these are.
            clock: monotonic.
            known: raises if a session is with a database that must not be written to.
            carried: told, once all that a look has found is carried, how many seconds ago the look began.
        """
        self._name = name
        self._dsn = dsn
        self._stream = stream
        self._clock = clock
        self._known = known
        self._carried = carried
        self._where_none = large_objects.LookWhereNone(stream)
        self._cadence = Cadence()
        self._changes = 0
        self._look: threading.Thread | None = None
        """While it lives nothing else has the cadence."""
        self._done = threading.Event()
        self._told = ""
        self._log = structlog.get_logger(component="producer", stream=name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        if self._look is not None:
            self._look.join(timeout=_JOIN_SECONDS)

    def look_where_none(self) -> Errand:
        """What the heart asks each `Cadence.NONE_SECONDS`, before `noticed` is told anything."""
        return self._where_none.errand(self._took_none)

    def _took_none(self, changes: int) -> None:
        if not self._at_work:
            now = self._clock()
            self._cadence.looked(now, now, changes)
            self._carried(0.0)

    @property
    def _at_work(self) -> bool:
        return self._look is not None and self._look.is_alive()

    def noticed(self, changes: int) -> None:
        """Have a look taken if it is time; told again and again what statistics count, by the heart's thread."""
        if self._done.is_set() or self._at_work:
            return
        self._changes = changes
        if self._cadence.is_due(self._clock(), changes):
            self._look = threading.Thread(target=self._run, name=f"{self._name}-large-objects", daemon=True)
            self._look.start()

    def _run(self) -> None:
        """Take one look, however often that has to be tried."""
        while not self._done.is_set():
            try:
                with (
                    passing("large objects"),
                    connect(
                        self._dsn,
                        application_name="embassy-large-objects",
                        autocommit=True,
                        settings=large_objects.SETTINGS,
                    ) as connection,
                ):
                    self._known(connection)
                    self._sweep(connection)
            except EmbassyError as error:
                self._tell("large objects wait; trying again", error=str(error))
                self._done.wait(_FAILED_SECONDS)
            else:
                return

    def _sweep(self, connection: psycopg.Connection[Any]) -> None:
        """Look once, and carry all that was found, unless told to stop."""
        began = self._clock()
        if not large_objects.is_carried(connection):
            self._tell("large objects are not carried", hint="embassy doctor home (PG13)")
            self._cadence.looked(began, self._clock(), self._changes)
            return
        behind = large_objects.look(connection, self._stream)
        moved_at = looked_at = self._clock()
        while behind and not self._done.is_set():
            left = large_objects.carry(connection, self._stream)
            if left is not None:
                behind, moved_at = left, self._clock()
                self._told = ""
                continue
            if self._clock() - moved_at > _PATIENCE_SECONDS:
                self._tell(
                    "large objects wait for a transaction that has written some and is prepared or still commits",
                    objects=behind,
                    hint="pg_locks: who has embassy.large_object_turn",
                )
            self._done.wait(_AGAIN_SECONDS)
        if not behind:
            self._carried(self._clock() - began)
        self._cadence.looked(began, looked_at, self._changes)

    def _tell(self, what: str, **more: object) -> None:
        """Warn once of the same thing."""
        if self._told != what:
            self._log.warning(what, **more)
        self._told = what
