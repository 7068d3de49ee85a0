"""Watching the slots of streams that do not run: the source keeps its log for them, and its disk is finite.

A running stream's heartbeat reads its slot's state. A halted one has no heartbeats, and just then someone has
to know how long the source will hold out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from embassy.model.errors import EmbassyError, IntegrityError
from embassy.pg.connection import connect
from embassy.pg.lost_session import transient
from embassy.pg.slots import SlotState, slot_state

_EVERY_SECONDS = 15.0


class Watched(NamedTuple):
    """One stream's slot, and whom to tell of it."""

    name: str
    dsn: str
    slot: str
    seen: Callable[[SlotState], None]
    lost: Callable[[], None]


class SlotWatch:
    """Looks every few seconds, in a thread of its own, until closed."""

    def __init__(self, slots: Sequence[Watched], running: Callable[[str], bool]) -> None:
        """Begin to watch; ``running`` tells which streams look after their slots themselves."""
        self._slots = slots
        self._running = running
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="slot-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch."""
        self._done.set()
        self._thread.join(timeout=1)

    def _watch(self) -> None:
        while not self._done.wait(_EVERY_SECONDS):
            for watched in self._slots:
                if not self._running(watched.name) and not self._done.is_set():
                    self._look(watched)

    def _look(self, watched: Watched) -> None:
        try:
            with (
                transient(watched.slot),
                connect(watched.dsn, application_name="embassy-slot-watch", autocommit=True) as connection,
            ):
                watched.seen(slot_state(connection, watched.slot))
        except IntegrityError:
            watched.lost()
        except EmbassyError:
            return  # the source cannot be asked; the stream itself has logged why
