"""Nothing that is on time waits; what is late waits for a small share of its age, and never long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from producers import patience


@pytest.mark.parametrize("wait", [patience.to_ship, patience.to_receive])
def test_what_is_on_time_does_not_wait(wait: Callable[[float], float]) -> None:
    assert wait(0) == 0
    assert wait(-3600) == 0, "the source's clock was set back"
    assert wait(0.001) < 0.0002


@pytest.mark.parametrize(("wait", "most"), [(patience.to_ship, 0.1), (patience.to_receive, 0.001)])
def test_what_is_late_waits_for_a_share_of_its_age(wait: Callable[[float], float], most: float) -> None:
    ages = [0.01 * n for n in range(1000)]
    waits = [wait(age) for age in ages]
    assert waits == sorted(waits)
    assert all(waited <= age / 8 for age, waited in zip(ages, waits, strict=True))
    assert max(waits) == wait(1e9) == most
