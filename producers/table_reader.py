"""Reads one table to its end, chunk by chunk, each handed to the stream's loop before the next is read.

Large values are read in no time and take their time to the topic, so that a kill would make two chunks to be read again:
the one on its way, and the next. Their chunks are half as large, and no third one is read before the first is written
down.

Where the replica may sort the keys otherwise (text under a collation of the operating system or of ICU), a range here is
not a range there. Such a table is always copied whole, whatever range was asked for, if it is more than a key: the first
chunk empties it, and rows are replaced key by key.

Rows that are asked for by their keys come in one chunk, whatever sorts them, behind one chunk without rows for each key
that has none here: so nothing is taken out there but what was asked for.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import psycopg

from embassy.model.batch import Chunk
from embassy.model.errors import TransientError
from embassy.pg import copy_source, table_copies
from embassy.pg.copy_source import CopiedTable, Moment, Range
from embassy.pg.table_copies import CopyNote, WantedCopy
from embassy.runtime import failpoints
from embassy.runtime.failpoints import failpoint
from producers.chunk_rows import escaped, unescaped
from producers.copy_desk import PIECES_AHEAD, CopyDesk, Fate, Offer
from producers.copy_window import Snapshot

_FIRST_ROWS, _LEAST_ROWS, _MOST_ROWS = 1_000, 50, 200_000
_GROWTH = 4
_CUT_AT = 4
"""A chunk that has grown to so many times its size is cut there."""
_LARGE_ROW_BYTES = 4096
"""From here on a chunk's rows, on average, are large values."""
_PUT_SECONDS = 0.5


class TableAlteredError(TransientError):
    """The table is gone, has another name or is walked otherwise: its copy goes on as what it is now."""


class TableReader:
    """One copy."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        desk: CopyDesk,
        job: Sequence[WantedCopy],
        chunk_bytes: int,
        beat: Callable[[psycopg.Connection[Any]], None],
    ) -> None:
        self._connection = connection
        self._desk = desk
        self._job = job
        self._wanted = wanted = job[0]
        self._chunk_bytes = chunk_bytes
        self._beat = beat
        self._limit = _FIRST_ROWS
        self._rows, self._bytes = wanted.rows, wanted.bytes
        if wanted.bytes:  # as it was before: a first chunk of another size would be more to lose
            self._adapt(wanted.rows, wanted.bytes)
        self._at = wanted.at
        self._unproven: frozenset[int] = frozenset()
        self._awaited: Offer | None = None
        """The chunk that must be written down before the next is read: of large values, the last but one."""
        self._on_its_way: Offer | None = None
        """The last one, of large values."""

    def run(self) -> None:
        """Read until the last chunk is in the stream.

        Raises:
            TableAlteredError: the table is no longer what was asked for.
            TransientError: the stream's loop has ended.
            RefusedError: the table may not be read.
        """
        oid = self._wanted.oid
        self._desk.open_window(oid)
        try:
            self._unproven = copy_source.writers(self._connection, oid)
            table = copy_source.find(self._connection, self._wanted.schema, self._wanted.name)
            step = self._whole if table is not None and not table.key else self._step
            while not step():
                pass
        finally:
            self._desk.close_window(oid)

    def _step(self) -> bool:
        """Read a chunk and have it shipped; returns whether it was the last."""
        if self._awaited is not None:
            self._desk.until(self._awaited.noted.wait)
        with copy_source.reading(self._connection, self._wanted.schema, self._wanted.name) as found:
            commits = self._desk.commits
            table, moment = self._unaltered(found)
            if not table.key:
                raise TableAlteredError("the table has lost its key", place=str(table.relation))
            offer = self._read(table, moment)
        failpoint(failpoints.PRODUCER_AFTER_CHUNK_READ)
        self._desk.put(offer)
        # The stream has to come past it. The note of the chunk before does that, as a rule; else a beat is committed.
        if self._desk.fate(offer, self._hasten, commits_before=commits) is Fate.RETRY:
            return False
        note = offer.note
        large = _are_large(note.rows - self._rows, note.bytes - self._bytes)
        self._awaited, self._on_its_way = self._on_its_way, offer if large else None
        self._at, self._rows, self._bytes = note.ahead_key, note.rows, note.bytes
        return note.done

    def _hasten(self) -> None:
        self._beat(self._connection)
        self._desk.commits += 1

    def _read(self, table: CopiedTable, moment: Moment) -> Offer:
        wanted = self._wanted
        if wanted.moved or wanted.keys:
            return self._read_rows(table, moment)
        first = not self._at
        one_key = bool(wanted.from_key) and wanted.from_key == wanted.to_key
        whole = wanted.whole or not (table.same_order or one_key)
        if whole:
            within = Range(self._at)
        else:
            within = Range(self._at or wanted.from_key, first and bool(wanted.from_key), wanted.to_key)
        blocks: list[bytes] = []
        size = 0
        cut = False
        for block in copy_source.copy_rows(self._connection, table, within, self._limit):
            blocks.append(block)
            size += len(block)
            if size >= self._chunk_bytes * _CUT_AT and b"\n" in block:
                cut = True
                break
        text = b"".join(blocks)
        text = text[: text.rfind(b"\n") + 1]
        rows = text.count(b"\n")
        done = not cut and rows < self._limit
        last = () if done else _last_key(text, table.key)
        self._adapt(rows, len(text))
        upper = within.upper if done else last
        one = bool(within.lower) and within.lower == upper and within.lower_inclusive
        everything = first and whole and not table.same_order
        chunk = Chunk(
            relation=0,
            by_range=table.same_order or one or everything,
            key=table.key,
            lower=_bytes(within.lower),
            lower_inclusive=within.lower_inclusive,
            upper=() if everything else _bytes(upper),
            spared=(),
            rows=rows,
            columns=tuple(range(len(table.relation.columns))),
            copy_text=text,
        )
        note = CopyNote(
            last, 0, self._rows + rows, self._bytes + len(text), table.rows_expected, done, wanted.round
        )
        return self._offer(table, moment, chunk, note)

    def _read_rows(self, table: CopiedTable, moment: Moment) -> Offer:
        """The rows of these keys, and which of them have none."""
        wanted = self._wanted
        keys = wanted.keys or tuple(copy.from_key for copy in self._job)
        text = b"".join(copy_source.copy_rows(self._connection, table, Range(keys=keys), None))
        rows = text.count(b"\n")
        chunk = _rows_chunk(table, text, rows)
        note = CopyNote(
            (), 0, self._rows + rows, self._bytes + len(text), table.rows_expected, done=True, round=wanted.round
        )
        offer = self._offer(table, moment, chunk, note)
        if wanted.keys:  # else a row that is gone has gone in the stream, too
            found = {_key_of(line, table.key) for line in text.split(b"\n")[:-1]}
            offer.gone = tuple(
                chunk._replace(
                    by_range=True, lower=bound, lower_inclusive=True, upper=bound, rows=0, copy_text=b""
                )
                for bound in (_bytes(key) for key in keys if key not in found)
            )
        return offer

    def _offer(self, table: CopiedTable, moment: Moment, chunk: Chunk, note: CopyNote) -> Offer:
        return Offer(
            tuple(copy.copy for copy in self._job),
            frozenset(
                tuple([escaped(value.encode()) for value in key])
                for copy in self._job
                for key in copy.keys or ((copy.from_key,) if copy.from_key == copy.to_key else ())
                if key
            ),
            table.oid,
            table.relation,
            Snapshot.parse(moment.snapshot),
            moment.log_end,
            self._unproven,
            chunk,
            note,
        )

    def _adapt(self, rows: int, size: int) -> None:
        """Choose the next chunk's number of rows, so that it has about the bytes wanted."""
        aim = self._chunk_bytes // 2 if _are_large(rows, size) else self._chunk_bytes
        wanted = aim * rows // size if size else self._limit * _GROWTH
        self._limit = max(_LEAST_ROWS, min(wanted, self._limit * _GROWTH, _MOST_ROWS))

    def _unaltered(self, found: tuple[CopiedTable, Moment] | None) -> tuple[CopiedTable, Moment]:
        """What was found under the table's name, if it is the one that was asked for, and walked as it was then."""
        wanted = self._wanted
        if (
            found is None
            or found[0].oid != wanted.oid
            or table_copies.walk(self._connection, wanted.oid) != wanted.walk
        ):
            raise TableAlteredError("the table was altered", place=f"{wanted.schema}.{wanted.name}")
        return found

    # ------------------------------------------------------------------ as a whole

    def _whole(self) -> bool:
        """A table without a key that it could be walked by: from one moment, in one piece of the stream."""
        wanted = self._wanted
        holding = []

        def hold() -> None:
            self._desk.hold()
            holding.append(True)

        try:
            with copy_source.reading(self._connection, wanted.schema, wanted.name, hold) as found:
                table, moment = self._unaltered(found)
                chunk = Chunk(
                    relation=0,
                    by_range=True,
                    key=(),
                    lower=(),
                    lower_inclusive=False,
                    upper=(),
                    spared=(),
                    rows=0,
                    columns=tuple(range(len(table.relation.columns))),
                    copy_text=b"",
                )
                offer = self._offer(
                    table, moment, chunk, CopyNote((), 0, 0, 0, table.rows_expected, done=True, round=wanted.round)
                )
                offer.pieces = queue.Queue(PIECES_AHEAD)
                self._desk.put(offer)
                self._desk.release()
                holding.clear()
                if self._desk.fate(offer) is Fate.RETRY:
                    return False
                try:
                    for piece in self._pieces(table):
                        self._put(offer.pieces, piece)
                    self._put(offer.pieces, None)
                    return self._desk.fate(offer) is Fate.SHIPPED
                except BaseException:
                    offer.failed.set()
                    raise
        finally:
            if holding:
                self._desk.release()

    def _pieces(self, table: CopiedTable) -> Iterator[bytes]:
        rest = b""
        for block in copy_source.copy_rows(self._connection, table, Range(), None):
            rest += block
            if len(rest) >= self._chunk_bytes:
                end = rest.rfind(b"\n") + 1
                if end:
                    yield rest[:end]
                    rest = rest[end:]
        if rest:
            yield rest

    def _put(self, pieces: queue.Queue[bytes | None], piece: bytes | None) -> None:
        self._desk.until(partial(_put, pieces, piece))


def _put(pieces: queue.Queue[bytes | None], piece: bytes | None, timeout: float) -> bool:
    try:
        pieces.put(piece, timeout=timeout)
    except queue.Full:
        return False
    return True


def _are_large(rows: int, size: int) -> bool:
    return size >= rows * _LARGE_ROW_BYTES


def _rows_chunk(table: CopiedTable, text: bytes, rows: int) -> Chunk:
    """A chunk that speaks of its rows, and of nothing between them."""
    return Chunk(
        relation=0,
        by_range=False,
        key=table.key,
        lower=(),
        lower_inclusive=False,
        upper=(),
        spared=(),
        rows=rows,
        columns=tuple(range(len(table.relation.columns))),
        copy_text=text,
    )


def _last_key(text: bytes, key: tuple[int, ...]) -> tuple[str, ...]:
    return _key_of(text[text.rfind(b"\n", 0, -1) + 1 : -1], key)


def _key_of(line: bytes, key: tuple[int, ...]) -> tuple[str, ...]:
    fields = line.split(b"\t")
    return tuple(unescaped(fields[i]).decode() for i in key)


def _bytes(bound: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(value.encode() for value in bound)
