"""The state of a stream, concluded from what was observed and from nothing else.

Following is claimed only on end-to-end evidence: a heartbeat that was written at the source, has gone the whole way, and
is fresh in the replica, whose progress is moving. Whether processes run is never evidence; it only helps to say what to
look at next. Whoever looks from a side that does not see the replica is told that side's share, under other names.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from embassy.model.embassy_findings import bridge, consumer
from embassy.model.findings import Condition, Finding, Stage
from embassy.model.home_findings import producer
from embassy.model.measures import Limits, Measures, delay_of, measure, replica_seen
from embassy.model.observation import Observation, Side

__all__ = ["Condition", "Finding", "Health", "Limits", "Stage", "State", "assess"]


class State(Enum):
    """What a stream is doing, as far as can be proven from here."""

    FOLLOWING = "following"
    """A fresh heartbeat has gone all the way into the replica."""
    CARRYING = "carrying"
    """Seen without a replica: fresh signed records reach the embassy's Kafka, and all before it is well."""
    PUBLISHING = "publishing"
    """Seen from home only: the source beats, and fresh signed records reach home Kafka."""
    CATCHING_UP = "catching-up"
    """The replica moves, but what it gets is old."""
    DELAYED = "delayed"
    """A heartbeat has gone all the way, deliberately so much later: an apply delay is set."""
    FROZEN = "frozen"
    """Nothing is applied, because an operator or a threshold said so."""
    SNAPSHOTTING = "snapshotting"
    """What comes is fresh, and a table is still being copied: the replica is not whole."""
    STALLED = "stalled"
    """Nothing fresh arrives."""
    PROMOTING = "promoting"
    """A promotion has raised the epoch and has not opened the registry: nobody serves it."""
    PROMOTED = "promoted"
    """The replica has a higher epoch than its enrolment: it is the registry, and follows nothing any more."""
    FENCED = "fenced"
    """The source is shut: the registry is written to elsewhere, or is about to be."""
    PROVISIONING = "provisioning"
    """Something has still to be made, or nothing has been applied yet."""
    BROKEN = "broken"
    """Something was lost that the stream cannot go on without; waiting will not help."""
    UNKNOWN = "unknown"
    """What would have to be seen was not seen."""

    @property
    def healthy(self) -> bool:
        """Whether all that can be seen from here is as it should be."""
        return self in (State.FOLLOWING, State.DELAYED, State.CARRYING, State.PUBLISHING)


_STATES = {
    Condition.PROMOTING: State.PROMOTING,
    Condition.PROMOTED: State.PROMOTED,
    Condition.FENCED: State.FENCED,
    Condition.BROKEN: State.BROKEN,
    Condition.PROVISIONING: State.PROVISIONING,
    Condition.FROZEN: State.FROZEN,
    Condition.STALLED: State.STALLED,
    Condition.CATCHING_UP: State.CATCHING_UP,
    Condition.SNAPSHOTTING: State.SNAPSHOTTING,
    Condition.UNKNOWN: State.UNKNOWN,
}
_WORST_FIRST = tuple(_STATES)


class Health(NamedTuple):
    """A stream's state, and what it was concluded from."""

    state: State
    measures: Measures
    findings: tuple[Finding, ...]
    """What is not as it should be, in the direction of the current."""

    @property
    def causes(self) -> tuple[Finding, ...]:
        """What to look at: `cause`, then what else is amiss by itself and not for want of something before it."""
        first = self.cause
        others = (
            f for f in self.findings if f is not first and not f.follows and f.condition is not Condition.UNKNOWN
        )
        return () if first is None else (first, *others)

    @property
    def cause(self) -> Finding | None:
        """What to look at first: a promotion, else what is broken, else the first stale stage; None if nothing is amiss.

        Nothing of the stream is applied behind a promotion: a bridge that has gone silent since explains nothing. But
        what could not be read in front of a stale stage may explain it: a cluster that is away, above all.
        """
        known = [finding for finding in self.findings if finding.condition is not Condition.UNKNOWN]
        promoted = [finding for finding in known if finding.condition in (Condition.PROMOTING, Condition.PROMOTED)]
        broken = [finding for finding in known if finding.condition is Condition.BROKEN]
        stale = {Condition.STALLED, Condition.CATCHING_UP}
        behind = self.findings if known and known[0].condition in stale else known
        return next(iter((*promoted, *broken, *behind, *self.findings)), None)


def assess(observation: Observation, limits: Limits) -> Health:
    """Conclude."""
    measures = measure(observation, limits)
    sides = observation.sides
    own: tuple[Finding, ...] = ()
    before: tuple[Finding, ...] = ()
    if sides & {Side.SOURCE, Side.HOME}:
        before += tuple(producer(observation, limits))
    if Side.FOREIGN in sides:
        before += tuple(bridge(observation, limits))
    if Side.REPLICA in sides:
        own = tuple(consumer(observation, measures, limits))
    findings = before + own
    conditions = {finding.condition for finding in findings}
    if Condition.PROMOTING in conditions:
        return Health(State.PROMOTING, measures, findings)
    if Condition.PROMOTED in conditions:
        return Health(State.PROMOTED, measures, findings)
    if Condition.FENCED in conditions and Side.REPLICA not in sides:
        return Health(State.FENCED, measures, findings)
    if Condition.BROKEN in conditions:
        return Health(State.BROKEN, measures, findings)
    if Side.REPLICA in sides:
        kept = State.DELAYED if delay_of(replica_seen(observation)) else State.FOLLOWING
        state = _STATES[own[0].condition] if own else kept
    elif findings:
        state = _STATES[next(condition for condition in _WORST_FIRST if condition in conditions)]
    else:
        state = _share(sides)
    return Health(state, measures, findings)


def _share(sides: frozenset[Side]) -> State:
    """What may be claimed where the replica is not seen and nothing else is amiss."""
    if Side.FOREIGN in sides:
        return State.CARRYING
    return State.PUBLISHING if Side.HOME in sides else State.UNKNOWN
