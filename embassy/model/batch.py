"""The unit of work: whole transactions in commit order, laid out the way PostgreSQL applies them fastest.

Changes are grouped into segments by table, operation and the columns present. An insert segment is one COPY
text block; update and delete segments hold, per column, the body of a binary ``text[]``. So a cost that is
paid per call is paid per segment, and no value is ever re-encoded.

*Order.* A change belongs to wave 1 + the highest wave of any of its key images so far in the batch. Applying
wave after wave, and in each wave deletes, then updates, then inserts, gives the state that commit order gives.
TRUNCATE is a barrier: it has a wave of its own, above all before it and below all after it. The exact commit
order of every change is kept in ``order``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from embassy.model.lsn import Lsn
from embassy.model.relation import Relation


class Operation(IntEnum):
    """What a segment does. Within a wave they apply in the order of their numbers."""

    TRUNCATE = 1
    DELETE = 2
    UPDATE = 3
    INSERT = 4


class Transaction(NamedTuple):
    """One source transaction of a batch."""

    xid: int
    commit_lsn: Lsn
    """Start of its commit record."""
    end_lsn: Lsn
    """End of its commit record: resuming here repeats nothing of it."""
    committed_at: int
    """Source time of the commit, microseconds since 1970 UTC."""
    changes: int
    """How many entries of ``order`` in this batch are its own."""


class Segment(NamedTuple):
    """Changes of one shape."""

    relation: int
    """Index into the batch's relations."""
    operation: Operation
    wave: int
    superseded: bool
    """Every row is overwritten by a later update of the batch: replayed only in exact order."""
    rows: int
    columns: tuple[int, ...]
    """Positions, in the relation, of the columns that ``copy_text`` or ``values`` hold. A column that is not
    here was not sent (an unchanged TOASTed value) and keeps what the replica has. Empty for deletes."""
    key: tuple[int, ...]
    """Positions of the columns that ``old`` holds and rows are matched by; empty if an update is matched by
    the new values of the relation's key."""
    copy_text: bytes
    """INSERT: ``rows`` lines of COPY text format, each ended by a newline, in the order of ``columns``."""
    values: tuple[bytes, ...]
    """UPDATE: per column, ``rows`` elements, each an int32 length (-1: NULL) and that many bytes of text."""
    old: tuple[bytes, ...]
    """UPDATE, DELETE: per key column, its old values, in the same form."""
    truncate_options: int = 0
    """TRUNCATE: 1 CASCADE, 2 RESTART IDENTITY (pgoutput's bits)."""
    truncated: tuple[int, ...] = ()
    """TRUNCATE: every relation of the statement, ``relation`` being the first."""


class Batch(NamedTuple):
    """Whole transactions, or one part of a single transaction that is larger than a batch."""

    relations: tuple[Relation, ...]
    segments: tuple[Segment, ...]
    order: bytes
    """For each change in commit order the index of its segment, as little-endian uint16; the rows of a segment
    stand in that order too, so walking ``order`` with a cursor per segment replays history exactly."""
    transactions: tuple[Transaction, ...]
    """In commit order. A part of a large transaction has one."""
    part: int
    """Which part of a large transaction, from 0; 0 for whole transactions."""
    complete: bool
    """False while parts of the large transaction are still to come."""
