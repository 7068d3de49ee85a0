"""When large objects are looked at."""

from __future__ import annotations

from producers.large_objects import Cadence


def test_the_first_look_is_at_once() -> None:
    assert Cadence().is_due(0.0, 0)


def test_a_look_follows_what_statistics_say_and_not_at_once() -> None:
    cadence = Cadence()
    cadence.looked(10.0, 10.01, 7)
    assert not cadence.is_due(11.0, 8)
    assert cadence.is_due(10.01 + Cadence.LEAST_SECONDS, 8)


def test_a_look_is_taken_now_and_then_although_statistics_say_nothing() -> None:
    cadence = Cadence()
    cadence.looked(10.0, 10.01, 7)
    assert not cadence.is_due(10.0 + Cadence.MOST_SECONDS - 1, 7)
    assert cadence.is_due(10.01 + Cadence.MOST_SECONDS, 7)


def test_statistics_that_were_reset_count_as_something_new() -> None:
    cadence = Cadence()
    cadence.looked(10.0, 10.01, 7)
    assert cadence.is_due(20.0, 0)


def test_looks_that_take_long_take_a_small_share_of_the_time() -> None:
    cadence = Cadence()
    cadence.looked(100.0, 110.0, 7)
    assert not cadence.is_due(109.0 + 10 * Cadence.PAUSE, 8)
    assert cadence.is_due(110.0 + 10 * Cadence.PAUSE, 8)


def test_what_changes_during_a_look_is_looked_for_again() -> None:
    cadence = Cadence()
    before = 7
    cadence.looked(10.0, 11.0, before)
    assert cadence.is_due(11.0 + Cadence.PAUSE, before + 1)
