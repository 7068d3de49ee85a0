"""A chunk's rows, brought from the state of its snapshot to the state of its place in the stream.

What the stream has delivered already and the chunk lacks is done to the chunk's rows. A row that the chunk does not
have then needs nothing from it: the stream has brought it whole, or it is of another range. So the result is the
rows to write, and the keys of those that must be left as the stream has made them.

Values are compared as COPY text: both sides of a comparison are the output of the same function of the same server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from embassy.model.errors import IntegrityError
from producers.pgoutput_decoder import DELETE, INSERT, NULL_ELEMENT, decode_row_change

_TRUNCATE = b"T"[0]
_NULL = rb"\N"

Key = tuple[bytes, ...]


class Merged(NamedTuple):
    """What a chunk becomes."""

    rows: int
    copy_text: bytes
    spared: tuple[Key, ...]
    """Keys, in COPY text, that the range may hold and the chunk does not speak of."""
    incomplete: frozenset[Key] = frozenset()
    """Keys of rows that came by an update of their key that did not send all, from rows that the chunk does not have."""


def merge(copy_text: bytes, key: Sequence[int], changes: Sequence[bytes]) -> Merged:
    """Do changes to rows.

    Args:
        copy_text: the rows, each with every column of the stream's description of the table.
        key: positions of the columns of the replica identity.
        changes: pgoutput's messages about this table: inserts, updates, deletes and truncations.

    Raises:
        IntegrityError: a message is malformed, or the table was described otherwise.
    """
    if not changes:
        return Merged(copy_text.count(b"\n"), copy_text, ())
    rows = {}
    for line in copy_text.split(b"\n")[:-1]:
        fields: Sequence[bytes] = line.split(b"\t")
        rows[tuple([fields[i] for i in key])] = fields
    touched: set[Key] = set()
    incomplete: set[Key] = set()
    for message in changes:
        if message[0] == _TRUNCATE:
            rows.clear()
            continue
        change = decode_row_change(message)
        old = None if change.old is None else _texts(change.old)
        new = None if change.new is None else _texts(change.new)
        if change.kind == INSERT:
            assert new is not None, "the decoder has seen to it"
            rows.pop(_key(new, new, key), None)
            touched.add(_key(new, new, key))
            continue
        before = _key(old or new or (), new or (), key)
        row = rows.pop(before, None)
        touched.add(before)
        if change.kind == DELETE:
            continue
        assert new is not None, "the decoder has seen to it"
        after = _key(new, old or new, key)
        touched.add(after)
        if row is not None:
            if len(row) != len(new):
                raise IntegrityError(f"a row of {len(row)} columns is changed by one of {len(new)}")
            rows[after] = [kept if value is None else value for value, kept in zip(new, row, strict=True)]
        else:
            rows.pop(after, None)
            if after != before and None in new:
                incomplete.add(after)
    text = b"".join([b"\t".join(row) + b"\n" for row in rows.values()])
    return Merged(len(rows), text, tuple(sorted(touched - rows.keys())), frozenset(incomplete))


def unescaped(field: bytes) -> bytes:
    """A value of COPY text that is not NULL, as it is."""
    if b"\\" not in field:
        return field
    pieces = field.split(b"\\\\")
    return b"\\".join(
        piece.replace(rb"\n", b"\n").replace(rb"\r", b"\r").replace(rb"\t", b"\t")
        .replace(rb"\b", b"\b").replace(rb"\f", b"\f").replace(rb"\v", b"\v")
        for piece in pieces
    )  # fmt: skip


def escaped(value: bytes) -> bytes:
    """A value as COPY writes it."""
    return (
        value.replace(b"\\", rb"\\").replace(b"\n", rb"\n").replace(b"\r", rb"\r").replace(b"\t", rb"\t")
        .replace(b"\b", rb"\b").replace(b"\f", rb"\f").replace(b"\v", rb"\v")
    )  # fmt: skip


def _texts(elements: Sequence[bytes | None]) -> list[bytes | None]:
    """Elements in COPY text; None is what was not sent."""
    return [
        None if element is None else _NULL if element == NULL_ELEMENT else escaped(element[4:])
        for element in elements
    ]


def _key(row: Sequence[bytes | None], otherwise: Sequence[bytes | None], key: Sequence[int]) -> Key:
    found = [row[i] if row[i] is not None else otherwise[i] for i in key]
    if any(value is None for value in found):
        raise IntegrityError("a change came without its key")
    return tuple([value for value in found if value is not None])
