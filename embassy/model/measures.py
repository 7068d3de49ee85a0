"""How far each place of a stream is behind the one before it, in bytes, records and seconds.

Ages are told with one clock wherever that can be done. Where the source's clock cannot be read, a heartbeat's age is
taken from the later of the replica's and the observer's clocks, and the clocks are trusted to within
``Limits.clock_seconds``. An age that comes out more negative than that proves that they are not to be trusted: then it is
not known.
"""

from __future__ import annotations

from typing import NamedTuple

from embassy.model.lsn import Lsn
from embassy.model.observation import (
    Observation,
    ProgressSeen,
    ReplicaSeen,
    SourceSeen,
    TailSeen,
    TopicSeen,
)

_STALE_SECONDS = 15.0
MISSED_BEATS = 3
"""So many beats in turn must be missing before their absence means anything."""


class Limits(NamedTuple):
    """Where fresh ends."""

    fresh_seconds: float
    """How old evidence may be that still counts."""
    clock_seconds: float = 1.0
    """How far apart two servers' clocks are assumed to be at most, where that cannot be measured."""

    @property
    def moving_seconds(self) -> float:
        """How recently a replica that is behind must have moved to be called catching up."""
        return self.fresh_seconds / 3

    @classmethod
    def of(cls, *, rpo_seconds: float, slowest_beat_seconds: float) -> Limits:
        """A stream's limits: 15 s or three heartbeats, and never more than the age that its replica may have.

        Args:
            rpo_seconds: that age.
            slowest_beat_seconds: the longest time between two beats, where nothing else is committed.
        """
        return cls(min(rpo_seconds, max(_STALE_SECONDS, MISSED_BEATS * slowest_beat_seconds)))


class Behind(NamedTuple):
    """One place's distance from the one before it; None: not known."""

    size: int | None = None
    """Of write-ahead log, in bytes, between the last whole transactions of the two."""
    records: int | None = None


class Measures(NamedTuple):
    """All distances of a stream; None: not known."""

    epoch: int | None
    wal_lag_bytes: int | None
    """Source's log end to home topic. The log is the whole server's, other databases' changes included."""
    bridge: Behind
    """Home topic to the embassy's topic."""
    apply: Behind
    """The embassy's topic to the replica."""
    heartbeat_at: float | None
    """The replica's heartbeat, by the source's clock."""
    heartbeat_age_seconds: float | None
    """Negative: the source's clock is ahead."""
    applied_age_seconds: float | None
    """Since the replica's progress last moved; told by the replica's clock alone."""
    committed_at: float | None
    """Source time of the newest transaction that the replica has."""
    lag_seconds: float | None
    """From that transaction's commit at the source to its commit in the replica."""
    rpo_seconds: float | None
    """No more than this would be lost if home vanished now: the age of that transaction and the clocks' error."""
    skew_seconds: float | None
    """The clock furthest from the observer's."""


def measure(observation: Observation, limits: Limits) -> Measures:
    """The distances that an observation shows."""
    source, replica = source_seen(observation), replica_seen(observation)
    home, foreign = tail_of(observation.home), tail_of(observation.foreign)
    progress = replica.progress if replica is not None else None
    applied = progress if progress is not None and progress.sequence > 0 else None
    clocks = [seen.clock.ahead_seconds for seen in (source, replica) if seen is not None]
    beat = replica.beat if replica is not None else None
    newest = _newest(beat.beat_at if beat is not None else None, applied)
    return Measures(
        epoch=_epoch(observation, progress, foreign, home),
        wal_lag_bytes=max(0, source.flushed_lsn - home.resume_lsn)
        if source is not None and home is not None
        else None,
        bridge=_behind(home, foreign),
        apply=_behind(foreign, progress),
        heartbeat_at=beat.beat_at if beat is not None and applied is not None else None,
        heartbeat_age_seconds=_age(observation, beat.beat_at)[0]
        if beat is not None and applied is not None
        else None,
        applied_age_seconds=applied_age(replica),
        committed_at=newest if applied is not None else None,
        lag_seconds=_lag(observation, limits),
        rpo_seconds=_bound(observation, newest, limits) if applied is not None else None,
        skew_seconds=max(clocks, key=abs, default=None),
    )


def source_seen(observation: Observation) -> SourceSeen | None:
    """The source, if it answered and is provisioned."""
    return observation.source if isinstance(observation.source, SourceSeen) else None


def replica_seen(observation: Observation) -> ReplicaSeen | None:
    """The replica, if it answered and is provisioned."""
    return observation.replica if isinstance(observation.replica, ReplicaSeen) else None


def tail_of(topic: object) -> TailSeen | None:
    """The newest record of a topic, if the cluster answered and there is one."""
    return topic.tail if isinstance(topic, TopicSeen) else None


def applied_age(replica: ReplicaSeen | None) -> float | None:
    """How long ago the replica's progress moved, by the replica's own clock; None: not known, or never."""
    if replica is None or replica.progress is None or replica.progress.applied_at is None:
        return None
    return replica.clock.now - replica.progress.applied_at


def delay_of(replica: ReplicaSeen | None) -> float:
    """How far a replica is kept behind on purpose, in seconds."""
    return replica.control.delay_seconds if replica is not None and replica.control is not None else 0.0


def _epoch(
    observation: Observation, progress: ProgressSeen | None, foreign: TailSeen | None, home: TailSeen | None
) -> int | None:
    known = [seen.epoch for seen in (progress, foreign, home) if seen is not None]
    return known[0] if known else observation.enrolled_epoch


def _behind(ahead: TailSeen | None, behind: TailSeen | ProgressSeen | None) -> Behind:
    if ahead is None or behind is None or ahead.epoch != behind.epoch:
        return Behind()
    log = _distance(behind.resume_lsn, ahead.resume_lsn)
    return Behind(log, max(0, ahead.sequence - behind.sequence))


def _distance(behind: Lsn, ahead: Lsn) -> int | None:
    """None before the first record: a genesis that leaves the start to the slot has no position."""
    return max(0, ahead - behind) if behind else None


def _newest(beat_at: float | None, progress: ProgressSeen | None) -> float | None:
    """Source time of the newest transaction that is surely in the replica."""
    known = [at for at in (beat_at, progress.committed_at if progress is not None else None) if at is not None]
    return max(known, default=None)


def _age(observation: Observation, at: float) -> tuple[float, float | None]:
    """How old an instant of the source's clock was when the replica was read, and the error if that is known."""
    source, replica = source_seen(observation), replica_seen(observation)
    assert replica is not None, "the instant is from the replica"
    if source is not None:
        now = replica.clock.read_at + source.clock.ahead_seconds
        return now - at, source.clock.error_seconds + replica.clock.error_seconds
    return max(replica.clock.now, replica.clock.read_at) - at, None


def _bound(observation: Observation, newest: float | None, limits: Limits) -> float | None:
    if newest is None:
        return None
    age, error = _age(observation, newest)
    if age < -limits.clock_seconds:
        return None
    return max(0.0, age) + (limits.clock_seconds if error is None else error)


def _lag(observation: Observation, limits: Limits) -> float | None:
    """Known only while the replica moves: the lag of what came last says nothing about what does not come."""
    source, replica = source_seen(observation), replica_seen(observation)
    age = applied_age(replica)
    if replica is None or replica.progress is None or age is None or not 0 - limits.clock_seconds <= age:
        return None
    applied_at, committed_at = replica.progress.applied_at, replica.progress.committed_at
    if age > limits.fresh_seconds or applied_at is None or committed_at is None:
        return None
    if age > limits.moving_seconds and (
        replica.beat is None
        or _age(observation, replica.beat.beat_at)[0] > limits.fresh_seconds + delay_of(replica)
    ):
        return None
    if source is not None:
        applied_at += source.clock.ahead_seconds - replica.clock.ahead_seconds
    lag = applied_at - committed_at
    return max(0.0, lag) if lag >= -limits.clock_seconds else None
