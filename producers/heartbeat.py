"""The stream's heart: a row at the source, renewed once a second, that travels like any other change.

Its age in the replica is the true lag, end to end; it also moves an idle slot along. It carries how far the producer
had come when it was written, so that whoever reads it abroad sees each stage at home. Now and then it also has the
sequences sampled, which no change tells of. It beats in a thread of its own:
a source that is slow to commit must not slow the stream.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple, Self

import psycopg
import structlog

from embassy.model.errors import EmbassyError
from embassy.pg import ddl_capture, source_schema
from embassy.pg.connection import connect
from embassy.pg.lost_session import passing
from embassy.pg.slots import SlotState, slot_state

_JOIN_SECONDS = 5.0
_CLEAR_EVERY_BEATS = 60
SAMPLE_SECONDS = 3.0
"""Between two looks at the source's sequences and at the slot."""


class Stages(NamedTuple):
    """Commit times of the newest transactions past two stages, microseconds since 1970 UTC; 0 if none is."""

    captured: int
    published: int


class Rotations:
    """Notices when an operator asks for a fresh data key."""

    def __init__(self, stream: bytes, asked: Callable[[], None]) -> None:
        self._stream = stream
        self._asked = asked
        self._seen: datetime | None = None

    def begin(self, connection: psycopg.Connection[Any]) -> None:
        """Take what was asked so far as done: a key is about to begin anyway."""
        self._seen = source_schema.rotation_requested_at(connection, self._stream)

    def look(self, connection: psycopg.Connection[Any]) -> None:
        """Tell if it was asked for since."""
        found = source_schema.rotation_requested_at(connection, self._stream)
        if found != self._seen:
            self._seen = found
            self._asked()


class Heartbeat:
    """Beats while entered; a broken session is opened again at the next beat."""

    def __init__(
        self,
        name: str,
        *,
        dsn: str,
        slot: str,
        every_seconds: float,
        stages: Callable[[], Stages],
        slot_seen: Callable[[SlotState], None],
        rotations: Rotations,
    ) -> None:
        self._dsn = dsn
        self._slot = slot
        self._every_seconds = every_seconds
        self._stages = stages
        self._slot_seen = slot_seen
        self._rotations = rotations
        self._done = threading.Event()
        self._failing = False
        self._log = structlog.get_logger(component="producer", stream=name)
        self._thread = threading.Thread(target=self._run, name=f"{name}-heart", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._thread.join(timeout=_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._done.wait(self._every_seconds):
            try:
                with passing(self._slot):  # read-only for a while, a right revoked: the cause may pass
                    self._beat_until_done()
            except EmbassyError as error:
                if not self._failing:  # once, not every second
                    self._log.warning("heartbeat failed; trying again", error=str(error))
                self._failing = True

    def _beat_until_done(self) -> None:
        with connect(self._dsn, application_name="embassy-heartbeat", autocommit=True) as connection:
            sampled_at = -SAMPLE_SECONDS
            for beats in count():
                beat(connection, self._stages())
                self._failing = False
                if time.monotonic() - sampled_at >= SAMPLE_SECONDS:
                    sampled_at = time.monotonic()
                    self._slot_seen(slot_state(connection, self._slot))
                    source_schema.sample_sequences(connection)
                if beats % _CLEAR_EVERY_BEATS == 0:
                    ddl_capture.clear_rows(connection)
                self._rotations.look(connection)
                if self._done.wait(self._every_seconds):
                    return


def beat(connection: psycopg.Connection[Any], stages: Stages) -> None:
    """Beat once."""
    source_schema.beat(connection, _as_time(stages.captured), _as_time(stages.published))


def _as_time(microseconds: int) -> datetime | None:
    return datetime.fromtimestamp(microseconds / 1e6, UTC) if microseconds else None
