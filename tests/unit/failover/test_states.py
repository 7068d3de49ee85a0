from __future__ import annotations

from failover.states import TRANSITIONS, Guard, StreamState, may_follow, mermaid


def test_every_state_but_fenced_itself_is_fenced_by_a_higher_epoch() -> None:
    for state in StreamState:
        seen = frozenset({Guard.HIGHER_EPOCH})
        assert may_follow(state, StreamState.FENCED, seen) is (state is not StreamState.FENCED)


def test_every_state_can_be_reached_and_left() -> None:
    reached = {StreamState.PROVISIONING} | {after for following in TRANSITIONS.values() for after in following}
    assert reached == set(StreamState)
    assert all(TRANSITIONS[state] for state in StreamState)


def test_a_promoted_replica_never_simply_follows_again() -> None:
    every = frozenset(Guard)
    assert not may_follow(StreamState.PROMOTED, StreamState.FOLLOWING, every)
    assert not may_follow(StreamState.PROMOTED, StreamState.PROMOTING, every)


def test_a_stalled_replica_is_promoted_only_with_a_loss_that_was_accepted() -> None:
    assert not may_follow(StreamState.STALLED, StreamState.PROMOTING)
    assert may_follow(StreamState.STALLED, StreamState.PROMOTING, frozenset({Guard.ACCEPTED_LOSS}))


def test_the_diagram_has_every_transition() -> None:
    lines = mermaid().splitlines()
    assert len(lines) == 2 + sum(map(len, TRANSITIONS.values()))
    assert "    promoting --> promoted" in lines
