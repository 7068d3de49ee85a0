"""Who may write where, as metrics: looked at every few seconds, whether the streams run or have halted.

A running stream looks with the session that it has anyway; for one that does not run, someone else must.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import psycopg

from embassy.model.errors import EmbassyError
from embassy.pg.connection import connect
from embassy.pg.reign import Standing, StandingLook
from embassy.runtime import metrics as catalogue
from embassy.runtime.metrics import Metrics

_EVERY_SECONDS = 10.0
_PROMOTION = "promotion"

Look = Callable[[psycopg.Connection[Any]], None]
"""Looks, with a session in autocommit mode at the place in question."""


class SourceLook:
    """Whether a source may be written to: it is not shut, and no replica."""

    def __init__(self, metrics: Metrics, *, site: str, name: str, stream: bytes) -> None:
        self._writable = metrics.late_gauge(catalogue.WRITABLE, registry=name, site=site)
        self._standing = StandingLook(stream)
        self.errand = self._standing.errand(self._found)
        """The same, to be asked along with other things."""

    def __call__(self, connection: psycopg.Connection[Any]) -> None:
        """Look."""
        self._found(self._standing(connection))

    def _found(self, standing: Standing) -> None:
        self._writable.set(standing.writable)


class Authority(NamedTuple):
    """Where to look for one stream."""

    name: str
    dsn: str
    look: Look


class AuthorityWatch:
    """Looks until closed, for streams that do not run; what cannot be seen keeps its last value."""

    def __init__(self, authorities: Iterable[Authority], running: Callable[[str], bool]) -> None:
        """Begin; ``running`` tells which streams look by themselves."""
        self._authorities = tuple(authorities)
        self._running = running
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="authority-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch."""
        self._done.set()
        self._thread.join(timeout=1)

    def _watch(self) -> None:
        while not self._done.wait(_EVERY_SECONDS):
            for authority in self._authorities:
                if self._done.is_set():
                    return
                if self._running(authority.name):
                    continue
                try:
                    with connect(
                        authority.dsn, application_name="embassy-authority-watch", autocommit=True
                    ) as connection:
                        authority.look(connection)
                except (EmbassyError, psycopg.Error):
                    continue  # the database cannot be asked; the stream itself has logged why


def at_replica(metrics: Metrics, *, site: str, name: str, stream: bytes) -> Look:
    """What a replica's journal says: its epoch, whether it was promoted, and the step under way."""
    epoch = metrics.late_gauge(catalogue.EPOCH, registry=name, site=site)
    writable = metrics.late_gauge(catalogue.WRITABLE, registry=name, site=site)
    step = metrics.late_gauge(catalogue.OPERATION_STEP_START, registry=name, operation=_PROMOTION)

    standing = StandingLook(stream)

    def look(connection: psycopg.Connection[Any]) -> None:
        found = standing(connection)
        if found.journal is not None:
            epoch.set(found.journal.epoch)
            writable.set(found.journal.promoted and found.writable)
            step.set(found.journal.step_begun_at)

    return look
