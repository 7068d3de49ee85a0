"""The messages of PostgreSQL's pgoutput plugin, protocol versions 1 to 4, without streamed transactions.

Pure: bytes in, values out. Source: PostgreSQL documentation, "Logical Replication Message Formats".

Values stay as they came. A column of a row is an *element*: an int32 length and that many bytes of text, just as
the message has it behind the kind byte ``t``, and just as a binary ``text[]`` holds it. NULL is the length -1.

Most rows hold only values shorter than 64 KiB, and those are cut out by one `bytes.split`. PostgreSQL's text never
contains a zero byte, so ``t`` and two zero bytes stand nowhere but at the start of such a value: see
`SHORT_VALUE`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.relation import Column, Relation, ReplicaIdentity

BEGIN, COMMIT, RELATION, TYPE = b"BCRY"
INSERT, UPDATE, DELETE = b"IUD"

NULL_ELEMENT = b"\xff\xff\xff\xff"

SHORT_VALUE = b"t\0\0"
"""What a value of less than 64 KiB begins with: its kind and the upper half of its length; the lower half follows.

In a message below `SPLITTABLE_BYTES` these three bytes stand nowhere else. Zero bytes occur only in lengths, in
column counts (behind ``N``, ``K`` or ``O``, never ``t``) and in the relation's oid, which the caller compares. Within
a length they could follow 0x74 only in 0x..740000, which is above that limit.
"""
SPLITTABLE_BYTES = 0x740000
SHORT_NULL = b""

_PG_EPOCH_MICROSECONDS = 946_684_800_000_000
_BEGIN = struct.Struct(">cQqI")
_COMMIT = struct.Struct(">cbQQq")
_RELATION_COLUMN = struct.Struct(">Ii")
_TRUNCATE = struct.Struct(">cIB")
_HINT = "this is not a message of pgoutput as PostgreSQL 14 to 18 write it; see docs/wire-format.md"

_TEXT, _NULL, _UNCHANGED = b"tnu"
_NEW, _KEY, _OLD = b"NKO"


class Begin(NamedTuple):
    """A transaction's changes follow."""

    final_lsn: Lsn
    """Start of its commit record."""
    committed_at: int
    """Microseconds since 1970 UTC."""
    xid: int


class Commit(NamedTuple):
    """A transaction's changes have all been sent."""

    commit_lsn: Lsn
    """Start of the commit record."""
    end_lsn: Lsn
    """End of the commit record: resuming here repeats nothing of it."""
    committed_at: int
    """Microseconds since 1970 UTC."""


class TypeName(NamedTuple):
    """A type that is not built in. For a domain, ``schema`` and ``name`` are those of its base type."""

    oid: int
    schema: str
    name: str


class Truncate(NamedTuple):
    """One TRUNCATE statement."""

    oids: tuple[int, ...]
    options: int
    """1 CASCADE, 2 RESTART IDENTITY."""


Elements = Sequence[bytes | None]
"""The elements of a row; None is an unchanged TOASTed value, which was not sent."""


ShortRow = Sequence[bytes | None]
"""The columns of a row in the form that a message is split in: of each value the lower half of its length, and the
text; `SHORT_NULL` is NULL, None an unchanged TOASTed value."""


class RowChange(NamedTuple):
    """One INSERT, UPDATE or DELETE."""

    kind: int
    oid: int
    old: Elements | None
    """The old row or, unless it is whole, the columns of its replica identity among NULLs; if it was sent."""
    old_is_whole: bool
    new: Elements | None


def malformed(message: bytes, why: str) -> IntegrityError:
    """The error for a message that cannot be understood."""
    kind = chr(message[0]) if message else ""
    return IntegrityError(f"malformed pgoutput message {kind!r} of {len(message)} bytes: {why}", hint=_HINT)


def unknown(message: bytes) -> IntegrityError:
    """The error for a kind of message that was not asked for."""
    return IntegrityError(f"unknown pgoutput message kind {message[:1]!r}", hint=_HINT)


def decode_begin(message: bytes) -> Begin:
    """Decode ``B``.

    Raises:
        IntegrityError: it is malformed.
    """
    try:
        _, final_lsn, committed_at, xid = _BEGIN.unpack(message)
    except struct.error as error:
        raise malformed(message, str(error)) from error
    return Begin(Lsn(final_lsn), committed_at + _PG_EPOCH_MICROSECONDS, xid)


def decode_commit(message: bytes) -> Commit:
    """Decode ``C``.

    Raises:
        IntegrityError: it is malformed.
    """
    try:
        _, _, commit_lsn, end_lsn, committed_at = _COMMIT.unpack(message)
    except struct.error as error:
        raise malformed(message, str(error)) from error
    return Commit(Lsn(commit_lsn), Lsn(end_lsn), committed_at + _PG_EPOCH_MICROSECONDS)


def decode_type(message: bytes) -> TypeName:
    """Decode ``Y``.

    Raises:
        IntegrityError: it is malformed.
    """
    schema, at = _string(message, 5)
    name, at = _string(message, at)
    _at_end(message, at)
    return TypeName(int.from_bytes(message[1:5]), schema or "pg_catalog", name)


def decode_relation(message: bytes, types: Mapping[int, TypeName]) -> tuple[int, Relation]:
    """Decode ``R``: the table's oid and its description.

    Args:
        message: the message.
        types: the types that were announced before.

    Raises:
        IntegrityError: it is malformed.
    """
    schema, at = _string(message, 5)
    name, at = _string(message, at)
    try:
        identity = ReplicaIdentity(chr(message[at]))
        count = int.from_bytes(message[at + 1 : at + 3])
        at += 3
        columns = []
        for _ in range(count):
            in_key = message[at] & 1 == 1
            column, at = _string(message, at + 1)
            oid, modifier = _RELATION_COLUMN.unpack_from(message, at)
            at += _RELATION_COLUMN.size
            known = types.get(oid)
            columns.append(Column(column, oid, f"{known.schema}.{known.name}" if known else "", modifier, in_key))
    except (IndexError, ValueError, struct.error) as error:
        raise malformed(message, str(error)) from error
    _at_end(message, at)
    oid = int.from_bytes(message[1:5])
    return oid, Relation(schema or "pg_catalog", name, identity, tuple(columns))


def decode_truncate(message: bytes) -> Truncate:
    """Decode ``T``.

    Raises:
        IntegrityError: it is malformed.
    """
    try:
        _, count, options = _TRUNCATE.unpack_from(message)
        oids = struct.unpack_from(f">{count}I", message, _TRUNCATE.size)
    except struct.error as error:
        raise malformed(message, str(error)) from error
    _at_end(message, _TRUNCATE.size + 4 * count)
    if not oids:
        raise malformed(message, "no relation")
    return Truncate(oids, options)


def decode_row_change(message: bytes) -> RowChange:
    """Decode ``I``, ``U`` or ``D``, whatever it holds.

    Raises:
        IntegrityError: it is malformed.
    """
    old: Elements | None = None
    new: Elements | None = None
    old_is_whole = False
    try:
        kind, marker, at = message[0], message[5], 6
        if kind not in (INSERT, UPDATE, DELETE):
            raise unknown(message)
        if kind != INSERT and marker in (_KEY, _OLD):
            old_is_whole = marker == _OLD
            old, at = _elements(message, at)
            if kind == UPDATE:
                marker, at = message[at], at + 1
        if kind != DELETE:
            if marker != _NEW:
                raise malformed(message, f"{bytes([marker])!r} where a new tuple must be")
            new, at = _elements(message, at)
        elif old is None:
            raise malformed(message, f"{bytes([marker])!r} where an old tuple must be")
    except IndexError as error:
        raise malformed(message, "it is cut short") from error
    _at_end(message, at)
    return RowChange(kind, int.from_bytes(message[1:5]), old, old_is_whole, new)


def short_row(pieces: list[bytes], width: int) -> ShortRow | None:
    """The columns of a row from what follows each `SHORT_VALUE` in it, or None if it holds a value that is not short.

    The first column must be the first piece. ``width`` is the number of columns there must be.
    """
    row: list[bytes | None] = []
    append = row.append
    try:
        for piece in pieces:
            end = (piece[0] << 8 | piece[1]) + 2
            if len(piece) == end:
                append(piece)
                continue
            others = piece[end:]  # the kind bytes of NULLs and unchanged values, or something else
            if not others or others.strip(b"nu"):
                return None
            append(piece[:end])
            for kind in others:
                append(SHORT_NULL if kind == _NULL else None)
    except IndexError:
        return None
    return row if len(row) == width else None


def short_form(elements: Elements) -> ShortRow:
    """The short form of a row's elements."""
    return [SHORT_NULL if value == NULL_ELEMENT else value[2:] if value else None for value in elements]


def _elements(message: bytes, at: int) -> tuple[Elements, int]:
    """TupleData at a position: its elements, and where it ends."""
    row: list[bytes | None] = []
    append = row.append
    number = int.from_bytes
    width = message[at] << 8 | message[at + 1]
    at += 2
    for _ in range(width):
        kind = message[at]
        start = at + 1
        if kind == _TEXT:
            at += 5 + number(message[start : at + 5], "big")
            append(message[start:at])
            continue
        at = start
        if kind == _NULL:
            append(NULL_ELEMENT)
        elif kind == _UNCHANGED:
            append(None)
        else:
            raise malformed(message, f"unknown kind of value {bytes([kind])!r}")
    if at > len(message):
        raise malformed(message, "it is cut short")
    return row, at


def _string(message: bytes, at: int) -> tuple[str, int]:
    end = message.find(b"\0", at)
    if end < 0:
        raise malformed(message, "a string does not end")
    try:
        return message[at:end].decode(), end + 1
    except UnicodeDecodeError as error:
        raise malformed(message, str(error)) from error


def _at_end(message: bytes, at: int) -> None:
    if at != len(message):
        raise malformed(message, f"{at} bytes expected")
