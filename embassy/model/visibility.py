"""Which transactions a snapshot of PostgreSQL sees.

The stream names transactions by 32 bits, snapshots by 64. A transaction of the stream is taken for the one that is
nearest to the snapshot's end: they are less than two thousand million transactions apart, or the server would have
stopped.
"""

from __future__ import annotations

from typing import NamedTuple, Self

_WRAP = 1 << 32


class Visibility(NamedTuple):
    """What ``pg_current_snapshot()`` says."""

    xmin: int
    """Everything below it has ended."""
    xmax: int
    """Nothing from here on had ended."""
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``xmin:xmax:xip,xip,…``.

        Raises:
            ValueError: it is not a snapshot.
        """
        xmin, xmax, running = text.split(":")
        found = cls(int(xmin), int(xmax), frozenset(map(int, running.split(","))) if running else frozenset())
        if not 0 < found.xmin <= found.xmax:
            raise ValueError(f"not a snapshot: {text[:80]!r}")
        return found

    def sees(self, xid: int) -> bool:
        """Whether what a transaction of the stream did, which has ended by now, is in the snapshot."""
        full = self.full(xid)
        return full < self.xmax and full not in self.in_progress

    def full(self, xid: int) -> int:
        """The 64 bits of a transaction of the stream."""
        full = self.xmax - self.xmax % _WRAP + xid % _WRAP
        if full - self.xmax > _WRAP // 2:
            return full - _WRAP
        if self.xmax - full > _WRAP // 2:
            return full + _WRAP
        return full
