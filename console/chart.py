"""A registry's RPO≤ over the last hour as the geometry of a small drawing, and as figures. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from console.history import BUCKET_SECONDS, SPAN_SECONDS, Bucket, Change
from embassy.model.look_words import UNKNOWN
from embassy.model.wording import span

WIDTH = 480
HEIGHT = 48
_ROOM = 1.15
"""How much higher than its highest value a drawing is."""
CELL_SECONDS = 300.0
_CELLS = int(SPAN_SECONDS / CELL_SECONDS)


class Chart(NamedTuple):
    """One drawing, in units of its view box; left is an hour ago, right is now, down is nothing."""

    lines: tuple[str, ...]
    """Points of polylines; between them nothing is known."""
    gaps: tuple[tuple[float, float], ...]
    """Left edge and width of each stretch in which RPO≤ was not known, or nobody looked."""
    target_y: float
    events: tuple[float, ...]
    """Where the registry's state changed."""
    worst: str
    cells: tuple[str, ...]
    """The worst of each five minutes, oldest first; `?` where it was not known at any moment of them."""


def chart_of(buckets: Sequence[Bucket], changes: Sequence[Change], *, target_seconds: float, now: float) -> Chart:
    """Draw what is known of a registry's last hour.

    Args:
        buckets: oldest first.
        changes: of this registry.
        target_seconds: its objective.
        now: the observer's clock, seconds since 1970 UTC.
    """
    left = now - SPAN_SECONDS
    known = [b.worst_seconds for b in buckets if b.worst_seconds is not None]
    top = max([target_seconds, *known]) * _ROOM

    def x(at: float) -> float:
        return round(min(max((at - left) / SPAN_SECONDS, 0.0), 1.0) * WIDTH, 1)

    def y(seconds: float) -> float:
        return round(HEIGHT * (1 - seconds / top), 1)

    lines: list[list[str]] = [[]]
    seen_until = left
    gaps: list[tuple[float, float]] = []
    for bucket in buckets:
        end = min(bucket.start + BUCKET_SECONDS, now)
        if bucket.start > seen_until:
            gaps.append((seen_until, bucket.start))
            lines.append([])
        if bucket.unknown or bucket.worst_seconds is None:
            gaps.append((bucket.start, end))
        if bucket.worst_seconds is None:
            lines.append([])
        else:
            height = y(bucket.worst_seconds)
            lines[-1] += [f"{x(bucket.start)},{height}", f"{x(end)},{height}"]
        seen_until = bucket.start + BUCKET_SECONDS
    if seen_until < now:
        gaps.append((seen_until, now))
    unknown = any(bucket.unknown for bucket in buckets) or not buckets
    worst = span(max(known)) if known else UNKNOWN
    return Chart(
        tuple(" ".join(line) for line in lines if line),
        _joined(gaps, x),
        y(target_seconds),
        tuple(x(change.at) for change in changes),
        f"{worst}, at times {UNKNOWN}" if known and unknown else worst,
        tuple(_cell(buckets, left + i * CELL_SECONDS) for i in range(_CELLS)),
    )


def _joined(
    gaps: Sequence[tuple[float, float]], place: Callable[[float], float]
) -> tuple[tuple[float, float], ...]:
    joined: list[tuple[float, float]] = []
    for start, end in gaps:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return tuple((place(start), round(place(end) - place(start), 1)) for start, end in joined)


def _cell(buckets: Sequence[Bucket], start: float) -> str:
    within = [b for b in buckets if start - BUCKET_SECONDS < b.start < start + CELL_SECONDS]
    if not within or any(b.unknown or b.worst_seconds is None for b in within):
        return UNKNOWN
    return span(max(b.worst_seconds or 0.0 for b in within))
