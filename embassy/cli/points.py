"""``--stop-at``: a position in the source's log, or a time."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime

import click

from embassy.model.control import Point
from embassy.model.lsn import Lsn


class _PointType(click.ParamType[Point]):
    name = "LSN|TIME"

    def convert(self, value: str | Point, param: click.Parameter | None, ctx: click.Context | None) -> Point:
        if isinstance(value, Point):
            return value
        try:
            return Point(lsn=Lsn.parse(value))
        except ValueError:
            pass
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither a position (0/16B3748) nor a time (2026-03-01T12:00:00Z)", param, ctx)
        if at.tzinfo is None:
            self.fail(f"{value!r} names no time zone; for UTC write {value}Z", param, ctx)
        at = at.astimezone(UTC)
        return Point(time=calendar.timegm(at.utctimetuple()) * 1_000_000 + at.microsecond)


POINT = _PointType()
"""A click type."""
