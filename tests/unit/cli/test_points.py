"""``--stop-at``: a position or a time, and nothing that could be read in two ways."""

from __future__ import annotations

import click
import pytest

from embassy.cli.points import POINT
from embassy.model.control import Point
from embassy.model.lsn import Lsn


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("0/16B3748", Point(lsn=Lsn(0x16B3748))),
        ("2026-03-01T12:00:00Z", Point(time=1_772_366_400_000_000)),
        ("2026-03-01T14:00:00.000001+02:00", Point(time=1_772_366_400_000_001)),
    ],
)
def test_a_point_is_read(text: str, point: Point) -> None:
    assert POINT.convert(text, None, None) == point


@pytest.mark.parametrize("text", ["", "noon", "16B3748", "2026-03-01T12:00:00"])
def test_what_is_neither_or_names_no_zone_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        POINT.convert(text, None, None)
