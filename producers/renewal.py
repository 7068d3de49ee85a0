"""When a producer begins a new incarnation: a fresh data key, and a near anchor for head searches."""

from __future__ import annotations

import threading
from collections.abc import Callable

from embassy.runtime.config import ProducerTuning


class Renewal:
    """Of one stream; used by the producer's loop only, but for what says otherwise."""

    def __init__(self, tuning: ProducerTuning, asked: threading.Event, clock: Callable[[], float]) -> None:
        """Take what tells.

        Args:
            tuning: for so long, and for so many bytes.
            asked: someone wants a fresh data key.
            clock: monotonic.
        """
        self._tuning = tuning
        self._asked = asked
        self._clock = clock
        self._until = 0.0
        self._bytes = 0

    def begins(self) -> None:
        """An incarnation is about to begin; what is asked for from now on is the next one."""
        self._asked.clear()
        self._until = self._clock() + self._tuning.rotate_seconds
        self._bytes = 0

    def sealed(self, size: int) -> None:
        """So many bytes were sealed in it."""
        self._bytes += size

    def due_in(self, seconds: float) -> bool:
        """Whether the time of this one is over in so many seconds; from any thread."""
        return self._clock() + seconds >= self._until

    @property
    def due(self) -> bool:
        """Whether it is time for another."""
        return self.due_in(0) or self._bytes >= self._tuning.rotate_bytes or self._asked.is_set()
