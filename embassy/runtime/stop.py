"""Being told to stop, for loops that wait for something else than that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

IDLE_WAIT_SECONDS = 11.0
"""How long a stream's loop waits for something to do. Longer than it takes an idle heart among a hundred to beat: an idle
loop turns for beats only."""


class Stop(threading.Event):
    """An event that wakes whoever waits elsewhere, so that nobody has to look again and again whether it is set."""

    def __init__(self) -> None:
        super().__init__()
        self._wakes: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        """Tell all."""
        super().set()
        with self._lock:
            wakes = tuple(self._wakes)
        for wake in wakes:
            wake()

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Inside the context, ``wake`` is called when the event is set; at once if it is. It may come from any thread."""
        with self._lock:
            self._wakes.append(wake)
        try:
            if self.is_set():
                wake()
            yield
        finally:
            with self._lock:
                self._wakes.remove(wake)
