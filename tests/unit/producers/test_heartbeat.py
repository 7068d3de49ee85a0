from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from embassy.pg.exchange import plain
from producers.heartbeat import Chore, Turns, _Due


def done(chore: Chore, *, carried: set[int], until: int = 200) -> list[int]:
    """When a chore is done with a beat a second; in some of them the registry has committed something."""
    due = _Due(chore)
    return [second for second in range(until) if due.take(second, carried=second in carried)]


nothing = plain("SELECT")


def test_a_chore_without_an_idle_pace_is_done_at_its_own() -> None:
    assert done(Chore(0, nothing), carried=set(), until=3) == [0, 1, 2]
    assert done(Chore(10, nothing), carried=set(), until=31) == [0, 10, 20, 30]


def test_a_chore_is_seldom_done_while_nothing_is_committed() -> None:
    assert done(Chore(3, nothing, 60), carried=set()) == [0, 60, 120, 180]


def test_what_was_committed_is_seen_at_the_quick_pace_and_the_last_of_it_too() -> None:
    assert done(Chore(3, nothing, 60), carried={70, 71, 72}) == [0, 60, 70, 73, 133, 193]


def test_few_hearts_work_at_a_time_and_one_that_hangs_keeps_the_others_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = Turns()
    gone, came = threading.Event(), threading.Event()

    def another() -> None:
        with turns.taken():
            came.set()
            gone.wait(30)

    with ExitStack() as hanging:
        for _ in range(Turns.MOST):
            hanging.enter_context(turns.taken())
        thread = threading.Thread(target=another)
        thread.start()
        assert not came.wait(0.05), "all turns are taken"
        assert came.wait(30), "it has waited for long enough"
        gone.set()
        thread.join(30)
        monkeypatch.setattr(Turns, "WAIT_SECONDS", 30.0)
        came.clear()
        thread = threading.Thread(target=another)
        thread.start()
        assert not came.wait(0.05), "whoever worked without a turn has given none back"
    assert came.wait(5), "a turn is free"
    thread.join(30)
