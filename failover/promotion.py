"""What a promotion does next, concluded from what was observed and from nothing else. Pure.

The epoch in the replica's progress row is what decides. Raising it, by compare-and-set, is the point of no return: before
it everything can be abandoned and everything is checked again at each run; behind it there is only going on, whoever
runs it and whatever the clocks say.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple

PERSONS_LEAST = 2
"""However low the roster's threshold is, nobody promotes alone."""


class Mode(StrEnum):
    """Why a replica is promoted."""

    DISASTER = "disaster"
    """Home is lost; what it committed and did not ship is lost with it."""
    SWITCHOVER = "switchover"
    """Home is up, lets nobody write any more and has said so in the stream; nothing is lost."""


class Step(StrEnum):
    """The steps of a promotion, in their order."""

    LOCK = "lock"
    GATE = "gate"
    FENCE_HOME = "fence home"
    DRAIN = "drain"
    SEAL = "seal"
    VERIFY = "verify"
    EPOCH = "epoch"
    SEQUENCES = "sequences"
    REVERSE = "reverse stream"
    OPEN = "open"
    SMOKE = "smoke write"
    REPORT = "report"


NO_RETURN = Step.EPOCH
"""Taking this step is the point of no return."""


def steps(mode: Mode) -> tuple[Step, ...]:
    """The steps of a mode, in order."""
    return tuple(step for step in Step if step is not Step.FENCE_HOME or mode is Mode.SWITCHOVER)


def before_no_return(step: Step) -> bool:
    """Whether a step can still be undone by leaving off; it is taken again by each run."""
    order = tuple(Step)
    return order.index(step) < order.index(NO_RETURN)


class Why(Enum):
    """The family of a refusal."""

    APPROVAL = "approval"
    STALE = "stale"
    GATE = "gate"
    INTEGRITY = "integrity"


class Terms(NamedTuple):
    """What the plan asks for of one stream."""

    mode: Mode
    from_epoch: int
    to_epoch: int
    minimum_sequence: int
    """The replica held this record when the plan was made: one that holds less was rolled back."""
    expires_at: float
    """By the replica's clock, which never goes back (see `Seen.now`); seconds since 1970 UTC."""
    persons_needed: int


class Seen(NamedTuple):
    """What a run sees of its stream before a step."""

    now: float
    """The newest time that the replica's server has ever shown, never home's; seconds since 1970 UTC."""
    epoch: int
    """Of the replica's progress row."""
    sequence: int
    persons: frozenset[str]
    """Who has approved the plan, by the trusted keys of the roster."""
    used_up: bool
    """The plan was aborted, or another one took its place: its nonce is spent."""
    raised_by_plan: bool
    """The journal shows that this very plan has raised the epoch."""
    done: frozenset[Step]
    """Steps that need not be taken again: this run's own, and behind the point of no return the journal's."""
    obstacles: tuple[str, ...] = ()
    """Why the gate is closed."""


class Take(NamedTuple):
    """Go on with a step."""

    step: Step


class Refuse(NamedTuple):
    """Stop here; nothing is changed."""

    why: Why
    reason: str
    hint: str


class Finished(NamedTuple):
    """There is nothing left to do."""


Action = Take | Refuse | Finished

_ANEW = "make a new plan, and have it approved"


def decide(terms: Terms, seen: Seen) -> Action:
    """Conclude what to do next."""
    if not seen.raised_by_plan:
        refusal = _refusal(terms, seen)
        if refusal is not None:
            return refusal
    elif seen.epoch != terms.to_epoch:
        return Refuse(
            Why.INTEGRITY,
            f"the journal says that this plan raised the epoch to {terms.to_epoch}; the replica is at epoch {seen.epoch}",
            "the replica was restored or changed by hand: keep it as it is, and examine it",
        )
    step = next((step for step in steps(terms.mode) if step not in seen.done), None)
    if step is None:
        return Finished()
    return Take(step)


def _refusal(terms: Terms, seen: Seen) -> Refuse | None:
    """Why the epoch must not be raised, as things are."""
    refusal = _stale(terms, seen) or _unapproved(terms, seen)
    if refusal is None and seen.obstacles and Step.GATE not in seen.done:
        return Refuse(Why.GATE, "; ".join(seen.obstacles), "clear what stands in the way, then run the plan again")
    return refusal


def _stale(terms: Terms, seen: Seen) -> Refuse | None:
    """Why the plan is not of this state."""
    if seen.used_up:
        return Refuse(Why.STALE, "this plan was aborted or replaced: it is used up", _ANEW)
    if seen.epoch != terms.from_epoch or terms.to_epoch != terms.from_epoch + 1:
        return Refuse(
            Why.STALE,
            f"the plan leads from epoch {terms.from_epoch} to {terms.to_epoch}, and the replica is at epoch {seen.epoch}",
            "look at embassy promote status: someone else may have promoted it",
        )
    if seen.sequence < terms.minimum_sequence:
        return Refuse(
            Why.STALE,
            f"the replica is at record {seen.sequence}; when the plan was made it held record {terms.minimum_sequence}",
            "it was rolled back: let its consumer catch up, or find the newer one",
        )
    return None


def _unapproved(terms: Terms, seen: Seen) -> Refuse | None:
    """Why nobody may run the plan."""
    needed = max(PERSONS_LEAST, terms.persons_needed)
    if len(seen.persons) < needed:
        by = f" ({', '.join(sorted(seen.persons))})" if seen.persons else ""
        return Refuse(
            Why.APPROVAL,
            f"the plan is approved by {len(seen.persons)} of the {needed} persons it needs{by}",
            "let another person of keys.operators run embassy promote approve",
        )
    if seen.now >= terms.expires_at:
        return Refuse(
            Why.APPROVAL, f"the plan expired {seen.now - terms.expires_at:.0f} s ago by the replica's clock", _ANEW
        )
    return None
