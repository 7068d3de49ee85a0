"""What is not as it should be with a stream: the form, and what all stages share.

A stage without findings is proven well as far as an observation reaches; what was not seen is a finding too.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from embassy.model.measures import Limits, replica_seen, source_seen
from embassy.model.observation import Absent, Observation, ProgressSeen
from embassy.model.wording import span


class Stage(Enum):
    """Whose work a finding is about."""

    PRODUCER = "producer"
    BRIDGE = "bridge"
    CONSUMER = "consumer"


class Condition(Enum):
    """What a finding means for the stream."""

    BROKEN = "broken"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    FENCED = "fenced"
    PROVISIONING = "provisioning"
    FROZEN = "frozen"
    STALLED = "stalled"
    CATCHING_UP = "catching-up"
    SNAPSHOTTING = "snapshotting"
    UNKNOWN = "unknown"


class Finding(NamedTuple):
    """One thing, and the way on."""

    stage: Stage
    condition: Condition
    text: str
    remedy: str
    follows: bool = False
    """Whether what is amiss before this stage explains it: then it is no cause of its own."""


PROVISION = "embassy provision apply"
RESYNC = "resync the stream under a new enrolment; do not promote before reading docs/operations.md#broken"
DOCTOR_HOME = "embassy doctor home"
DOCTOR_KAFKA = "embassy doctor kafka"
DOCTOR_EMBASSY = "embassy doctor embassy"
UNFREEZE = "embassy unfreeze plan"
CLOCKS = "let NTP set the servers' clocks; until then an age cannot be told"
GO_ON = "embassy promote status; if no run is at it, run the same plan again"
FAILBACK = "embassy failback run, with the promotion's report: docs/runbooks/failback.md"
LOOK = "embassy events tail"


def unknown(stage: Stage, text: str, remedy: str) -> Finding:
    """Something that had to be seen was not."""
    return Finding(stage, Condition.UNKNOWN, text, remedy)


def dated(
    stage: Stage, age: float, limits: Limits, text: str, remedy: str, *, follows: bool = False
) -> Iterator[Finding]:
    """A record's age, by the clock of whoever appended it and the observer's."""
    if age < -limits.clock_seconds:
        yield unknown(stage, f"the last record was appended {span(-age)} in the future: clocks differ", CLOCKS)
    elif age > limits.fresh_seconds:
        yield Finding(stage, Condition.STALLED, text, remedy, follows)


def no_topic(stage: Stage, absent: Absent, *, lost: bool) -> Iterator[Finding]:
    """A topic that does not exist; ``lost``: it must have existed once."""
    if lost:
        yield Finding(stage, Condition.BROKEN, f"{absent.what} any more", RESYNC)
    else:
        yield Finding(stage, Condition.PROVISIONING, absent.what, PROVISION)


def has_begun(observation: Observation) -> bool:
    """Whether it is certain that the stream has begun."""
    source = source_seen(observation)
    return (source is not None and source.began_at is not None) or applied_progress(observation) is not None


def applied_progress(observation: Observation) -> ProgressSeen | None:
    """The replica's progress, if it has any."""
    replica = replica_seen(observation)
    progress = replica.progress if replica is not None else None
    return progress if progress is not None and progress.sequence > 0 else None
