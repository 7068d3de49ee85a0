"""All streams beat when the clock shows a multiple of the interval."""

from __future__ import annotations

import pytest

from producers.heartbeat import until_next_beat


@pytest.mark.parametrize(
    ("now", "every", "left"),
    [(100.0, 1.0, 1.0), (100.25, 1.0, 0.75), (100.999, 1.0, 1.001), (100.5, 1.0, 0.5), (7.0, 5.0, 3.0)],
)
def test_the_next_beat_is_at_a_multiple_and_never_close_behind_the_last(
    now: float, every: float, left: float
) -> None:
    assert until_next_beat(now, every) == pytest.approx(left)


@pytest.mark.parametrize("late_seconds", [-0.002, 0.0, 0.004, 0.3])
def test_a_beat_that_was_a_little_early_or_late_is_followed_by_one_at_the_next_second(late_seconds: float) -> None:
    now = 1_800_000_000.0 + late_seconds
    assert now + until_next_beat(now, 1.0) == pytest.approx(1_800_000_001.0)
