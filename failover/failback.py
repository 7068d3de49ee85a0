"""What bringing a superseded database home does next, concluded from what is seen of it and from nothing else. Pure.

Everything is read from the database itself, so there is no journal to be wrong: whoever runs it next, after whatever
crash, sees how far it is. Until the epoch begins, every table refuses writes, by the fence or by the replica's guard.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from failover.promotion import Finished, Refuse, Why


class FailbackStep(StrEnum):
    """The steps, in their order."""

    FENCE = "fence"
    BUNDLE = "bundle"
    GUARD = "guard"
    CLEAR = "clear"
    SLOT = "slot"
    BEGIN = "begin"
    LEVEL = "level"


class SeenHome(NamedTuple):
    """What is seen of a database that a report says is superseded."""

    to_epoch: int
    """The epoch that the report proves, and whose replica it is to become."""
    epoch: int
    """Of its progress row; 0: it never was a replica."""
    raised: bool
    """A promotion here has raised it to that epoch."""
    shut: bool
    """The report's fence is noted, and each table has the fence or the guard."""
    bundled: bool
    """Nothing was committed that did not ship, or it is kept in files."""
    guarded: bool
    """Nobody but a consumer can write, and nothing fires while one does."""
    cleared: bool
    """What never shipped is no longer in its tables, and the rows that are missing now are noted as such."""
    slot: bool
    """The slot of its own reign is still there."""
    level: bool
    """No table waits for rows."""


class Proceed(NamedTuple):
    """Go on with a step."""

    step: FailbackStep


def decide_failback(seen: SeenHome) -> Proceed | Refuse | Finished:
    """Conclude what to do next."""
    if seen.epoch > seen.to_epoch or (seen.raised and seen.epoch >= seen.to_epoch):
        return Refuse(
            Why.STALE,
            f"the report is of epoch {seen.to_epoch}, and the database is at epoch {seen.epoch}",
            "take the report of the promotion that superseded it: embassy promote status",
        )
    if seen.epoch == seen.to_epoch:
        return Finished() if seen.level else Proceed(FailbackStep.LEVEL)
    before = (
        (FailbackStep.FENCE, seen.shut),
        (FailbackStep.BUNDLE, seen.bundled),
        (FailbackStep.GUARD, seen.guarded),
        (FailbackStep.CLEAR, seen.cleared),
        (FailbackStep.SLOT, not seen.slot),
    )
    return Proceed(next((step for step, done in before if not done), FailbackStep.BEGIN))
