"""What is not as it should be abroad: the bridge's work up to the embassy's Kafka, the consumer's into the replica."""

from __future__ import annotations

from collections.abc import Iterator

from embassy.model.findings import (
    CLOCKS,
    DOCTOR_EMBASSY,
    DOCTOR_HOME,
    DOCTOR_KAFKA,
    FAILBACK,
    GO_ON,
    LOOK,
    PROVISION,
    RESYNC,
    UNFREEZE,
    Condition,
    Finding,
    Stage,
    applied_progress,
    dated,
    no_topic,
    unknown,
)
from embassy.model.measures import Limits, Measures, applied_age, delay_of, tail_of
from embassy.model.observation import (
    Absent,
    ControlSeen,
    CopySeen,
    Observation,
    ProgressSeen,
    ReplicaSeen,
    TopicSeen,
)
from embassy.model.wording import instant, span

_COPIES_TOLD = 5
_CARRY_AGAIN = (
    "if home Kafka still holds it, make the embassy's topic anew: the bridge then carries all that home holds; "
    "else resync (docs/operations.md#broken)"
)


def bridge(observation: Observation, limits: Limits) -> Iterator[Finding]:
    """From home Kafka to the embassy's."""
    topic = observation.foreign
    applied = applied_progress(observation)
    if topic is None:
        yield unknown(Stage.BRIDGE, "the embassy's Kafka could not be read", DOCTOR_KAFKA)
    elif isinstance(topic, Absent):
        yield from no_topic(Stage.BRIDGE, topic, lost=applied is not None)
    elif topic.tail is None:
        yield from _no_record_abroad(observation, topic, applied)
    else:
        yield from _arriving(observation, topic, limits)


def consumer(observation: Observation, measures: Measures, limits: Limits) -> Iterator[Finding]:
    """From the embassy's Kafka into the replica: empty only if a fresh heartbeat has come all the way."""
    replica = observation.replica
    stage = Stage.CONSUMER
    if replica is None:
        yield unknown(stage, "the replica could not be read", DOCTOR_EMBASSY)
    elif _awaits_failback(observation, replica):
        epoch = None if isinstance(replica, Absent) or replica.progress is None else replica.progress.epoch
        at = "a registry's own" if epoch is None else f"at epoch {epoch}"
        text = f"the database is {at}, and the stream is of epoch {observation.enrolled_epoch}: it does not follow yet"
        yield Finding(stage, Condition.PROVISIONING, text, FAILBACK)
    elif isinstance(replica, Absent):
        yield Finding(stage, Condition.PROVISIONING, replica.what, PROVISION)
    elif replica.progress is None:
        yield Finding(stage, Condition.PROVISIONING, "the replica has no progress row of this stream", PROVISION)
    else:
        contradictions = tuple(_contradicted(observation, replica.progress))
        yield from contradictions
        if any(found.condition in (Condition.PROMOTED, Condition.PROMOTING) for found in contradictions):
            return  # it follows nothing any more
        if replica.control is not None and replica.control.frozen_at is not None:
            yield _frozen(observation, replica.control, replica.control.frozen_at)
            return
        yield from _following(observation, replica, replica.progress, measures, limits)
        yield from _copying(replica)


def _awaits_failback(observation: Observation, replica: ReplicaSeen | Absent) -> bool:
    """Whether the stream has turned round, and the database is still what it was before."""
    enrolled = observation.enrolled_epoch or 0
    progress = None if isinstance(replica, Absent) else replica.progress
    return enrolled > 1 and (progress is None or progress.epoch < enrolled)


# ---------------------------------------------------------------------- bridge


def _no_record_abroad(
    observation: Observation, topic: TopicSeen, applied: ProgressSeen | None
) -> Iterator[Finding]:
    stage = Stage.BRIDGE
    if not topic.empty:
        text = "the last records of the embassy's topic are not signed by the enrolled producer"
        yield unknown(stage, text, LOOK)
    elif applied is not None and topic.next_offset < applied.next_offset:
        yield _shorter(f"is empty, and the replica has applied up to record {applied.sequence}")
    elif tail_of(observation.home) is not None or applied is not None:
        text = "the embassy's topic holds no record"
        yield Finding(stage, Condition.STALLED, text, "start the bridge; if it runs, see its log")
    else:
        text = "nothing has come to the embassy's topic yet"
        yield Finding(stage, Condition.PROVISIONING, text, "start the producer at home, then the bridge")


def _arriving(observation: Observation, topic: TopicSeen, limits: Limits) -> Iterator[Finding]:
    stage, tail, home = Stage.BRIDGE, topic.tail, tail_of(observation.home)
    assert tail is not None, "the caller has looked"
    if home is not None and home.epoch == tail.epoch and home.sequence < tail.sequence:
        text = (
            f"home Kafka ends at record {home.sequence} and the embassy's at {tail.sequence}: home lost records, or its "
            "topic was recreated"
        )
        yield Finding(Stage.PRODUCER, Condition.BROKEN, text, RESYNC)
        return
    if home is not None and home.epoch == tail.epoch and _passed_over(observation.home, tail.sequence):
        text = f"home Kafka no longer holds record {tail.sequence + 1}, which the bridge lacks: retention passed"
        yield Finding(stage, Condition.BROKEN, text, RESYNC)
        return
    age = topic.read_at - tail.appended_at
    last = instant(tail.appended_at, now=topic.read_at)
    behind = home is not None and home.sequence > tail.sequence
    if home is None:
        text = f"nothing has come to the embassy's topic since {last}: the bridge, or home, which is not seen from here"
    elif behind:
        text = f"the bridge has carried nothing since {last}, and home has more"
    else:
        text = f"nothing has come to the embassy's topic since {last}: the bridge has carried all there is"
    yield from dated(
        stage,
        age,
        limits,
        text,
        "see the bridge's log, and embassy status at home",
        follows=home is not None and not behind,
    )
    if behind and age <= limits.fresh_seconds:
        yield from _unsent(observation, topic, limits)


def _unsent(observation: Observation, topic: TopicSeen, limits: Limits) -> Iterator[Finding]:
    since, home, tail = observation.unsent_since, tail_of(observation.home), topic.tail
    assert home is not None, "the caller has looked"
    assert tail is not None, "the caller has looked"
    if since is not None and topic.read_at - since <= limits.fresh_seconds:
        return
    count = home.sequence - tail.sequence
    oldest = f", the oldest from {instant(since, now=topic.read_at)}" if since is not None else ""
    text = f"the bridge has {count} records still to carry{oldest}"
    yield Finding(
        Stage.BRIDGE, Condition.CATCHING_UP, text, "watch BRIDGE-LAG fall; if it grows, see the bridge's log"
    )


# ---------------------------------------------------------------------- consumer


def _contradicted(observation: Observation, progress: ProgressSeen) -> Iterator[Finding]:
    enrolled, tail = observation.enrolled_epoch, tail_of(observation.foreign)
    if progress.opening:
        text = (
            f"epoch {progress.epoch} is raised, and the registry is not open yet: nothing is applied any more, and "
            "writing may still be refused"
        )
        yield Finding(Stage.CONSUMER, Condition.PROMOTING, text, GO_ON)
    elif enrolled is not None and progress.epoch > enrolled:
        text = (
            f"the replica was promoted to epoch {progress.epoch}: nothing of epoch {enrolled} is applied any more"
        )
        yield Finding(Stage.CONSUMER, Condition.PROMOTED, text, "embassy promote status")
    elif enrolled is not None and progress.epoch != enrolled:
        text = f"the replica is at epoch {progress.epoch}, the enrolment is for epoch {enrolled}"
        remedy = "use the enrolment that the replica was provisioned with, or provision it anew"
        yield Finding(Stage.CONSUMER, Condition.BROKEN, text, remedy)
    elif tail is not None and tail.epoch == progress.epoch and tail.sequence < progress.sequence:
        yield _shorter(
            f"ends at record {tail.sequence}, and the replica has applied up to record {progress.sequence}"
        )
    elif (
        tail is not None and tail.epoch == progress.epoch and _passed_over(observation.foreign, progress.sequence)
    ):
        text = (
            f"the embassy's topic no longer holds record {progress.sequence + 1}, which the replica lacks: "
            "retention passed"
        )
        yield Finding(Stage.CONSUMER, Condition.BROKEN, text, _CARRY_AGAIN)


def _passed_over(topic: TopicSeen | Absent | None, sequence: int) -> bool:
    """Whether a topic that ends in a record of the stream is too short for all that come behind a certain one."""
    tail = tail_of(topic)
    if tail is None or not isinstance(topic, TopicSeen):
        return False
    return tail.sequence - sequence > topic.next_offset - topic.first_offset


def _following(
    observation: Observation, replica: ReplicaSeen, progress: ProgressSeen, measures: Measures, limits: Limits
) -> Iterator[Finding]:
    stage, age, moved = Stage.CONSUMER, measures.heartbeat_age_seconds, applied_age(replica)
    fresh_seconds = limits.fresh_seconds + delay_of(replica)
    if progress.sequence == 0:
        text = "nothing has been applied"
        yield Finding(stage, Condition.PROVISIONING, text, "start producer, bridge and consumer, in that order")
    elif moved is None:
        yield unknown(stage, "the replica does not tell when it last applied anything", DOCTOR_EMBASSY)
    elif not moved >= -limits.clock_seconds:
        yield unknown(stage, f"the replica last moved {span(-moved)} ahead of its own clock", CLOCKS)
    elif age is not None and -limits.clock_seconds <= age < delay_of(replica):
        return  # fresher than it is meant to be: nothing is due
    elif moved > limits.fresh_seconds:
        yield _standing_still(observation, replica, progress, moved)
    elif age is None:
        text = "the replica moves, but no heartbeat has come: does the publication include embassy.heartbeat?"
        yield Finding(stage, Condition.STALLED, text, DOCTOR_HOME)
    elif not age >= -limits.clock_seconds:
        yield unknown(stage, f"the last heartbeat is {span(-age)} in the future: clocks differ", CLOCKS)
    elif age > fresh_seconds and moved > limits.moving_seconds:
        yield _standing_still(observation, replica, progress, moved)
    elif age > fresh_seconds:
        text = f"the replica moves, but its heartbeat is {span(age)} old"
        yield Finding(
            stage, Condition.CATCHING_UP, text, "watch LAG fall; if it stays, compare the servers' clocks"
        )


def _frozen(observation: Observation, control: ControlSeen, frozen_at: float) -> Finding:
    since = instant(frozen_at, now=observation.observed_at)
    text = f"frozen by {control.frozen_by} since {since}: {control.reason}"
    return Finding(Stage.CONSUMER, Condition.FROZEN, text, UNFREEZE)


def _copying(replica: ReplicaSeen) -> Iterator[Finding]:
    if replica.copies:
        told = ", ".join(_copied(copy) for copy in replica.copies[:_COPIES_TOLD])
        rest = len(replica.copies) - _COPIES_TOLD
        text = f"still being copied: {told}" + (f" and {rest} more" if rest > 0 else "")
        remedy = "wait; if it does not go on, see the producer's log"
        yield Finding(Stage.CONSUMER, Condition.SNAPSHOTTING, text, remedy)


def _copied(copy: CopySeen) -> str:
    if copy.lacks_key:
        return f"{copy.table} (not replicated until it has a key at home: doctor, PG12)"
    if copy.rows_expected is None:
        return f"{copy.table} (not begun)"
    return f"{copy.table} ({copy.rows_copied} of about {max(copy.rows_expected, copy.rows_copied)} rows)"


def _standing_still(
    observation: Observation, replica: ReplicaSeen, progress: ProgressSeen, moved: float
) -> Finding:
    tail = tail_of(observation.foreign)
    waiting = max(0, tail.sequence - progress.sequence) if tail is not None else 0
    text = f"nothing was applied for {span(moved)}" + (f" and {waiting} records wait" if waiting else "")
    if not replica.holder:
        text = f"{text}: no consumer holds the lease"
        remedy = "start the consumer; if it runs, its log says why it waits"
        return Finding(Stage.CONSUMER, Condition.STALLED, text, remedy)
    text = f"{text}; {replica.holder} holds the lease"
    if replica.blocked_by:
        text = f"{text} and waits for a lock of process {replica.blocked_by}"
        remedy = (
            f"see pg_stat_activity of the replica; pg_terminate_backend({replica.blocked_by}) ends that session"
        )
        return Finding(Stage.CONSUMER, Condition.STALLED, text, remedy)
    if waiting:
        text += ": a large transaction, a lock, or a halt that its log explains"
    follows = tail is not None and not waiting
    return Finding(Stage.CONSUMER, Condition.STALLED, text, DOCTOR_EMBASSY, follows)


def _shorter(what: str) -> Finding:
    text = f"the embassy's topic {what}: it was emptied or recreated, or its cluster lost records"
    remedy = "restart the bridge: it carries again what home still holds; then start the consumer"
    return Finding(Stage.CONSUMER, Condition.BROKEN, text, remedy)
