"""The batch being gathered: every change's segment in commit order, and which waves have been given out."""

from __future__ import annotations

import sys
from array import array
from typing import Protocol, TypeVar

from embassy.model.batch import Batch, Transaction
from embassy.model.relation import Relation
from producers.open_segment import OpenSegment, OpenUpdates

_OPEN = TypeVar("_OPEN", bound=OpenSegment)


class Table(Protocol):
    """A table with changes in the batch."""

    relation: Relation

    def after_barrier(self) -> None:
        """Forget what was touched before a barrier."""

    def after_batch(self) -> None:
        """Forget everything that belongs to the batch."""


class OpenBatch:
    """Shared by the tables of a stream, which append to ``order`` and ``superseded`` themselves: the hot path."""

    __slots__ = ("_segments", "_tables", "ends", "floor", "highest_wave", "order", "superseded")

    def __init__(self) -> None:
        self.order: list[OpenSegment] = []
        """For each change, in commit order, its segment."""
        self.superseded: list[int] = []
        """Which of ``order`` are overwritten by a later update."""
        self.floor = 0
        """The wave of the last barrier: whatever comes has a higher one."""
        self.highest_wave = 0
        """Of all that was given out so far."""
        self.ends = False
        """Whether nothing may follow in this batch."""
        self._segments: list[OpenSegment] = []
        self._tables: list[Table] = []

    def joined_by(self, table: Table) -> int:
        """Give a table its place among the batch's relations."""
        self._tables.append(table)
        return len(self._tables) - 1

    def opened(self, segment: _OPEN) -> _OPEN:
        """Take in a new segment."""
        self._segments.append(segment)
        self.highest_wave = max(self.highest_wave, segment.wave)
        return segment

    def barrier(self) -> None:
        """Let everything that comes be applied after everything that has come."""
        self.floor = self.highest_wave
        for table in self._tables:
            table.after_barrier()

    def take(self, transactions: tuple[Transaction, ...], part: int, *, complete: bool) -> Batch:
        """Lay the batch out, segments in the order in which the fast path applies them, and begin the next one."""
        if self.superseded:
            self._set_superseded_apart()
        segments = sorted(self._segments, key=lambda segment: (segment.rank, segment.superseded))
        for index, segment in enumerate(segments):
            segment.index = index
        order = array("H", [segment.index for segment in self.order])
        if sys.byteorder == "big":
            order.byteswap()
        batch = Batch(
            tuple([table.relation for table in self._tables]),
            tuple([segment.finished() for segment in segments]),
            order.tobytes(),
            transactions,
            part,
            complete=complete,
        )
        self._begin_anew()
        return batch

    def _begin_anew(self) -> None:
        for table in self._tables:
            table.after_batch()
        self.order.clear()
        self.superseded.clear()
        self.floor = self.highest_wave = 0
        self.ends = False
        self._segments.clear()
        self._tables.clear()

    def _set_superseded_apart(self) -> None:
        """Move superseded rows to segments of their own, which the fast path skips."""
        order = self.order
        dead = bytearray(len(order))
        for ordinal in self.superseded:
            dead[ordinal] = 1
        flags: dict[OpenSegment, bytearray] = {order[ordinal]: bytearray() for ordinal in self.superseded}
        for ordinal, segment in enumerate(order):
            rows = flags.get(segment)
            if rows is not None:
                rows.append(dead[ordinal])
        apart: dict[OpenSegment, OpenSegment] = {}
        for segment, rows in flags.items():
            assert isinstance(segment, OpenUpdates), "only updates are superseded"
            if all(rows):
                segment.superseded = True
            else:
                apart[segment] = self.opened(segment.without(rows))
        for ordinal in self.superseded:
            order[ordinal] = apart.get(order[ordinal], order[ordinal])
