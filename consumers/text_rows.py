"""The two forms in which a segment holds values, to PostgreSQL's parameters and, if need be, to single rows."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice

from embassy.model.batch import Operation, Segment

INT8_OID = 20
TEXT_OID = 25
TEXT_ARRAY_OID = 1009

_ARRAY_HEADER = struct.Struct(">iiIii")
_LENGTH = struct.Struct(">i")
_NULL_ELEMENT = b"\xff\xff\xff\xff"
_ROWS_A_BLOCK = 500
"""Enough for the server to be busy with while the next ones are joined."""
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


Row = list[bytes | None]
"""The values of one row."""


def segment_rows(segment: Segment) -> Iterator[Row]:
    """Each row of a segment: the values of its columns, then of its key."""
    if not (segment.columns or segment.key):
        return iter([[] for _ in range(segment.rows)])
    if segment.operation is Operation.INSERT:
        return map(list, zip(*map(texts, segment.texts), strict=True))
    return map(list, zip(*map(elements, (*segment.values, *segment.old)), strict=True))


def text_array(body: bytes, rows: int) -> bytes:
    """A column of an update or delete segment as a binary ``text[]``: one header before the bytes as they are."""
    has_null = _NULL_ELEMENT in body  # may be true of a text, too; PostgreSQL only wants to know if it must look
    return _ARRAY_HEADER.pack(1, has_null, TEXT_OID, rows, 1) + body


def elements(body: bytes) -> Iterator[bytes | None]:
    """The values of a column of an update or delete segment, one by one."""
    at, end = 0, len(body)
    while at < end:
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if length < 0:
            yield None
        else:
            yield body[at : at + length]
            at += length


def texts(column: bytes) -> Iterator[bytes | None]:
    """The values of a column of an insert segment, one by one."""
    fields = column.split(b"\n")
    if b"\\" not in column:
        return iter(fields)
    return (None if field == b"\\N" else _ESCAPE.sub(_unescaped, field) for field in fields)


def copy_blocks(segment: Segment) -> Iterator[bytes]:
    """The rows of an insert segment as lines of COPY text, some at a time."""
    if not segment.texts:
        yield b"\n" * segment.rows
        return
    lines = map(b"\t".join, zip(*[column.split(b"\n") for column in segment.texts], strict=True))
    while some := list(islice(lines, _ROWS_A_BLOCK)):
        some.append(b"")
        yield b"\n".join(some)


def _unescaped(match: re.Match[bytes]) -> bytes:
    return _ESCAPED.get(match[1], match[1])
