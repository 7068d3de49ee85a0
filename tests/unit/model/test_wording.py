from __future__ import annotations

import pytest

from embassy.model.wording import counted, instant, iso, size, span


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0KiB"),
        (1_258_291, "1.2MiB"),
        (12 << 20, "12MiB"),
        ((1 << 30) - 1, "1.0GiB"),
        (1 << 60, "1.0EiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0404, "40ms"),
        (0.9996, "1.0s"),
        (1.44, "1.4s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (1144, "19m04s"),
        (3599.7, "1h00m"),
        (10_920, "3h02m"),
        (187_200, "2d04h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_an_instant_of_another_day_has_its_date() -> None:
    assert instant(1_800_000_000, now=1_800_000_100) == "08:00:00Z"
    assert instant(1_800_000_000, now=1_800_100_000) == "2027-01-15T08:00:00Z"


def test_machines_get_milliseconds() -> None:
    assert iso(1_800_000_000.25) == "2027-01-15T08:00:00.250Z"


def test_one_is_no_plural() -> None:
    assert [counted(count, "row") for count in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
