"""One table's changes in the open batch: which segment and which wave each belongs to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import itemgetter
from typing import Any

from embassy.model.batch import Operation
from embassy.model.relation import Relation, ReplicaIdentity
from producers import pgoutput_decoder
from producers.open_batch import OpenBatch
from producers.open_segment import OpenDeletes, OpenInserts, OpenUpdates, wave_above
from producers.pgoutput_decoder import (
    Elements,
    RowChange,
    ShortRow,
    decode_row_change,
    malformed,
    short_form,
    short_row,
)

# plain ints: arithmetic with an IntEnum is several times slower
_DELETE, _UPDATE, _INSERT = int(Operation.DELETE), int(Operation.UPDATE), int(Operation.INSERT)

_HEADER_BYTES = 8
"""Kind, oid, kind of tuple, number of columns."""

TakePieces = Callable[[list[bytes], bytes], None]


class TableChanges:
    """Sorts a table's changes into the open batch.

    A row's *image* is what it is matched by: the values of the replica identity's columns, under FULL of all. For each
    image touched since the last barrier, ``_last`` has the ordinal of the change that touched it last.
    """

    __slots__ = (
        "_all",
        "_batch",
        "_first_inserts",
        "_first_updates",
        "_full",
        "_image",
        "_index",
        "_key",
        "_last",
        "_open",
        "_order",
        "_width",
        "relation",
    )

    def __init__(self, relation: Relation, batch: OpenBatch) -> None:
        self.relation = relation
        self._batch = batch
        self._order = batch.order
        self._width = len(relation.columns)
        self._all = tuple(range(self._width))
        self._key = relation.key
        self._full = relation.identity is ReplicaIdentity.FULL
        self._image: Any = itemgetter(*self._key) if self._key else None
        if self._full and not self._width:
            self._image = _alike  # rows without a column are all the same, and deleted one each
        self._last: dict[Hashable, int] = {}
        self._open: dict[Hashable, Any] = {}
        self._first_inserts: OpenInserts | None = None
        self._first_updates: OpenUpdates | None = None
        self._index = -1

    @property
    def index(self) -> int:
        """The table's place among the batch's relations."""
        if self._index < 0:
            self._index = self._batch.joined_by(self)
        return self._index

    def takers(self, oid: bytes) -> dict[bytes, TakePieces]:
        """For each message that may be split at its short values: what it begins with, and what takes it."""
        if not self._width:
            return {}
        width = self._width.to_bytes(2, "big")
        takers: dict[bytes, TakePieces] = {b"I" + oid + b"N" + width: self._insert_pieces}
        if self._key and not self._full:
            takers[b"U" + oid + b"N" + width] = self._update_pieces
            takers[b"D" + oid + b"K" + width + b"n" * self._key[0]] = self._delete_pieces
        return takers

    def take(self, message: bytes) -> None:
        """Take any insert, update or delete.

        Raises:
            IntegrityError: it is malformed or does not fit the table's description.
        """
        change = decode_row_change(message)
        self._check(change, message)
        if change.new is None:
            assert change.old is not None, "a delete"
            self._delete(self._image(short_form(change.old)), self._key_elements(change.old))
        elif change.kind == pgoutput_decoder.INSERT:
            self._insert(short_form(change.new))
        else:
            self._update(change.new, change.old)

    def after_barrier(self) -> None:
        """Forget what was touched before a barrier."""
        self._last.clear()
        self._open.clear()
        self._first_inserts = self._first_updates = None

    def after_batch(self) -> None:
        """Forget everything that belongs to a batch."""
        self.after_barrier()
        self._index = -1

    # ------------------------------------------------------------------ hot: messages split at their short values

    def _insert_pieces(self, pieces: list[bytes], message: bytes) -> None:
        del pieces[0]
        end = pieces[-1]
        if len(pieces) != self._width or len(end) != (end[0] << 8 | end[1]) + 2:
            row = short_row(pieces, self._width)
            return self.take(message) if row is None or None in row else self._insert(row)
        order = self._order
        if self._image is None:
            segment = self._first_inserts or self._open_first_inserts()
        else:
            image = self._image(pieces)
            ordinal = len(order)
            if self._last.setdefault(image, ordinal) == ordinal:
                segment = self._first_inserts or self._open_first_inserts()
            else:
                segment = self._inserts(self._wave(_INSERT, image))
        segment.add_short(pieces)
        order.append(segment)
        return None

    def _update_pieces(self, pieces: list[bytes], message: bytes) -> None:
        del pieces[0]
        end = pieces[-1]
        if len(pieces) != self._width or len(end) != (end[0] << 8 | end[1]) + 2:
            row = short_row(pieces, self._width)
            return self.take(message) if row is None else self._update_short(row, message)
        order = self._order
        image = self._image(pieces)
        ordinal = len(order)
        if self._last.setdefault(image, ordinal) == ordinal:
            segment = self._first_updates or self._open_first_updates()
        else:
            segment = self._updates(self._wave_in_place(image, self._all), self._all)
        segment.add_short(pieces)
        order.append(segment)
        return None

    def _delete_pieces(self, pieces: list[bytes], message: bytes) -> None:
        del pieces[0]
        if len(pieces) != len(self._key):
            return self.take(message)
        # behind each stand the kind bytes of the columns outside the key: NULL
        key = [piece[: (piece[0] << 8 | piece[1]) + 2] for piece in pieces]
        if len(message) != _HEADER_BYTES + self._width + 2 * len(key) + sum(map(len, key)):
            return self.take(message)
        return self._delete(key[0] if len(key) == 1 else tuple(key), [b"\0\0" + value for value in key])

    # ------------------------------------------------------------------ any row

    def _insert(self, row: ShortRow) -> None:
        wave = self._batch.floor + 1 if self._image is None else self._wave(_INSERT, self._image(row))
        segment = self._inserts(wave)
        segment.add([value for value in row if value is not None])
        self._order.append(segment)

    def _delete(self, image: Hashable, key: list[bytes]) -> None:
        wave = self._wave(_DELETE, image)
        segment = self._open.get((_DELETE, wave))
        if segment is None:
            segment = self._open[_DELETE, wave] = self._batch.opened(OpenDeletes(self.index, wave, self._key))
        segment.add(key)
        self._order.append(segment)

    def _update_short(self, row: ShortRow, message: bytes) -> None:
        """Take an update of short values, NULLs and unchanged values, that keeps the key."""
        columns = _sent(row) if None in row else self._all
        if not _within(self._key, columns):
            raise malformed(message, f"the replica identity of {self.relation} is not sent")
        segment = self._updates(self._wave_in_place(self._image(row), columns), columns)
        segment.add([value for value in row if value is not None])
        self._order.append(segment)

    def _update(self, new: Elements, old: Elements | None) -> None:
        columns = _sent(new) if None in new else self._all
        elements = [element for element in new if element is not None]
        if old is None:
            segment = self._updates(self._wave_in_place(self._image(short_form(new)), columns), columns)
            segment.add_elements(elements)
        else:
            after = [before if element is None else element for element, before in zip(new, old, strict=True)]
            wave = self._wave(_UPDATE, self._image(short_form(old)), self._image(short_form(after)))
            segment = self._updates(wave, columns, self._key)
            segment.add_elements(elements, self._key_elements(old))
        self._order.append(segment)

    def _key_elements(self, elements: Elements) -> list[bytes]:
        return [element for i in self._key if (element := elements[i]) is not None]

    def _check(self, change: RowChange, message: bytes) -> None:
        for row in (change.old, change.new):
            if row is not None and len(row) != self._width:
                raise malformed(message, f"{len(row)} columns, and {self.relation} has {self._width}")
        if change.kind == pgoutput_decoder.INSERT:
            if change.new is None or None in change.new:
                raise malformed(message, "an insert with a value that is not sent")
            return
        if self._image is None:
            raise malformed(message, f"{self.relation} has no replica identity")
        if change.old is None:
            if self._full or any(change.new is None or change.new[i] is None for i in self._key):
                raise malformed(message, f"the replica identity of {self.relation} is not sent")
        elif change.old_is_whole is not self._full or any(change.old[i] is None for i in self._key):
            raise malformed(message, f"the old row of {self.relation} is not that of its replica identity")

    # ------------------------------------------------------------------ segments

    def _inserts(self, wave: int) -> OpenInserts:
        found = self._open.get((_INSERT, wave))
        if found is None:
            found = self._open[_INSERT, wave] = self._batch.opened(OpenInserts(self.index, wave, self._all))
        return found

    def _open_first_inserts(self) -> OpenInserts:
        self._first_inserts = self._inserts(self._batch.floor + 1)
        return self._first_inserts

    def _updates(self, wave: int, columns: tuple[int, ...], key: tuple[int, ...] = ()) -> OpenUpdates:
        shape = (_UPDATE, wave, columns, key)
        found = self._open.get(shape)
        if found is None:
            found = self._open[shape] = self._batch.opened(OpenUpdates(self.index, wave, columns, key))
        return found

    def _open_first_updates(self) -> OpenUpdates:
        self._first_updates = self._updates(self._batch.floor + 1, self._all)
        return self._first_updates

    # ------------------------------------------------------------------ waves

    def _wave(self, operation: int, *images: Hashable) -> int:
        """The wave of a change that touches these images, which from now on it was the last to touch."""
        ordinal = len(self._order)
        wave = self._batch.floor + 1
        for image in images:
            before = self._last.get(image, ordinal)
            self._last[image] = ordinal
            if before == ordinal:
                continue
            last = self._order[before]
            if operation == last.operation and operation != _UPDATE:
                wave = max(wave, last.wave)  # equal rows of a table without a key: one after another in a segment
            else:
                wave = max(wave, wave_above(last.rank, operation))
        return wave

    def _wave_in_place(self, image: Hashable, columns: tuple[int, ...]) -> int:
        """The wave of an update that keeps its key."""
        before = self._last.get(image)
        if before is not None:
            last = self._order[before]
            if last.operation == _UPDATE and not last.key and _within(last.columns, columns):
                # it writes every column that the one before it wrote: that one need not be applied at all
                self._batch.superseded.append(before)
                self._last[image] = len(self._order)
                return last.wave
        return self._wave(_UPDATE, image)


def _alike(_row: Sequence[bytes | None]) -> Hashable:
    return ()


def _sent(row: Sequence[bytes | None]) -> tuple[int, ...]:
    """The positions of the columns that were sent."""
    return tuple([i for i, value in enumerate(row) if value is not None])


def _within(columns: tuple[int, ...], others: tuple[int, ...]) -> bool:
    return columns is others or set(columns) <= set(others)
