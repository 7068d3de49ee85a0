"""When the heart beats."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from producers.pace import QUIET_SECONDS, Pace

_QUICK, _SLOW = 1.0, 5.0


def _beats(pace: Pace, start: float, until: float, carried: frozenset[int] = frozenset()) -> list[float]:
    """The times of the beats; those with the numbers in ``carried`` find that something was committed."""
    found: list[float] = []
    now = start
    while (now := pace.next_at(now)) < until:
        pace.beaten(now, carried=len(found) in carried)
        found.append(now)
    return found


def test_a_heart_begins_quickly_and_slows_down_where_nothing_else_is_committed() -> None:
    beats = _beats(Pace(_QUICK, _SLOW), 100.3, 130)
    assert beats[:3] == [101, 102, 103]
    assert beats[-3:] == [115, 120, 125]


def test_a_commit_makes_it_quick_again_at_once() -> None:
    pace = Pace(_QUICK, _SLOW)
    assert _beats(pace, 100, 131)[-1] == 130
    pace.rouse(131.2)
    assert pace.next_at(131.2) == 132


def test_hearts_that_were_started_at_different_times_beat_together() -> None:
    first, second = (_beats(Pace(_QUICK, _SLOW), start, 200) for start in (100.1, 117.7))
    assert set(second) <= set(range(118, 200))
    assert [beat for beat in first if beat > 150] == [beat for beat in second if beat > 150]


@given(
    start=st.floats(0, 1e6),
    quick=st.floats(0.05, 3),
    factor=st.floats(1, 20),
    carried=st.frozensets(st.integers(0, 60), max_size=20),
)
def test_beats_are_never_further_apart_than_the_slow_interval_allows(
    start: float, quick: float, factor: float, carried: frozenset[int]
) -> None:
    slow = quick * factor
    beats = _beats(Pace(quick, slow), start, start + 60 * quick + QUIET_SECONDS, carried)
    gaps = [after - before for before, after in pairwise(beats)]
    assert all(0 < gap <= slow * 1.011 for gap in gaps)
