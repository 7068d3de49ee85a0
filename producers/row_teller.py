"""Tells of one table's rows, chunk by chunk: each as one snapshot saw it, and once more what has changed since."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from embassy.model.verification import DIGEST_BYTES, Chunk, Key, Message, summed
from embassy.model.visibility import Visibility
from embassy.pg.digested_table import DigestedTable
from embassy.pg.row_digests import (
    Range,
    Row,
    bag_rows,
    boundary,
    current_snapshot,
    listed_rows,
    one_snapshot,
    page,
    range_rows,
)

_CHUNK_SECONDS = 0.2
_CHUNK_ROWS_LEAST, _CHUNK_ROWS_MOST = 100, 5_000
_PIECE_ROWS = 50
_BAG_ROWS = 50_000
_ATTEMPTS = 10
_BAG_ATTEMPTS = 3
_LOOKED_AT_MOST = 1_000


class RowTeller:
    """Tells of one table."""

    def __init__(
        self, connection: Any, say: Callable[[Message], int], table: DigestedTable, doubtful: tuple[int, ...]
    ) -> None:
        self._connection = connection
        self._say = say
        self._table = table
        self._doubtful = doubtful
        self.number = 0
        """Of the next chunk."""

    def chunks(
        self, share: float, chance: random.Random, clock: Callable[[], float], chunk_rows: int
    ) -> Iterator[int]:
        """Tell them all, or a share of them; how many rows have been told of, after each."""
        if not self._table.key:
            yield from self._bags()
            return
        after: Key | None = None
        told = 0
        while True:
            if chance.random() >= share:
                until = boundary(self._connection, self._table, after, chunk_rows)
            else:
                began = clock()
                rows, until = self._chunk(after, chunk_rows)
                told += rows
                self.number += 1
                pace = _CHUNK_SECONDS / max(clock() - began, 0.001)
                chunk_rows = int(min(max(chunk_rows * min(pace, 2.0), _CHUNK_ROWS_LEAST), _CHUNK_ROWS_MOST))
            yield told
            if until is None:
                return
            after = until

    def _chunk(self, after: Key | None, limit: int) -> tuple[int, Key | None]:
        snapshot, rows = self._read(lambda: page(self._connection, self._table, Range(after), limit))
        until = rows[-1].key if len(rows) == limit else None
        within = Range(after, until)
        mine = {self._say(self._said(snapshot, rows, within))}
        told = {row.key: row for row in rows}
        for _ in range(_ATTEMPTS):
            if nothing_between(snapshot, current_snapshot(self._connection), mine):
                break
            snapshot, again = self._read(lambda: range_rows(self._connection, self._table, within))
            now = {row.key: row for row in again}
            changed = [key for key in told.keys() | now.keys() if told.get(key) != now.get(key)]
            if not changed or len(changed) > 2 * _CHUNK_ROWS_MOST:
                break
            told = now
            for at in range(0, len(changed), _PIECE_ROWS):
                mine.add(self._tell_again(changed[at : at + _PIECE_ROWS], within, told))
        return len(rows), until

    def _tell_again(self, keys: Sequence[Key], within: Range, told: dict[Key, Row]) -> int:
        """Tell of a few rows, as soon as they are read: the sooner, the fewer change in between."""
        snapshot, rows = self._read(lambda: listed_rows(self._connection, self._table, keys))
        found = {row.key: row for row in rows}
        for key in keys:
            told.pop(key, None)
        told.update(found)
        again = [found.get(key, Row(key, b"", "")) for key in keys]
        return self._say(self._said(snapshot, again, within, listed=True))

    def _said(
        self,
        snapshot: Visibility,
        rows: Sequence[Row],
        within: Range,
        *,
        listed: bool = False,
        number: int | None = None,
        behind: tuple[Key, ...] = (),
    ) -> Chunk:
        return Chunk(
            self._table.table,
            self.number if number is None else number,
            snapshot,
            self._doubtful,
            len(rows),
            summed(row.digest for row in rows),
            tuple(row.key for row in rows),
            tuple(row.digest[:DIGEST_BYTES] for row in rows),
            within.after,
            within.until,
            listed,
            behind=behind,
        )

    def _read(self, read: Callable[[], list[Row]]) -> tuple[Visibility, list[Row]]:
        with one_snapshot(self._connection) as snapshot:
            return snapshot, read()

    # ------------------------------------------------------------------ without a key

    def _bags(self) -> Iterator[int]:
        """All rows in one snapshot, told by the first bytes of their digests."""
        before: list[bytes] = []
        ranges: list[tuple[int, int]] = []
        for attempt in range(_BAG_ATTEMPTS):
            snapshot, bags = self._read_bags()
            ranges = ranges or list(_ranges([len(bag) for bag in bags]))
            mine = set()
            for number, (low, high) in enumerate(ranges):
                if attempt == 0 or bags[low:high] != before[low:high]:
                    mine.add(self._say(self._said_bag(snapshot, number, bags, (low, high))))
            self.number = len(ranges)
            if attempt == 0:
                yield sum(map(len, bags)) // 32
            if nothing_between(snapshot, current_snapshot(self._connection), mine) or (attempt and not mine):
                return
            before = bags

    def _said_bag(
        self, snapshot: Visibility, number: int, bags: list[bytes], first_byte: tuple[int, int]
    ) -> Chunk:
        whole = b"".join(bags[slice(*first_byte)])
        digests = [whole[at : at + 32] for at in range(0, len(whole), 32)]
        return Chunk(
            self._table.table,
            number,
            snapshot,
            self._doubtful,
            len(digests),
            summed(digests),
            (),
            tuple(digest[:DIGEST_BYTES] for digest in digests),
            first_byte=first_byte,
        )

    def _read_bags(self) -> tuple[Visibility, list[bytes]]:
        """The digests of all rows by their first byte, sorted and one after another."""
        bags = [bytearray() for _ in range(256)]
        with one_snapshot(self._connection) as snapshot:
            for digest in bag_rows(self._connection, self._table):
                bags[digest[0]] += digest
        return snapshot, [
            b"".join(sorted(bytes(bag[at : at + 32]) for at in range(0, len(bag), 32))) for bag in bags
        ]


def nothing_between(before: Visibility, now: Visibility, mine: set[int]) -> bool:
    """Whether no transaction but these has become visible from one snapshot to a later one."""
    ended = before.in_progress - now.in_progress
    fresh = range(before.xmax, now.xmax)
    if len(fresh) > _LOOKED_AT_MOST:
        return False
    return {*ended, *(xid for xid in fresh if xid not in now.in_progress)} <= mine


def _ranges(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First bytes taken together, so that each range has some rows but not too many."""
    low = size = 0
    for byte, more in enumerate(sizes):
        if byte > low and size + more > _BAG_ROWS * 32:
            yield low, byte
            low, size = byte, 0
        size += more
    yield low, len(sizes)
