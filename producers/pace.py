"""When the heart beats next: quickly while the registry commits, slowly while nothing but the heart does.

A beat is a transaction that goes the whole way. In an idle registry it is all that does, and its price is that of the
whole stream. So it is slow there: `Settings.slowest_beat_seconds`, which whoever judges a beat's age asks too.

Beats fall on multiples of their interval, so that the streams of a process, and of a host, beat together: each commit
wakes the walsenders of all slots of its server, and many commits at once wake them once.
"""

from __future__ import annotations

import math

QUIET_SECONDS = 5.0
"""For so long after something else was committed the heart is quick."""

_SAME_SHARE = 0.01
"""A beat that was so little early, of its interval, is not followed by another at once."""


class Pace:
    """The heart's clockwork."""

    def __init__(self, quick_seconds: float, slow_seconds: float) -> None:
        """Take both intervals; begin quickly."""
        self._quick = quick_seconds
        self._slow = slow_seconds
        self._quick_until: float | None = None
        self._beaten_at = -math.inf

    def beaten(self, now: float, *, carried: bool) -> None:
        """A beat was written; ``carried``: the registry has committed something since the one before."""
        self._beaten_at = now
        if carried or self._quick_until is None:
            self.rouse(now)

    def rouse(self, now: float) -> None:
        """The registry has committed something."""
        self._quick_until = now + QUIET_SECONDS

    def next_at(self, now: float) -> float:
        """When the next beat is due: not before now, and not with the last one once more."""
        every = self._quick if self._quick_until is None or now < self._quick_until else self._slow
        earliest = max(now, self._beaten_at + every * _SAME_SHARE)
        return math.ceil(earliest / every) * every
