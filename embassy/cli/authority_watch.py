"""Who may write where, as metrics: looked at every few seconds, whether the streams run or have halted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import psycopg

from embassy.model.errors import EmbassyError
from embassy.pg import promotion_store, source_fence
from embassy.pg.connection import connect
from embassy.runtime import metrics as catalogue
from embassy.runtime.metrics import Metrics

_EVERY_SECONDS = 10.0
_PROMOTION = "promotion"

Look = Callable[[], None]


class AuthorityWatch:
    """Looks in a thread of its own until closed; what cannot be seen keeps its last value."""

    def __init__(self, looks: Sequence[Look]) -> None:
        """Begin."""
        self._looks = looks
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="authority-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch."""
        self._done.set()
        self._thread.join(timeout=1)

    def _watch(self) -> None:
        while True:
            for look in self._looks:
                if self._done.is_set():
                    return
                try:
                    look()
                except (EmbassyError, psycopg.Error):
                    continue  # the database cannot be asked; the stream itself has logged why
            if self._done.wait(_EVERY_SECONDS):
                return


def at_replica(metrics: Metrics, *, site: str, name: str, dsn: str, stream: bytes) -> Look:
    """What a replica's journal says: its epoch, whether it was promoted, and the step under way."""
    epoch = metrics.late_gauge(catalogue.EPOCH, registry=name, site=site)
    writable = metrics.late_gauge(catalogue.WRITABLE, registry=name, site=site)
    step = metrics.late_gauge(catalogue.OPERATION_STEP_START, registry=name, operation=_PROMOTION)

    def look() -> None:
        with connect(dsn, application_name="embassy-authority-watch", autocommit=True) as connection:
            standing = promotion_store.standing(connection, stream)
        if standing is not None:
            epoch.set(standing.epoch)
            writable.set(standing.promoted)
            step.set(standing.step_begun_at)

    return look


def at_source(metrics: Metrics, *, site: str, name: str, dsn: str, stream: bytes) -> Look:
    """Whether a source is shut."""
    writable = metrics.late_gauge(catalogue.WRITABLE, registry=name, site=site)

    def look() -> None:
        with connect(dsn, application_name="embassy-authority-watch", autocommit=True) as connection:
            fenced = source_fence.is_ready(connection) and source_fence.fences(connection, stream)
        writable.set(not fenced)

    return look
