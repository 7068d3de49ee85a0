from __future__ import annotations

from producers.heartbeat import Chore, _Due


def done(chore: Chore, *, carried: set[int], until: int = 200) -> list[int]:
    """When a chore is done with a beat a second; in some of them the registry has committed something."""
    due = _Due(chore)
    return [second for second in range(until) if due.take(second, carried=second in carried)]


def nothing(_connection: object) -> None: ...


def test_a_chore_without_an_idle_pace_is_done_at_its_own() -> None:
    assert done(Chore(0, nothing), carried=set(), until=3) == [0, 1, 2]
    assert done(Chore(10, nothing), carried=set(), until=31) == [0, 10, 20, 30]


def test_a_chore_is_seldom_done_while_nothing_is_committed() -> None:
    assert done(Chore(3, nothing, 60), carried=set()) == [0, 60, 120, 180]


def test_what_was_committed_is_seen_at_the_quick_pace_and_the_last_of_it_too() -> None:
    assert done(Chore(3, nothing, 60), carried={70, 71, 72}) == [0, 60, 70, 73, 133, 193]
