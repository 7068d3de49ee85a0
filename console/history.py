"""The last hour as looks have shown it, in memory only: each registry's RPO≤, and every change of state."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from embassy.model.health import State
from embassy.model.look import Look

SPAN_SECONDS = 3600.0
BUCKET_SECONDS = 30.0
_BUCKETS = int(SPAN_SECONDS / BUCKET_SECONDS)
_CHANGES_MOST = 200


class Bucket(NamedTuple):
    """Half a minute of one registry's looks."""

    start: float
    """Seconds since 1970 UTC, by the observer's clock."""
    worst_seconds: float | None
    """The largest RPO≤ that was known; None: none was."""
    unknown: bool
    """Whether in any look of it RPO≤ was not known."""


class Change(NamedTuple):
    """A registry's state has changed between two looks."""

    at: float
    registry: str
    before: State
    after: State


class History:
    """Filled by one thread, and read by that thread only."""

    def __init__(self) -> None:
        self.began_at: float | None = None
        self._buckets: dict[str, deque[Bucket]] = {}
        self._states: dict[str, State] = {}
        self._changes: deque[Change] = deque(maxlen=_CHANGES_MOST)

    def take(self, look: Look) -> tuple[Change, ...]:
        """Add a look; returns which states have changed since the one before."""
        if self.began_at is None:
            self.began_at = look.observed_at
        fresh = []
        for entry in look.streams:
            self._note(entry.registry, look.observed_at, entry.health.measures.rpo_seconds)
            state = entry.health.state
            before = self._states.get(entry.registry)
            self._states[entry.registry] = state
            if before is not None and before is not state:
                fresh.append(Change(look.observed_at, entry.registry, before, state))
        self._changes.extend(fresh)
        return tuple(fresh)

    def buckets(self, registry: str, now: float) -> tuple[Bucket, ...]:
        """A registry's last hour, oldest first; time in which nobody looked is missing."""
        return tuple(b for b in self._buckets.get(registry, ()) if b.start > now - SPAN_SECONDS)

    def changes(self, now: float) -> tuple[Change, ...]:
        """The last hour's changes of state, newest first."""
        return tuple(change for change in reversed(self._changes) if change.at > now - SPAN_SECONDS)

    def _note(self, registry: str, at: float, rpo_seconds: float | None) -> None:
        start = at - at % BUCKET_SECONDS
        kept = self._buckets.setdefault(registry, deque(maxlen=_BUCKETS + 1))
        if kept and kept[-1].start == start:
            last = kept.pop()
            known = [value for value in (last.worst_seconds, rpo_seconds) if value is not None]
            kept.append(Bucket(start, max(known, default=None), last.unknown or rpo_seconds is None))
        else:
            kept.append(Bucket(start, rpo_seconds, rpo_seconds is None))
