"""The stream's heart: a row at the source, renewed again and again, that travels like any other change.

Its age in the replica is the true lag, end to end; it also moves an idle slot along. It carries how far the producer
had come when it was written, so that whoever reads it abroad sees each stage at home. It beats in a thread of its own,
at the pace that `producers.pace` sets: a source that is slow to commit must not slow the stream. What else has to be
looked at at home is looked at in the same exchange.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, Self

import psycopg
import structlog

from embassy.model.errors import EmbassyError
from embassy.pg import large_objects, source_schema
from embassy.pg.connection import connect
from embassy.pg.exchange import Answer, Errand, Exchange, Question
from embassy.pg.lost_session import passing
from producers.pace import Pace

_JOIN_SECONDS = 5.0


class Stages(NamedTuple):
    """Commit times of the newest transactions past two stages, microseconds since 1970 UTC; 0 if none is."""

    captured: int
    published: int


class Rotations:
    """Notices when an operator asks for a fresh data key."""

    def __init__(self, asked: Callable[[], None]) -> None:
        self._asked = asked
        self._seen: datetime | None = None

    def begin(self, requested_at: datetime | None) -> None:
        """Take what was asked so far as done: a key is about to begin anyway."""
        self._seen = requested_at

    def noticed(self, requested_at: datetime | None) -> None:
        """Tell if it was asked for since; ``requested_at`` is of the last time, None: never."""
        if requested_at != self._seen:
            self._seen = requested_at
            self._asked()


class Turns:
    """Lets few hearts of a process be at work at a time: they wake together, and a hundred would be in each other's way.

    A source that does not answer keeps the others for a moment only: who has waited for long works without a turn.
    """

    MOST = 4
    WAIT_SECONDS = 0.5

    def __init__(self) -> None:
        self._free = threading.Semaphore(self.MOST)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a turn, and have it."""
        mine = self._free.acquire(timeout=self.WAIT_SECONDS)
        try:
            yield
        finally:
            if mine:
                self._free.release()


class Chore(NamedTuple):
    """Something else that is asked at home now and then, behind a beat."""

    every_seconds: float
    """0: with each beat."""
    errand: Errand
    idle_seconds: float = 0.0
    """The same while the registry commits nothing that the stream carries, if that is longer: for what commits change."""
    wanted: Callable[[], bool] = lambda: True
    """Whether there is anything to ask at all just now."""


class _Due:
    """When a chore is to be done."""

    def __init__(self, chore: Chore) -> None:
        self._chore = chore
        self._done_at = -math.inf
        self._stirred = True

    def take(self, now: float, *, carried: bool) -> bool:
        """Whether it is time; if so it counts as done. ``carried``: the registry has committed since the last beat."""
        self._stirred = self._stirred or carried
        every, idle, since = self._chore.every_seconds, self._chore.idle_seconds, now - self._done_at
        if since < every or (since < idle and not self._stirred):
            return False
        self._done_at, self._stirred = now, False
        return True


class Heartbeat:
    """Beats while entered; a broken session is opened again at the next beat."""

    def __init__(
        self,
        name: str,
        *,
        dsn: str,
        slot: str,
        pace: Pace,
        stages: Callable[[], Stages],
        carried: Callable[[], bool],
        chores: Sequence[Chore],
        turns: Turns,
        known: Callable[[psycopg.Connection[Any]], None],
    ) -> None:
        """Take what the heart needs.

        Args:
            name: the stream's, for the log.
            dsn: the source.
            slot: named in errors.
            pace: when to beat.
            stages: how far the producer is.
            carried: whether the registry has committed anything since the last call.
            chores: what else is asked on the session.
            turns: of the process's hearts.
            known: raises if a session is with a database that must not be written to.
        """
        self._dsn = dsn
        self._slot = slot
        self._pace = pace
        self._stages = stages
        self._carried = carried
        self._turns = turns
        self._known = known
        self._chores = [(chore, _Due(chore)) for chore in chores]
        self._done = False
        self._stirred = threading.Event()
        self._failing = False
        self._log = structlog.get_logger(component="producer", stream=name)
        self._thread = threading.Thread(target=self._run, name=f"{name}-heart", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done = True
        self._stirred.set()
        self._thread.join(timeout=_JOIN_SECONDS)

    def rouse(self) -> None:
        """The registry has committed something; from any thread."""
        self._stirred.set()

    def _run(self) -> None:
        while self._rest():
            try:
                with passing(self._slot):  # read-only for a while, a right revoked: the cause may pass
                    self._beat_until_done()
            except EmbassyError as error:
                if not self._failing:  # once, not with every beat
                    self._log.warning("heartbeat failed; trying again", error=str(error))
                self._failing = True

    def _beat_until_done(self) -> None:
        with connect(
            self._dsn, application_name="embassy-heartbeat", autocommit=True, settings=large_objects.SETTINGS
        ) as connection:
            self._known(connection)
            source_schema.commit_without_disk(connection)
            exchange = Exchange(connection)
            while True:
                with self._turns.taken():
                    self._work(exchange)
                if not self._rest():
                    return

    def _work(self, exchange: Exchange) -> None:
        now, carried = time.monotonic(), self._carried()
        errands = [
            chore.errand for chore, due in self._chores if chore.wanted() and due.take(now, carried=carried)
        ]
        exchange.run([Errand(self._beat, partial(self._beaten, carried)), *errands])

    def _beat(self) -> Question:
        stages = self._stages()
        return source_schema.beat_question(_as_time(stages.captured), _as_time(stages.published))

    def _beaten(self, carried: bool, _answer: Answer) -> bool:  # noqa: FBT001 - bound to a beat
        self._failing = False
        self._pace.beaten(time.monotonic(), carried=carried)
        return True

    def _rest(self) -> bool:
        """Wait until the next beat is due; False if there will be none."""
        while not self._done:
            now = time.monotonic()
            if not self._stirred.wait(self._pace.next_at(now) - now):
                return True
            self._stirred.clear()
            self._pace.rouse(time.monotonic())
        return False


def beat(connection: psycopg.Connection[Any], stages: Stages) -> None:
    """Beat once."""
    source_schema.beat(connection, _as_time(stages.captured), _as_time(stages.published))


def _as_time(microseconds: int) -> datetime | None:
    return datetime.fromtimestamp(microseconds / 1e6, UTC) if microseconds else None
