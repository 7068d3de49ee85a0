"""Tells of large objects, which come into the stream by themselves only some time after they were written.

What a snapshot shows of them may not be in the stream yet, and home knows what: a chunk says so, and that much of it
cannot be judged. Once all chunks are told, all that is new is carried, as the producer's looks do, and these chunks are
told once more: until nothing of them is new, or often enough.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from embassy.model.verification import Key, Message
from embassy.model.visibility import Visibility
from embassy.pg import large_objects
from embassy.pg.digested_table import DigestedTable
from embassy.pg.row_digests import Range, Row, current_snapshot, one_snapshot, page, range_rows
from producers.row_teller import RowTeller, nothing_between

_ROUNDS = 5
"""Each reads all pages once, to find those that are new."""
_PATIENCE_SECONDS = 5.0
"""How long those who are just committing pages of their own are waited for."""


class _Open(NamedTuple):
    """A chunk that has to be told once more."""

    number: int
    within: Range


class _Seen(NamedTuple):
    """What a snapshot shows of a chunk."""

    snapshot: Visibility
    rows: list[Row]
    behind: tuple[Key, ...]
    """Doubts: what is not in the stream by then."""


class ObjectTeller(RowTeller):
    """Tells of one of the two tables of large objects."""

    def __init__(
        self,
        connection: Any,
        say: Callable[[Message], int],
        table: DigestedTable,
        doubtful: tuple[int, ...],
        stream: bytes,
    ) -> None:
        super().__init__(connection, say, table, doubtful)
        self._stream = stream
        self._open: list[_Open] = []

    def chunks(
        self, share: float, chance: random.Random, clock: Callable[[], float], chunk_rows: int
    ) -> Iterator[int]:
        """Tell them all, or a share of them; how many rows have been told of, after each."""
        told = 0
        for told in super().chunks(share, chance, clock, chunk_rows):
            yield told
        for _ in range(_ROUNDS):
            if not self._open:
                return
            large_objects.carry_all(self._connection, self._stream, _PATIENCE_SECONDS)
            self._open = [chunk for chunk in self._open if not self._told_again(chunk)]
            yield told

    def _chunk(self, after: Key | None, limit: int) -> tuple[int, Key | None]:
        def read() -> tuple[list[Row], Range]:
            rows = page(self._connection, self._table, Range(after), limit)
            return rows, Range(after, rows[-1].key if len(rows) == limit else None)

        seen, within = self._see(read)
        if not self._is_settled(self.number, seen, within):
            self._open.append(_Open(self.number, within))
        return len(seen.rows), within.until

    def _told_again(self, chunk: _Open) -> bool:
        """Tell a whole chunk once more; returns whether all of it can be judged now."""
        seen, within = self._see(lambda: (range_rows(self._connection, self._table, chunk.within), chunk.within))
        return self._is_settled(chunk.number, seen, within)

    def _is_settled(self, number: int, seen: _Seen, within: Range) -> bool:
        """Tell what was seen; returns whether nothing of it was new, or is by now."""
        mine = {self._say(self._said(seen.snapshot, seen.rows, within, number=number, behind=seen.behind))}
        if seen.behind:
            return False
        if nothing_between(seen.snapshot, current_snapshot(self._connection), mine):
            return True
        now, _ = self._see(lambda: (range_rows(self._connection, self._table, within), within))
        return not now.behind and set(now.rows) == set(seen.rows)

    def _see(self, read: Callable[[], tuple[Sequence[Row], Range]]) -> tuple[_Seen, Range]:
        with one_snapshot(self._connection) as snapshot:
            rows, within = read()
            behind = large_objects.behind(self._connection, self._stream, self._table.table, *within)
            return _Seen(snapshot, list(rows), tuple(behind)), within
