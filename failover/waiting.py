"""Telling people what is waited for, while it is."""

from __future__ import annotations

from collections.abc import Callable

TELL_SECONDS = 5.0
"""What takes less long is not told."""


class Waiting:
    """One wait."""

    def __init__(self, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._told_at = clock()

    def on(self, words: Callable[[], str]) -> None:
        """It is still waited for this; told when that was not done for a while."""
        if self._clock() - self._told_at >= TELL_SECONDS:
            self._told_at = self._clock()
            self._tell(words())
