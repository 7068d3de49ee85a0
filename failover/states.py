"""The states of a stream's replica, and which may follow which: one table, from which the diagram is drawn too."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum


class StreamState(StrEnum):
    """What a replica is to its stream."""

    PROVISIONING = "provisioning"
    SNAPSHOTTING = "snapshotting"
    FOLLOWING = "following"
    STALLED = "stalled"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    FAILING_BACK = "failing-back"
    FENCED = "fenced"


class Guard(Enum):
    """What must hold for a transition; the value is how people are told."""

    FREE = ""
    ACCEPTED_LOSS = "disaster, with a loss that operators accept"
    BEFORE_NO_RETURN = "abort, before the epoch is raised"
    HIGHER_EPOCH = "a higher epoch is seen"
    VERIFIED_DELTA = "the delta is verified"


S = StreamState

_ORDINARY: Mapping[StreamState, Mapping[StreamState, Guard]] = {
    S.PROVISIONING: {S.SNAPSHOTTING: Guard.FREE},
    S.SNAPSHOTTING: {S.FOLLOWING: Guard.FREE, S.STALLED: Guard.FREE},
    S.FOLLOWING: {S.STALLED: Guard.FREE, S.SNAPSHOTTING: Guard.FREE, S.PROMOTING: Guard.FREE},
    S.STALLED: {S.FOLLOWING: Guard.FREE, S.SNAPSHOTTING: Guard.FREE, S.PROMOTING: Guard.ACCEPTED_LOSS},
    S.PROMOTING: {
        S.FOLLOWING: Guard.BEFORE_NO_RETURN,
        S.STALLED: Guard.BEFORE_NO_RETURN,
        S.PROMOTED: Guard.FREE,
    },
    S.PROMOTED: {S.FAILING_BACK: Guard.FREE, S.FENCED: Guard.HIGHER_EPOCH},
    S.FAILING_BACK: {S.PROMOTED: Guard.FREE, S.FENCED: Guard.FREE},
    S.FENCED: {S.SNAPSHOTTING: Guard.FREE, S.FOLLOWING: Guard.VERIFIED_DELTA},
}

TRANSITIONS: Mapping[StreamState, Mapping[StreamState, Guard]] = {
    state: {**({} if state is S.FENCED else {S.FENCED: Guard.HIGHER_EPOCH}), **following}
    for state, following in _ORDINARY.items()
}
"""From each state the states that may follow, and what must hold. Any state is fenced by a higher epoch."""


def may_follow(before: StreamState, after: StreamState, holding: frozenset[Guard] = frozenset()) -> bool:
    """Whether a state may follow another one.

    Args:
        before: the present state.
        after: the state to come.
        holding: the guards that hold now.
    """
    guard = TRANSITIONS[before].get(after)
    return guard is not None and (guard is Guard.FREE or guard in holding)


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {_name(S.PROVISIONING)}"]
    for before, following in TRANSITIONS.items():
        for after, guard in following.items():
            label = f" : {guard.value}" if guard.value else ""
            lines.append(f"    {_name(before)} --> {_name(after)}{label}")
    return "\n".join(lines) + "\n"


def _name(state: StreamState) -> str:
    return state.value.replace("-", "_")  # Mermaid reads a hyphen as an arrow
