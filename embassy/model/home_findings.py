"""What is not as it should be at home: from the source's log to home Kafka, the producer's work."""

from __future__ import annotations

from collections.abc import Iterator

from embassy.model.findings import (
    CLOCKS,
    DOCTOR_HOME,
    DOCTOR_KAFKA,
    LOOK,
    PROVISION,
    RESYNC,
    Condition,
    Finding,
    Stage,
    dated,
    has_begun,
    no_topic,
    unknown,
)
from embassy.model.measures import Limits, source_seen
from embassy.model.observation import Absent, FenceSeen, Observation, Side, SlotSeen, SourceSeen
from embassy.model.wording import instant, size, span


def producer(observation: Observation, limits: Limits) -> Iterator[Finding]:
    """From the source to home Kafka."""
    found = tuple(_source(observation, limits)) if Side.SOURCE in observation.sides else ()
    yield from found
    if Side.HOME in observation.sides:
        silent = any(finding.condition in (Condition.STALLED, Condition.FENCED) for finding in found)
        yield from _home(observation, limits, begun=has_begun(observation), silent=silent)


def _source(observation: Observation, limits: Limits) -> Iterator[Finding]:
    stage, source = Stage.PRODUCER, observation.source
    if source is None:
        yield unknown(stage, "the source could not be read", DOCTOR_HOME)
        return
    if isinstance(source, Absent):
        yield Finding(stage, Condition.PROVISIONING, source.what, PROVISION)
        return
    if source.follows:  # whatever else is seen, a slot that is gone or a fence, follows from it
        yield _elsewhere(source.follows, observation.enrolled_epoch)
        return
    if source.fence is not None:  # so it does from this
        yield _fenced(source.fence, source.clock.now)
        return
    if source.half_shut:
        text = (
            "writes are refused here, and no plan or report is noted that wants it: a command was stopped half way"
        )
        remedy = "run it again: embassy home fence, embassy home release, or embassy failback run"
        yield Finding(stage, Condition.FENCED, text, remedy)
    if source.slot is None:
        if source.began_at is None:
            yield Finding(stage, Condition.PROVISIONING, "there is no replication slot yet", PROVISION)
        else:
            text = (
                "the replication slot is gone although the stream has begun: what was committed since is not in it"
            )
            yield Finding(stage, Condition.BROKEN, text, RESYNC)
        return
    if source.slot.lost:
        yield Finding(
            stage, Condition.BROKEN, f"the source has dropped the slot's log: {source.slot.lost}", RESYNC
        )
    elif source.began_at is None:
        yield Finding(
            stage,
            Condition.PROVISIONING,
            "the stream has not begun: no producer has run",
            "start the producer",
        )
    else:
        yield from _beating(source, source.slot, limits)


def _elsewhere(follows: int, enrolled: int | None) -> Finding:
    """A database that was a source, or is to be one, and is a replica meanwhile."""
    text = f"the database is a replica of epoch {follows}: the registry is elsewhere"
    if enrolled is not None and enrolled > follows:
        text += f", until a promotion here gives it epoch {enrolled}"
        remedy = "docs/runbooks/failback.md, Home is the registry again: embassy promote plan"
    else:
        remedy = "nothing to do here; how well it follows, status tells with the file that names it as a replica"
    return Finding(Stage.PRODUCER, Condition.FENCED, text, remedy)


def _fenced(fence: FenceSeen, now: float) -> Finding:
    shut = f"shut by {fence.by} since {instant(fence.fenced_at, now=now)}"
    if fence.proven:
        text = f"superseded: the registry is written to elsewhere, in epoch {fence.to_epoch}; {shut}"
        return Finding(Stage.PRODUCER, Condition.FENCED, text, "docs/runbooks/failback.md: embassy failback run")
    text = f"nobody can write here: {shut}, for a switchover to epoch {fence.to_epoch}"
    remedy = "at the site that is to have it: embassy promote run; or promote abort there, then embassy home release here"
    return Finding(Stage.PRODUCER, Condition.FENCED, text, remedy)


def _beating(source: SourceSeen, slot: SlotSeen, limits: Limits) -> Iterator[Finding]:
    """The beat is told by the clock that wrote it."""
    stage, now = Stage.PRODUCER, source.clock.now
    retained = f"; the source keeps {size(slot.retained_bytes)} of log" if slot.retained_bytes is not None else ""
    if not slot.active:
        since = f" (last heartbeat {instant(source.beat.beat_at, now=now)})" if source.beat else ""
        text = f"no producer holds the slot{since}{retained}"
        yield Finding(stage, Condition.STALLED, text, "start the producer; if it runs, its log says why it waits")
    elif source.beat is None:
        yield Finding(stage, Condition.STALLED, "no heartbeat was ever written at the source", DOCTOR_HOME)
    elif now - source.beat.beat_at < -limits.clock_seconds:
        text = f"the last heartbeat is {span(source.beat.beat_at - now)} ahead of the source's own clock"
        yield unknown(stage, text, CLOCKS)
    elif now - source.beat.beat_at > limits.fresh_seconds:
        text = f"the producer holds the slot and has written no heartbeat for {span(now - source.beat.beat_at)}{retained}"
        yield Finding(stage, Condition.STALLED, text, "see the producer's log; does the source take writes?")
    elif source.beat.published_at is not None and now - source.beat.published_at > limits.fresh_seconds:
        text = f"home Kafka has what was committed until {instant(source.beat.published_at, now=now)}{retained}"
        yield Finding(stage, Condition.CATCHING_UP, text, "the producer is behind: watch WAL-LAG fall")


def _home(observation: Observation, limits: Limits, *, begun: bool, silent: bool) -> Iterator[Finding]:
    """``silent``: the source has nothing to send, for a reason that was told."""
    stage, topic, source = Stage.PRODUCER, observation.home, source_seen(observation)
    if topic is None:
        yield unknown(stage, "home Kafka could not be read", DOCTOR_KAFKA)
    elif isinstance(topic, Absent):
        yield from no_topic(stage, topic, lost=begun)
    elif topic.empty and begun:
        text = "the home topic is empty although the stream has begun: it was emptied or recreated, or retention passed"
        yield Finding(stage, Condition.BROKEN, text, RESYNC)
    elif topic.empty:
        yield Finding(
            stage, Condition.PROVISIONING, "the home topic is empty: no producer has run", "start the producer"
        )
    elif topic.tail is None:
        yield unknown(stage, "the last records of the home topic are not signed by the enrolled producer", LOOK)
    else:
        confirmed = source.slot.confirmed_lsn if source is not None and source.slot is not None else None
        if confirmed is not None and confirmed > topic.tail.resume_lsn and begun:
            text = (
                f"the slot begins at {confirmed} and the home topic ends at {topic.tail.resume_lsn}: one was recreated, "
                "or the cluster lost records"
            )
            yield Finding(stage, Condition.BROKEN, text, RESYNC)
        age = topic.read_at - topic.tail.appended_at
        last = instant(topic.tail.appended_at, now=topic.read_at)
        text = f"nothing was appended to the home topic since {last}"
        remedy = "see the producer's log; does home Kafka take writes?"
        yield from dated(stage, age, limits, text, remedy, follows=silent)
