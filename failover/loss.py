"""How much of home's last commits a promotion may lose, as far as a replica can tell. Pure."""

from __future__ import annotations

from typing import NamedTuple

from embassy.pg.progress_store import Progress

CLOCK_ERROR_SECONDS = 1.0
"""How far the clocks of two sites are trusted to agree."""


class Loss(NamedTuple):
    """What is not here, in time."""

    seconds: float
    """Home may have committed, for at most so long, what is not here."""
    home_ahead_seconds: float
    """By so much at least is home's clock ahead of the replica's: a commit came here before it was made. 0: not known to
    be ahead."""

    @property
    def words(self) -> str:
        """For people, with what they have to know of it."""
        told = f"at most {self.seconds:.1f} s of home's commits are lost"
        if self.home_ahead_seconds:
            told += f", {ahead(self.home_ahead_seconds)}"
        return told


def loss(progress: Progress, now: float) -> Loss | None:
    """What would be lost if the replica were kept still at an instant; None: it has applied no transaction yet.

    A database that comes home has the embassy's of when that was promoted, before it applies anything.

    Counted from the newest commit that is here. Where a clock cannot be right, that is not known: then from when it came
    here, which is later by what it was under way.

    Args:
        progress: of the replica.
        now: by the replica's clock, in seconds since 1970 UTC.
    """
    if not progress.committed_at:
        return None
    committed, applied = progress.committed_at / 1e6, progress.applied_at / 1e6
    if not applied and committed > now + CLOCK_ERROR_SECONDS:
        return None  # a clock cannot be right, and nothing has come that could be counted from
    ahead_seconds = committed - applied
    if not applied or ahead_seconds <= CLOCK_ERROR_SECONDS:
        ahead_seconds = 0.0
    since = applied if ahead_seconds else committed
    return Loss(round(max(0.0, now - since) + CLOCK_ERROR_SECONDS, 3), round(ahead_seconds, 3))


def ahead(seconds: float) -> str:
    """What clocks that do not agree mean for the number beside it, in words."""
    return (
        "counted from when the last one came here and without what it was under way: home's clock is "
        f"{seconds:.0f} s ahead of this site's, or more"
    )
