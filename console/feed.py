"""The collection that all browsers share: one thread looks at an interval, and keeps the newest page ready.

What a browser asks for is answered from memory, so that no number of them makes a database or a broker work. A look that
hangs leaves the newest one to grow old, which everything that is shown then says (`STALE_SECONDS`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from console.history import Change, History
from console.page import Page
from console.seen import Seen
from embassy.runtime.health import Check
from embassy.runtime.stop import Stop

STALE_SECONDS = 10.0
"""How long the newest look counts."""
_HUNG_SECONDS = 120.0
"""Longer than a look takes in which everything times out."""
_JOIN_SECONDS = 2.0


class Taken(NamedTuple):
    """A look, and the page that shows it."""

    number: int
    """From 1."""
    at: float
    """By the monotonic clock: when it was complete."""
    seen: Seen
    page: Page
    changes: tuple[Change, ...]
    """Since the look before."""


class Feed:
    """Start it, and ask for the newest; `stop` it at the end."""

    def __init__(
        self,
        collect: Callable[[], Seen],
        render: Callable[[Seen, History], Page],
        *,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collect = collect
        self._render = render
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._history = History()
        self._taken: Taken | None = None
        self._turned_at = clock()
        self._told = Stop()
        self._wakes: set[Callable[[], object]] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="looks", daemon=True)
        self.failure: BaseException | None = None
        """What ended the collection; None: it goes on, or was told to stop."""

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End it; a look that is under way is not waited for long."""
        self._told.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    @property
    def ended(self) -> bool:
        """Whether there will be nothing new any more."""
        return self._told.is_set() or self.failure is not None

    def newest(self) -> Taken | None:
        """The newest look; None: there was none yet."""
        return self._taken

    def age(self, taken: Taken) -> float:
        """How long ago a look was complete, in seconds."""
        return max(0.0, self._clock() - taken.at)

    def live(self) -> Check:
        """Whether the collection turns; what it found is another question."""
        silent = self._clock() - self._turned_at
        alive = self.failure is None and silent < _HUNG_SECONDS
        return Check("looks", passed=alive, text=f"the last one began or ended {silent:.0f} s ago")

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Inside the context, ``wake`` is called after each look, and at the end; from another thread."""
        with self._lock:
            self._wakes.add(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakes.discard(wake)

    def _run(self) -> None:
        try:
            while not self._told.is_set():
                began = self._turned_at = self._clock()
                self._turn()
                self._turned_at = self._clock()
                self._told.wait(
                    max(self._interval_seconds - (self._turned_at - began), self._interval_seconds / 4)
                )
        except BaseException as failure:  # noqa: BLE001 - told to whoever serves, who ends with it
            self.failure = failure
            self._wake()

    def _turn(self) -> None:
        seen = self._collect()
        at = self._clock()
        changes = self._history.take(seen.look)
        page = self._render(seen, self._history)
        self._taken = Taken((self._taken.number if self._taken else 0) + 1, at, seen, page, changes)
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            wakes = tuple(self._wakes)
        for wake in wakes:
            wake()
