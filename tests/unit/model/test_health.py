"""What is concluded from what was seen: the table."""

from __future__ import annotations

import pytest

from embassy.model.health import Condition, Stage, State, assess
from embassy.model.lsn import Lsn
from embassy.model.measures import Limits
from embassy.model.observation import (
    Absent,
    Beat,
    Clock,
    ControlSeen,
    FenceSeen,
    Observation,
    ReplicaSeen,
    Side,
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
    topic,
    well,
)

EMPTY = TopicSeen(NOW, 0, 0, None)
UNSIGNED = TopicSeen(NOW, 0, 40, None)
NOT_BEGUN = PROGRESS._replace(sequence=0, applied_at=None, committed_at=None, resume_lsn=Lsn(0), next_offset=0)


def old(seconds: float) -> Observation:
    """The replica got nothing for so long; all before it is well."""
    progress = PROGRESS._replace(applied_at=NOW - seconds, committed_at=NOW - seconds - 0.5)
    return well()._replace(replica=REPLICA._replace(beat=Beat(NOW - seconds - 1, None, None), progress=progress))


def test_what_is_well_is_called_by_how_far_it_is_seen() -> None:
    for sides, state in {
        ALL_SIDES: State.FOLLOWING,
        EMBASSY: State.FOLLOWING,
        frozenset({Side.REPLICA}): State.FOLLOWING,
        BRIDGE: State.CARRYING,
        frozenset({Side.FOREIGN}): State.CARRYING,
        HOME: State.PUBLISHING,
        frozenset({Side.HOME}): State.PUBLISHING,
    }.items():
        health = assess(well(sides), LIMITS)
        assert (health.state, health.findings) == (state, ()), sides
        assert health.state.healthy


def test_a_source_that_is_shut_half_way_is_not_green_while_it_beats() -> None:
    health = assess(well(HOME)._replace(source=SOURCE._replace(half_shut=True)), LIMITS)
    assert (health.state, health.state.healthy) == (State.FENCED, False)
    assert health.cause is not None
    assert "stopped half way" in health.cause.text
    assert "embassy home release" in health.cause.remedy


@pytest.mark.parametrize(("proven", "remedy"), [(True, "failback run"), (False, "promote abort")])
def test_a_source_that_is_shut_is_no_publisher(*, proven: bool, remedy: str) -> None:
    shut = SOURCE._replace(fence=FenceSeen(2, "anna", NOW - 60, proven))
    health = assess(well(HOME)._replace(source=shut, home=topic(100, 10_000, age=60)), LIMITS)
    assert (health.state, health.state.healthy) == (State.FENCED, False)
    assert health.cause is not None
    assert "shut by anna since 07:59:00Z" in health.cause.text
    assert remedy in health.cause.remedy
    assert len(health.causes) == 1, "that nothing is appended any more follows from it"


@pytest.mark.parametrize(("enrolled", "remedy"), [(3, "promote plan"), (2, "nothing to do"), (1, "nothing to do")])
def test_a_source_that_is_a_replica_meanwhile_is_not_broken_for_want_of_a_slot(enrolled: int, remedy: str) -> None:
    away = SOURCE._replace(follows=2, slot=None, fence=FenceSeen(2, "anna", NOW - 60, proven=True))
    seen = well(HOME)._replace(source=away, home=topic(100, 10_000, age=60), enrolled_epoch=enrolled)
    health = assess(seen, LIMITS)
    assert (health.state, health.state.healthy) == (State.FENCED, False)
    assert health.cause is not None
    assert "a replica of epoch 2" in health.cause.text
    assert ("until a promotion here gives it epoch 3" in health.cause.text) == (enrolled == 3)
    assert remedy in health.cause.remedy
    assert len(health.causes) == 1, "that nothing is appended any more follows from it"


def test_a_database_that_has_not_come_home_is_told_what_makes_it_follow() -> None:
    own = assess(well()._replace(replica=Absent("no table"), enrolled_epoch=2), LIMITS)
    before = assess(well()._replace(enrolled_epoch=2), LIMITS)
    for health, at in ((own, "a registry's own"), (before, "at epoch 1")):
        (told,) = (f for f in health.findings if f.stage is Stage.CONSUMER and at in f.text)
        assert "the stream is of epoch 2" in told.text
        assert "failback run" in told.remedy


def test_a_cluster_that_is_away_comes_before_what_it_may_explain() -> None:
    health = assess(old(120)._replace(foreign=None), LIMITS)
    assert health.state is State.STALLED
    assert [cause.stage for cause in health.causes] == [Stage.BRIDGE, Stage.CONSUMER]
    assert "Kafka could not be read" in health.causes[0].text
    fresh = assess(well()._replace(foreign=None), LIMITS)
    assert (fresh.state, [cause.stage for cause in fresh.causes]) == (State.FOLLOWING, [Stage.BRIDGE])
    frozen = ControlSeen(NOW, "anna", "to see", 0)
    told = assess(well()._replace(foreign=None, replica=REPLICA._replace(control=frozen)), LIMITS).cause
    assert told is not None
    assert told.stage is Stage.CONSUMER


def test_a_source_alone_proves_nothing_of_delivery() -> None:
    assert assess(well(frozenset({Side.SOURCE})), LIMITS).state is State.UNKNOWN


_REPLICA_CASES = {
    "the replica is unreachable": (well()._replace(replica=None), State.UNKNOWN, Stage.CONSUMER),
    "the database is no replica": (
        well()._replace(replica=Absent("no table")),
        State.PROVISIONING,
        Stage.CONSUMER,
    ),
    "no progress row": (
        well()._replace(replica=REPLICA._replace(progress=None)),
        State.PROVISIONING,
        Stage.CONSUMER,
    ),
    "nothing applied yet": (
        well()._replace(replica=REPLICA._replace(progress=NOT_BEGUN)),
        State.PROVISIONING,
        Stage.CONSUMER,
    ),
    "no heartbeat row": (well()._replace(replica=REPLICA._replace(beat=None)), State.STALLED, Stage.CONSUMER),
    "it does not tell when it applied": (
        well()._replace(replica=REPLICA._replace(progress=PROGRESS._replace(applied_at=None))),
        State.UNKNOWN,
        Stage.CONSUMER,
    ),
    "it stands still": (old(60), State.STALLED, Stage.CONSUMER),
    "it moves, on old news": (
        well()._replace(replica=REPLICA._replace(beat=Beat(NOW - 300, None, None))),
        State.CATCHING_UP,
        Stage.CONSUMER,
    ),
    "it has just come to a stand": (
        well()._replace(
            replica=REPLICA._replace(
                beat=Beat(NOW - 15.5, None, None), progress=PROGRESS._replace(applied_at=NOW - 14.9)
            )
        ),
        State.STALLED,
        Stage.CONSUMER,
    ),
    "it applied in its own future": (
        well()._replace(replica=REPLICA._replace(progress=PROGRESS._replace(applied_at=NOW + 30))),
        State.UNKNOWN,
        Stage.CONSUMER,
    ),
    "another enrolment's": (
        well()._replace(replica=REPLICA._replace(progress=PROGRESS._replace(epoch=0))),
        State.BROKEN,
        Stage.CONSUMER,
    ),
    "a registry that its stream has turned round to, and that is none of its replicas yet": (
        well()._replace(replica=Absent("no table"), enrolled_epoch=2),
        State.PROVISIONING,
        Stage.CONSUMER,
    ),
    "a replica of the epoch before": (
        well()._replace(enrolled_epoch=2),
        State.PROVISIONING,
        Stage.CONSUMER,
    ),
    "promoted": (
        well()._replace(replica=REPLICA._replace(progress=PROGRESS._replace(epoch=2))),
        State.PROMOTED,
        Stage.CONSUMER,
    ),
    "promoted, since when nothing comes": (
        old(60)._replace(
            foreign=topic(98, 9_800, age=60), replica=REPLICA._replace(progress=PROGRESS._replace(epoch=2))
        ),
        State.PROMOTED,
        Stage.CONSUMER,
    ),
    "promoted, and home's slot is gone": (
        well()._replace(
            source=SOURCE._replace(slot=None), replica=REPLICA._replace(progress=PROGRESS._replace(epoch=2))
        ),
        State.PROMOTED,
        Stage.CONSUMER,
    ),
    "promoted, and not open yet": (
        well()._replace(replica=REPLICA._replace(progress=PROGRESS._replace(epoch=2, opening=True))),
        State.PROMOTING,
        Stage.CONSUMER,
    ),
    "the embassy's topic ends before the replica": (
        well()._replace(foreign=topic(90, 9_000)),
        State.BROKEN,
        Stage.CONSUMER,
    ),
    "the embassy's topic was emptied": (well()._replace(foreign=EMPTY), State.BROKEN, Stage.CONSUMER),
    "the embassy's topic is gone": (well()._replace(foreign=Absent("no topic")), State.BROKEN, Stage.BRIDGE),
    "retention passed over what the consumer lacks": (
        well()._replace(foreign=topic(130, 9_990)._replace(first_offset=110), home=topic(130, 10_000)),
        State.BROKEN,
        Stage.CONSUMER,
    ),
    "retention passed over what the bridge lacks": (
        well()._replace(home=topic(130, 10_000)._replace(first_offset=110)),
        State.BROKEN,
        Stage.BRIDGE,
    ),
    "home's topic ends before the embassy's": (
        well()._replace(home=topic(80, 8_000)),
        State.BROKEN,
        Stage.PRODUCER,
    ),
    "the slot is gone": (well()._replace(source=SOURCE._replace(slot=None)), State.BROKEN, Stage.PRODUCER),
    "the slot was invalidated": (
        well()._replace(source=SOURCE._replace(slot=SLOT._replace(lost="wal_removed"))),
        State.BROKEN,
        Stage.PRODUCER,
    ),
    "the slot was recreated": (
        well()._replace(source=SOURCE._replace(slot=SLOT._replace(confirmed_lsn=Lsn(10_300)))),
        State.BROKEN,
        Stage.PRODUCER,
    ),
    "home's topic was emptied": (well()._replace(home=EMPTY), State.BROKEN, Stage.PRODUCER),
    "home's topic is gone": (well()._replace(home=Absent("no topic")), State.BROKEN, Stage.PRODUCER),
}


@pytest.mark.parametrize(
    ("observation", "state", "stage"), _REPLICA_CASES.values(), ids=[*map(str, _REPLICA_CASES)]
)
def test_a_spoiled_stream_with_a_replica(observation: Observation, state: State, stage: Stage) -> None:
    health = assess(observation, LIMITS)
    assert health.state is state
    assert health.cause is not None
    assert health.cause.stage is stage
    assert health.cause.text
    assert health.cause.remedy


def test_retention_that_has_passed_over_what_was_taken_only_breaks_nothing() -> None:
    home, foreign = topic(100, 10_000)._replace(first_offset=99), topic(99, 9_900)._replace(first_offset=98)
    assert assess(well()._replace(home=home, foreign=foreign), LIMITS).state is State.FOLLOWING


def test_the_first_stale_stage_is_named_not_the_last() -> None:
    stalled = old(60)
    dead_bridge = stalled._replace(foreign=topic(98, 9_800, age=60), unsent_since=NOW - 59)
    dead_producer = dead_bridge._replace(
        home=topic(98, 9_800, age=60),
        source=SOURCE._replace(beat=Beat(NOW - 61, None, None), slot=SLOT._replace(active=False)),
    )
    deaf_source = dead_producer._replace(source=SOURCE._replace(beat=Beat(NOW - 61, None, None)))
    for observation, stage, words in (
        (stalled, Stage.CONSUMER, "holds the lease"),
        (dead_bridge, Stage.BRIDGE, "home has more"),
        (dead_producer, Stage.PRODUCER, "no producer holds the slot"),
        (deaf_source, Stage.PRODUCER, "written no heartbeat"),
    ):
        health = assess(observation, LIMITS)
        assert health.state is State.STALLED
        assert health.cause is not None
        assert health.cause.stage is stage
        assert words in health.cause.text


def test_a_halted_home_does_not_make_a_fresh_replica_stale_but_is_told() -> None:
    health = assess(well()._replace(source=SOURCE._replace(slot=SLOT._replace(active=False))), LIMITS)
    assert health.state is State.FOLLOWING
    assert health.cause is not None
    assert "no producer" in health.cause.text


def test_an_unreachable_place_upstream_does_not_hide_what_is_proven_downstream() -> None:
    health = assess(well()._replace(home=None, source=None), LIMITS)
    assert health.state is State.FOLLOWING
    assert {finding.condition for finding in health.findings} == {Condition.UNKNOWN}


def test_from_the_embassy_alone_a_silent_topic_is_the_bridges_or_homes() -> None:
    observation = old(60)._replace(sides=EMBASSY, source=None, home=None, foreign=topic(98, 9_800, age=60))
    health = assess(observation, LIMITS)
    assert health.state is State.STALLED
    assert health.cause is not None
    assert "not seen from here" in health.cause.text


def test_nobody_with_the_lease_is_said() -> None:
    observation = old(60)
    assert isinstance(observation.replica, ReplicaSeen)
    cause = assess(observation._replace(replica=observation.replica._replace(holder="")), LIMITS).cause
    assert cause is not None
    assert "no consumer holds the lease" in cause.text
    assert "1 records wait" in cause.text


def test_a_lock_that_holds_the_applier_up_is_named_with_its_owner() -> None:
    observation = old(60)
    assert isinstance(observation.replica, ReplicaSeen)
    cause = assess(observation._replace(replica=observation.replica._replace(blocked_by="4711")), LIMITS).cause
    assert cause is not None
    assert "waits for a lock of process 4711" in cause.text
    assert "pg_terminate_backend" in cause.remedy


def test_what_an_earlier_stage_explains_is_no_cause_of_its_own() -> None:
    """The producer is dead; the bridge has carried and the consumer applied all there was."""
    silent = old(60)._replace(
        source=SOURCE._replace(beat=Beat(NOW - 61, None, None), slot=SLOT._replace(active=False)),
        home=topic(98, 9_800, age=60),
        foreign=topic(98, 9_800, age=60),
    )
    assert [cause.stage for cause in assess(silent, LIMITS).causes] == [Stage.PRODUCER]
    assert isinstance(silent.replica, ReplicaSeen)
    also = silent._replace(home=topic(99, 9_900, age=60), replica=silent.replica._replace(holder=""))
    assert [cause.stage for cause in assess(also, LIMITS).causes] == [Stage.PRODUCER, Stage.BRIDGE, Stage.CONSUMER]


_SHARE_CASES = {
    "home Kafka is unreachable": (well(HOME)._replace(home=None), State.UNKNOWN),
    "the source is unreachable": (well(HOME)._replace(source=None), State.UNKNOWN),
    "no schema": (well(HOME)._replace(source=Absent("no schema")), State.PROVISIONING),
    "no slot, not begun": (
        well(HOME)._replace(source=SOURCE._replace(slot=None, began_at=None), home=EMPTY),
        State.PROVISIONING,
    ),
    "not begun": (
        well(HOME)._replace(
            source=SOURCE._replace(beat=None, began_at=None, slot=SLOT._replace(active=False)), home=EMPTY
        ),
        State.PROVISIONING,
    ),
    "the producer is dead": (
        well(HOME)._replace(source=SOURCE._replace(slot=SLOT._replace(active=False))),
        State.STALLED,
    ),
    "nothing reaches home Kafka": (well(HOME)._replace(home=topic(100, 10_000, age=60)), State.STALLED),
    "home Kafka is far behind": (
        well(HOME)._replace(source=SOURCE._replace(beat=Beat(NOW - 0.4, NOW - 100, NOW - 100))),
        State.CATCHING_UP,
    ),
    "the source's clock went back": (
        well(HOME)._replace(source=SOURCE._replace(beat=Beat(NOW + 100, None, None))),
        State.UNKNOWN,
    ),
    "a record from the future": (well(HOME)._replace(home=topic(100, 10_000, age=-100)), State.UNKNOWN),
    "only strangers' records": (well(HOME)._replace(home=UNSIGNED), State.UNKNOWN),
    "the bridge is dead": (well(BRIDGE)._replace(foreign=topic(50, 5_000, age=60)), State.STALLED),
    "the bridge has carried nothing": (well(BRIDGE)._replace(foreign=EMPTY), State.STALLED),
    "the bridge is behind": (
        well(BRIDGE)._replace(foreign=topic(50, 5_000), unsent_since=NOW - 100),
        State.CATCHING_UP,
    ),
    "nobody knows how far the bridge is behind": (
        well(BRIDGE)._replace(foreign=topic(50, 5_000), unsent_since=None),
        State.CATCHING_UP,
    ),
    "the embassy's Kafka is unreachable": (well(BRIDGE)._replace(foreign=None), State.UNKNOWN),
    "nothing was ever sent": (well(BRIDGE)._replace(home=EMPTY, foreign=EMPTY), State.PROVISIONING),
}


@pytest.mark.parametrize(("observation", "state"), _SHARE_CASES.values(), ids=[*map(str, _SHARE_CASES)])
def test_a_spoiled_stream_without_a_replica(observation: Observation, state: State) -> None:
    health = assess(observation, LIMITS)
    assert health.state is state
    assert health.cause is not None


def test_the_distances_of_a_stream_that_is_well() -> None:
    measures = assess(well(), LIMITS).measures
    assert measures.epoch == 1
    assert measures.wal_lag_bytes == 400
    assert (measures.bridge.size, measures.bridge.records) == (100, 1)
    assert (measures.apply.size, measures.apply.records) == (100, 1)
    assert measures.lag_seconds == pytest.approx(0.6)
    assert measures.rpo_seconds == pytest.approx(0.9 + 0.002)


def test_what_is_not_seen_is_not_known_and_never_0() -> None:
    measures = assess(well(EMBASSY), LIMITS).measures
    assert measures.wal_lag_bytes is None
    assert (measures.bridge.size, measures.bridge.records) == (None, None)
    assert measures.rpo_seconds == pytest.approx(
        0.9 + LIMITS.clock_seconds
    )  # the source's clock is not seen either
    nothing = assess(Observation(NOW, ALL_SIDES), LIMITS).measures
    assert [value for value in nothing if value not in (None, (None, None))] == []


def test_a_stalled_stream_has_a_growing_rpo_and_no_lag() -> None:
    measures = assess(old(1144), LIMITS).measures
    assert measures.lag_seconds is None
    assert assess(old(14.9), LIMITS).measures.lag_seconds is None  # it has just come to a stand
    assert measures.rpo_seconds == pytest.approx(1144.5, abs=0.1)


def test_before_the_first_record_there_is_no_rpo() -> None:
    health = assess(well()._replace(replica=REPLICA._replace(progress=NOT_BEGUN)), LIMITS)
    assert health.measures.rpo_seconds is None
    assert health.measures.heartbeat_at is None


def test_a_source_clock_that_is_ahead_does_not_make_old_news_fresh() -> None:
    """Its clock is an hour ahead, it wrote a beat, and nothing has come for an hour: the beat looks fresh."""
    progress = PROGRESS._replace(applied_at=NOW - 3600, committed_at=NOW)
    replica = REPLICA._replace(beat=Beat(NOW, None, None), progress=progress)
    health = assess(well(EMBASSY)._replace(replica=replica), LIMITS)
    assert health.state is State.STALLED


def test_a_beat_from_the_future_is_no_evidence_where_the_sources_clock_is_not_seen() -> None:
    replica = REPLICA._replace(
        beat=Beat(NOW + 50, None, None), progress=PROGRESS._replace(committed_at=NOW + 50.1)
    )
    health = assess(well(EMBASSY)._replace(replica=replica), LIMITS)
    assert health.state is State.UNKNOWN
    assert health.measures.rpo_seconds is None
    assert health.cause is not None
    assert "clocks differ" in health.cause.text


def test_where_the_sources_clock_is_seen_its_error_does_not_matter() -> None:
    ahead = Clock(NOW, 50.0, 0.001)
    source = SOURCE._replace(clock=ahead, beat=Beat(NOW + 49.6, None, None))
    progress = PROGRESS._replace(committed_at=NOW + 49.1)
    replica = REPLICA._replace(beat=Beat(NOW + 48.8, None, None), progress=progress)
    health = assess(well()._replace(source=source, replica=replica), LIMITS)
    assert health.state is State.FOLLOWING
    assert health.measures.rpo_seconds == pytest.approx(0.9 + 0.002)
    assert health.measures.lag_seconds == pytest.approx(0.6)
    assert health.measures.skew_seconds == 50


def test_an_age_without_the_sources_clock_is_told_by_the_later_of_two() -> None:
    replica = REPLICA._replace(clock=Clock(NOW, -20.0, 0.001), progress=PROGRESS._replace(applied_at=NOW - 20.2))
    health = assess(well(EMBASSY)._replace(replica=replica), LIMITS)
    assert health.measures.heartbeat_age_seconds == pytest.approx(1.2)
    assert health.measures.applied_age_seconds == pytest.approx(0.2)


def test_seeing_one_place_late_does_not_age_another() -> None:
    """Home Kafka took ten seconds to time out between the replica's answer and the source's."""
    source = SOURCE._replace(clock=CLOCK._replace(read_at=NOW + 14), beat=Beat(NOW + 13.5, None, None))
    observation = well()._replace(observed_at=NOW + 20, source=source, home=None)
    health = assess(observation, Limits(fresh_seconds=5))
    assert health.state is State.FOLLOWING
    assert health.measures.rpo_seconds == pytest.approx(0.9 + 0.002)


def test_fresh_is_never_longer_than_the_age_that_the_replica_may_have() -> None:
    assert Limits.of(rpo_seconds=60, slowest_beat_seconds=1).fresh_seconds == 15
    assert Limits.of(rpo_seconds=5, slowest_beat_seconds=1).fresh_seconds == 5
    assert Limits.of(rpo_seconds=600, slowest_beat_seconds=30).fresh_seconds == 90
    assert Limits.of(rpo_seconds=60, slowest_beat_seconds=30).fresh_seconds == 60
