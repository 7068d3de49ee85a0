"""Segments whose rows are still coming: collected row by row as cheaply as can be, laid out once at the end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

from embassy.model.batch import Operation, Segment
from producers.pgoutput_decoder import NULL_ELEMENT, SHORT_NULL

_RANKS_A_WAVE = 4
_ROWS_AT_HAND = 256
_UPPER_HALF = b"\0\0"
_NULL_TEXT = rb"\N"
_BACKSLASH, _TAB, _NEWLINE, _RETURN = b"\\\t\n\r"


def wave_above(rank: int, operation: int) -> int:
    """The lowest wave in which an operation is applied later than everything up to a rank."""
    return (rank - operation) // _RANKS_A_WAVE + 1


class OpenSegment:
    """A segment to which rows are added."""

    __slots__ = ("columns", "index", "key", "operation", "rank", "relation", "superseded", "wave")

    def __init__(
        self,
        relation: int,
        operation: Operation,
        wave: int,
        columns: tuple[int, ...] = (),
        key: tuple[int, ...] = (),
        *,
        superseded: bool = False,
    ) -> None:
        self.relation = relation
        self.operation = operation
        self.wave = wave
        self.columns = columns
        self.key = key
        self.superseded = superseded
        self.rank = wave * _RANKS_A_WAVE + operation
        """Grows in the order in which the fast path applies segments."""
        self.index = 0
        """Its place in the batch, once that is known."""

    def finished(self) -> Segment:
        """The segment, laid out."""
        raise NotImplementedError

    def _segment(
        self,
        rows: int,
        *,
        texts: tuple[bytes, ...] = (),
        values: tuple[bytes, ...] = (),
        old: tuple[bytes, ...] = (),
    ) -> Segment:
        return Segment(
            self.relation,
            self.operation,
            self.wave,
            self.superseded,
            rows,
            self.columns,
            self.key,
            texts,
            values,
            old,
        )


class OpenTruncate(OpenSegment):
    """One TRUNCATE statement."""

    __slots__ = ("_options", "_relations")

    def __init__(self, relations: tuple[int, ...], options: int, wave: int) -> None:
        super().__init__(relations[0], Operation.TRUNCATE, wave)
        self._relations = relations
        self._options = options

    def finished(self) -> Segment:
        """The segment, laid out."""
        return self._segment(1)._replace(truncate_options=self._options, truncated=self._relations)


class OpenInserts(OpenSegment):
    """Rows to insert, in the short form; some at a time they become texts, while the processor still has them at hand."""

    __slots__ = ("_has_nulls", "_most", "_rows", "_texts", "_values")

    def __init__(self, relation: int, wave: int, columns: tuple[int, ...]) -> None:
        super().__init__(relation, Operation.INSERT, wave, columns)
        self._values: list[bytes] = []
        self._most = max(1, len(columns)) * _ROWS_AT_HAND
        self._has_nulls = False
        self._texts: list[list[bytes]] = [[] for _ in columns]
        self._rows = 0

    def add_short(self, row: list[bytes]) -> None:
        """Add a row that has no NULL."""
        values = self._values
        values += row
        self._rows += 1
        if len(values) >= self._most:
            self._lay_out()

    def add(self, row: list[bytes]) -> None:
        """Add a row that may have NULLs."""
        self._has_nulls = True
        self.add_short(row)

    def finished(self) -> Segment:
        """The segment, laid out."""
        if self._values:
            self._lay_out()
        return self._segment(self._rows, texts=tuple([b"\n".join(texts) for texts in self._texts]))

    def _lay_out(self) -> None:
        values, width = self._values, len(self.columns)
        for column, texts in enumerate(self._texts):
            texts.append(_text(values[column::width], has_nulls=self._has_nulls))
        values.clear()


class OpenDeletes(OpenSegment):
    """Rows to delete, as the elements of their keys."""

    __slots__ = ("_bare_rows", "_old")

    def __init__(self, relation: int, wave: int, key: tuple[int, ...]) -> None:
        super().__init__(relation, Operation.DELETE, wave, (), key)
        self._old: list[bytes] = []
        self._bare_rows = 0

    def add(self, old: list[bytes]) -> None:
        """Add the elements of a row's key."""
        self._old += old
        if not old:  # of a table without columns
            self._bare_rows += 1

    def finished(self) -> Segment:
        """The segment, laid out."""
        width = len(self.key)
        if not width:
            return self._segment(self._bare_rows)
        return self._segment(len(self._old) // width, old=_by_column(self._old, width))


class OpenUpdates(OpenSegment):
    """Rows to update: in the short form, as long as it can say what they hold, else as elements."""

    __slots__ = ("_has_nulls", "_is_short", "_old", "_values")

    def __init__(
        self,
        relation: int,
        wave: int,
        columns: tuple[int, ...],
        key: tuple[int, ...] = (),
        *,
        superseded: bool = False,
    ) -> None:
        super().__init__(relation, Operation.UPDATE, wave, columns, key, superseded=superseded)
        self._is_short = True
        self._has_nulls = False
        self._values: list[bytes] = []
        self._old: list[bytes] = []

    def add_short(self, row: list[bytes]) -> None:
        """Add a row of short values, without a NULL, matched by the new values of its key."""
        self._values += row if self._is_short else _elements(row)

    def add(self, row: list[bytes], old: Sequence[bytes] = ()) -> None:
        """Add a row of short values and NULLs; if the segment has key columns, with the elements of its old key."""
        self.add_short(row)
        self._has_nulls = True
        self._old += old

    def add_elements(self, elements: list[bytes], old: Sequence[bytes] = ()) -> None:
        """Add any row."""
        if self._is_short:
            self._is_short = False
            self._values = _elements(self._values)
        self._values += elements
        self._old += old

    def finished(self) -> Segment:
        """The segment, laid out."""
        width = len(self.columns)
        if self._is_short:
            values = tuple([self._column(self._values[i::width]) for i in range(width)])
        else:
            values = _by_column(self._values, width)
        rows = len(self._old) // len(self.key) if self.key else len(self._values) // width
        return self._segment(rows, values=values, old=_by_column(self._old, len(self.key)))

    def _column(self, values: list[bytes]) -> bytes:
        if self._has_nulls and SHORT_NULL in values:
            return b"".join(_elements(values))
        return _UPPER_HALF.join([b"", *values])

    def without(self, dead: bytearray) -> OpenUpdates:
        """Take out the rows whose flag is 1, and return them as a superseded segment.

        The segment must be one that matches by new values.
        """
        width = len(self.columns)
        flags = [flag for flag in dead for _ in range(width)]
        taken = OpenUpdates(self.relation, self.wave, self.columns, superseded=True)
        taken._is_short, taken._has_nulls = self._is_short, self._has_nulls
        taken._values = list(compress(self._values, flags))
        self._values = list(compress(self._values, [not flag for flag in flags]))
        return taken


def _by_column(elements: list[bytes], width: int) -> tuple[bytes, ...]:
    return tuple([b"".join(elements[i::width]) for i in range(width)])


def _elements(values: list[bytes]) -> list[bytes]:
    """The elements of values in the short form."""
    return [_UPPER_HALF + value if value else NULL_ELEMENT for value in values]


def _text(values: list[bytes], *, has_nulls: bool) -> bytes:
    """Values in the short form as texts of COPY, a newline between two."""
    text = b"\n".join([value[2:] for value in values])
    # All are looked over at once: four scans in C, where a look at each value costs ten times that.
    if _BACKSLASH in text or _TAB in text or _RETURN in text or text.count(_NEWLINE) != len(values) - 1:
        return b"\n".join([_escaped(value[2:]) if value else _NULL_TEXT for value in values])
    if has_nulls and SHORT_NULL in values:
        return b"\n".join([value[2:] if value else _NULL_TEXT for value in values])
    return text


def _escaped(value: bytes) -> bytes:
    return value.replace(b"\\", rb"\\").replace(b"\n", rb"\n").replace(b"\r", rb"\r").replace(b"\t", rb"\t")
