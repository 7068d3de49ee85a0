"""pgoutput messages made by hand, from the documentation of the formats and not from the decoder."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum
from typing import Final

from embassy.model.relation import Column, Relation, ReplicaIdentity

_PG_EPOCH_MICROSECONDS = 946_684_800_000_000


class _Unchanged(Enum):
    UNCHANGED = "u"


UNCHANGED: Final = _Unchanged.UNCHANGED
Value = bytes | None | _Unchanged
Row = Sequence[Value]


def table(
    name: str, columns: str, *, key: Sequence[int] = (0,), identity: ReplicaIdentity = ReplicaIdentity.DEFAULT
) -> Relation:
    """A table in schema ``public`` of text columns, named in one string."""
    names = columns.split()
    full = identity is ReplicaIdentity.FULL
    return Relation(
        "public",
        name,
        identity,
        tuple(Column(column, 25, "", -1, full or i in key) for i, column in enumerate(names)),
    )


def begin(final_lsn: int, xid: int = 700, committed_at: int = _PG_EPOCH_MICROSECONDS) -> bytes:
    return b"B" + struct.pack(">QqI", final_lsn, committed_at - _PG_EPOCH_MICROSECONDS, xid)


def commit(commit_lsn: int, end_lsn: int, committed_at: int = _PG_EPOCH_MICROSECONDS) -> bytes:
    return b"C" + struct.pack(">BQQq", 0, commit_lsn, end_lsn, committed_at - _PG_EPOCH_MICROSECONDS)


def relation(oid: int, described: Relation) -> bytes:
    parts = [
        b"R",
        struct.pack(">I", oid),
        b"" if described.schema == "pg_catalog" else described.schema.encode(),
        b"\0",
        described.name.encode() + b"\0" + described.identity.value.encode(),
        struct.pack(">h", len(described.columns)),
    ]
    for column in described.columns:
        parts.append(bytes([column.in_key]) + column.name.encode() + b"\0")
        parts.append(struct.pack(">Ii", column.type_oid, column.type_modifier))
    return b"".join(parts)


def type_name(oid: int, schema: str, name: str) -> bytes:
    return b"Y" + struct.pack(">I", oid) + schema.encode() + b"\0" + name.encode() + b"\0"


def insert(oid: int, row: Row) -> bytes:
    return b"I" + struct.pack(">I", oid) + b"N" + _tuple(row)


def update(oid: int, new: Row, *, key: Row | None = None, old: Row | None = None) -> bytes:
    before = b"K" + _tuple(key) if key is not None else b"O" + _tuple(old) if old is not None else b""
    return b"U" + struct.pack(">I", oid) + before + b"N" + _tuple(new)


def delete(oid: int, *, key: Row | None = None, old: Row | None = None) -> bytes:
    before = b"K" + _tuple(key) if key is not None else b"O" + _tuple(old or ())
    return b"D" + struct.pack(">I", oid) + before


def truncate(oids: Sequence[int], options: int = 0) -> bytes:
    return b"T" + struct.pack(f">IB{len(oids)}I", len(oids), options, *oids)


def logical_message(prefix: str, content: bytes) -> bytes:
    return b"M" + struct.pack(">BQ", 1, 77) + prefix.encode() + b"\0" + struct.pack(">I", len(content)) + content


def origin(name: str) -> bytes:
    return b"O" + struct.pack(">Q", 77) + name.encode() + b"\0"


def element(value: bytes | None) -> bytes:
    """A value in the form of an element of a binary ``text[]``."""
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def _tuple(row: Row) -> bytes:
    parts = [struct.pack(">h", len(row))]
    for value in row:
        if value is UNCHANGED:
            parts.append(b"u")
        elif value is None:
            parts.append(b"n")
        else:
            parts.append(b"t" + element(value))
    return b"".join(parts)
