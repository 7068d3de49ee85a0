"""Whatever is observed, nothing is claimed beyond it."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from embassy.model.health import State, assess
from embassy.model.lsn import Lsn
from embassy.model.observation import (
    Absent,
    Beat,
    Clock,
    ControlSeen,
    FenceSeen,
    Observation,
    ProgressSeen,
    ReplicaSeen,
    Side,
    SlotSeen,
    SourceSeen,
    TailSeen,
    TopicSeen,
)
from tests.harness.observations import (
    ALL_SIDES,
    BRIDGE,
    CLOCK,
    EMBASSY,
    HOME,
    LIMITS,
    NOW,
    PROGRESS,
    REPLICA,
    SLOT,
    SOURCE,
    well,
)

FULL = well()


def _or(good: Any, *others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what is well, so that what is nearly well is common."""
    return st.one_of(st.just(good), st.just(good), *others)


NONE = st.none()
instants = st.floats(NOW - 7200, NOW + 7200) | st.floats(NOW - 20, NOW + 3)
maybe_instants = NONE | instants
lsns = st.builds(Lsn, st.integers(0, 20_000))
sequences = st.integers(0, 200)
epochs = _or(1, st.just(2))
absents = st.builds(Absent, st.just("it does not exist"))
clocks = _or(CLOCK, st.builds(Clock, st.floats(NOW - 30, NOW), st.floats(-3600, 3600), st.floats(0, 0.5)))
beats = _or(REPLICA.beat, NONE, st.builds(Beat, instants, maybe_instants, maybe_instants))
slots = _or(
    SLOT,
    NONE,
    st.builds(SlotSeen, st.booleans(), st.sampled_from(["", "wal_removed"]), NONE | lsns, NONE, NONE),
)
fences = _or(None, st.builds(FenceSeen, epochs, st.just("anna"), instants, st.booleans()))
sources = st.builds(
    SourceSeen, clocks, _or(SOURCE.flushed_lsn, lsns), beats, _or(NOW - 90, maybe_instants), slots, fences
)
tails = st.builds(TailSeen, sequences, sequences, epochs, lsns, instants, st.booleans())
topics = st.builds(TopicSeen, st.floats(NOW - 30, NOW), st.integers(0, 50), st.integers(50, 99), NONE | tails)
progresses = st.builds(
    ProgressSeen,
    epochs,
    _or(98, sequences),
    _or(Lsn(9_800), lsns),
    _or(98, sequences),
    maybe_instants,
    maybe_instants,
)
controls = _or(
    None,
    st.builds(
        ControlSeen, _or(None, instants), st.just("anna"), st.just("rows vanish"), _or(0.0, st.just(3600.0))
    ),
)
replicas = st.builds(
    ReplicaSeen,
    clocks,
    beats,
    _or(PROGRESS, NONE, progresses),
    st.sampled_from(["", "someone"]),
    st.just(""),
    controls,
)
observations = st.builds(
    Observation,
    st.just(NOW),
    st.frozensets(st.sampled_from(Side)) | st.sampled_from([ALL_SIDES, EMBASSY, HOME, BRIDGE]),
    _or(1, NONE, epochs),
    _or(FULL.replica, NONE, absents, replicas, replicas),
    _or(FULL.foreign, NONE, absents, topics),
    _or(FULL.source, NONE, absents, sources, sources),
    _or(FULL.home, NONE, absents, topics),
    _or(FULL.unsent_since, maybe_instants),
)


def test_the_observations_of_these_tests_are_of_every_state() -> None:
    seen: set[State] = set()
    behind_on_purpose = FULL._replace(
        replica=REPLICA._replace(control=ControlSeen(None, "anna", "rows vanish", 3600.0))
    )

    @settings(max_examples=2000, database=None, derandomize=True)
    @given(observations)
    @example(behind_on_purpose)
    @example(FULL._replace(replica=REPLICA._replace(progress=PROGRESS._replace(epoch=2))))
    def look(observation: Observation) -> None:
        seen.add(assess(observation, LIMITS).state)

    look()
    assert seen == set(State)


@given(observations)
def test_following_is_claimed_only_on_fresh_evidence_from_the_replica(observation: Observation) -> None:
    health = assess(observation, LIMITS)
    if health.state is not State.FOLLOWING:
        return
    replica = observation.replica
    assert Side.REPLICA in observation.sides
    assert isinstance(replica, ReplicaSeen)
    assert replica.beat is not None
    assert replica.progress is not None
    assert replica.progress.sequence > 0
    assert replica.progress.applied_at is not None
    moved = replica.clock.now - replica.progress.applied_at
    assert -LIMITS.clock_seconds <= moved <= LIMITS.fresh_seconds
    clocks = [replica.clock.now, replica.clock.read_at]
    if isinstance(observation.source, SourceSeen):
        clocks = [replica.clock.read_at + observation.source.clock.ahead_seconds]
    for now in clocks:
        assert now - replica.beat.beat_at <= LIMITS.fresh_seconds
    assert max(clocks) - replica.beat.beat_at >= -LIMITS.clock_seconds
    assert replica.control is None or (replica.control.frozen_at, replica.control.delay_seconds) == (None, 0)


@given(observations)
def test_a_frozen_stream_is_never_healthy_and_a_delayed_one_says_so(observation: Observation) -> None:
    health, replica = assess(observation, LIMITS), observation.replica
    if not isinstance(replica, ReplicaSeen) or replica.control is None or Side.REPLICA not in observation.sides:
        assert health.state not in (State.FROZEN, State.DELAYED)
        return
    control = replica.control
    if control.frozen_at is not None:
        assert not health.state.healthy
        assert health.state is not State.DELAYED
    elif health.state is State.DELAYED:
        assert replica.beat is not None
        assert health.measures.heartbeat_age_seconds is not None
        assert health.measures.heartbeat_age_seconds <= control.delay_seconds + LIMITS.fresh_seconds


@given(observations)
def test_another_healthy_word_is_claimed_only_if_all_that_is_configured_was_seen_well(
    observation: Observation,
) -> None:
    health = assess(observation, LIMITS)
    if health.state not in (State.CARRYING, State.PUBLISHING):
        return
    assert Side.REPLICA not in observation.sides
    seen = {Side.SOURCE: observation.source, Side.HOME: observation.home, Side.FOREIGN: observation.foreign}
    for side in observation.sides:
        place = seen[side]
        if isinstance(place, TopicSeen):
            assert place.tail is not None
            assert place.read_at - place.tail.appended_at <= LIMITS.fresh_seconds
        else:
            assert isinstance(place, SourceSeen)
            assert place.beat is not None
            assert place.clock.now - place.beat.beat_at <= LIMITS.fresh_seconds
            assert place.slot is not None
            assert place.slot.active


_MANDATORY: dict[str, Any] = {
    "replica": lambda o, _: o._replace(replica=None),
    "no schema": lambda o, _: o._replace(replica=Absent("no table")),
    "heartbeat": lambda o, _: o._replace(replica=o.replica._replace(beat=None)),
    "progress": lambda o, _: o._replace(replica=o.replica._replace(progress=None)),
    "applied_at": lambda o, _: _progress(o, applied_at=None),
    "anything applied": lambda o, _: _progress(o, sequence=0),
    "fresh heartbeat": lambda o, age: o._replace(
        replica=o.replica._replace(beat=o.replica.beat._replace(beat_at=o.replica.clock.now - age))
    ),
    "fresh progress": lambda o, age: _progress(o, applied_at=o.replica.clock.now - age),
}


def _progress(observation: Any, **changes: Any) -> Observation:
    replica = observation.replica
    changed: Observation = observation._replace(
        replica=replica._replace(progress=replica.progress._replace(**changes))
    )
    return changed


@given(
    sides=st.frozensets(st.sampled_from(Side)).map(lambda sides: sides | {Side.REPLICA}),
    lacking=st.sampled_from(sorted(_MANDATORY)),
    stale_seconds=st.floats(LIMITS.fresh_seconds + 0.01, 1e8),
)
def test_a_stream_that_is_well_but_for_one_thing_is_not_following(
    sides: frozenset[Side], lacking: str, stale_seconds: float
) -> None:
    observation = well(sides)
    assert assess(observation, LIMITS).state is State.FOLLOWING
    assert assess(_MANDATORY[lacking](observation, stale_seconds), LIMITS).state is not State.FOLLOWING


@given(observations)
def test_what_is_not_green_says_why_and_what_to_do(observation: Observation) -> None:
    health = assess(observation, LIMITS)
    if not health.state.healthy and observation.sides - {Side.SOURCE}:
        assert health.cause is not None
    for finding in health.findings:
        assert finding.text
        assert finding.remedy


@given(observations)
def test_distances_are_never_negative_and_need_both_ends(observation: Observation) -> None:
    measures = assess(observation, LIMITS).measures
    distances = (
        measures.wal_lag_bytes,
        *measures.bridge,
        *measures.apply,
        measures.lag_seconds,
        measures.rpo_seconds,
    )
    assert all(value is None or value >= 0 for value in distances)
    if not isinstance(observation.replica, ReplicaSeen):
        assert (measures.rpo_seconds, measures.lag_seconds, *measures.apply) == (None,) * 4
    if not isinstance(observation.foreign, TopicSeen):
        assert (*measures.apply, *measures.bridge) == (None,) * 4
    if not isinstance(observation.home, TopicSeen):
        assert (measures.wal_lag_bytes, *measures.bridge) == (None,) * 3
    if not isinstance(observation.source, SourceSeen):
        assert measures.wal_lag_bytes is None


@given(
    source_ahead=st.floats(-0.5, 0.5),
    replica_ahead=st.floats(-0.5, 0.5),
    age=st.floats(0, 1e6),
    source_is_seen=st.booleans(),
    misread=st.floats(-1, 1),
)
def test_the_loss_is_never_more_than_it_says(
    source_ahead: float, replica_ahead: float, age: float, *, source_is_seen: bool, misread: float
) -> None:
    """Clocks that differ by no more than is assumed, or that were read: the true age is within the bound."""
    error = 0.05
    committed = NOW - age + source_ahead
    progress = REPLICA.progress
    assert progress is not None
    replica = REPLICA._replace(
        clock=Clock(NOW, replica_ahead, 0.0),
        beat=Beat(committed - 0.1, None, None),
        progress=progress._replace(applied_at=NOW + replica_ahead - 0.1, committed_at=committed),
    )
    source = well().source
    assert isinstance(source, SourceSeen)
    source = source._replace(clock=Clock(NOW, source_ahead + misread * error, error))
    observation = well()._replace(replica=replica, source=source if source_is_seen else None)
    measures = assess(observation, LIMITS).measures
    note(str(measures))
    assert measures.rpo_seconds is not None
    assert measures.rpo_seconds >= age - 1e-6
