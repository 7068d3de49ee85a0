"""The unit of work: whole transactions in commit order, laid out the way PostgreSQL applies them fastest.

Changes are grouped into segments by table, operation and the columns present. Insert segments hold, per column, texts
of COPY; update and delete segments the body of a binary ``text[]``. So a cost that is paid per call is paid per segment,
no value is ever re-encoded, and like stands beside like where it is compressed.

*Elements.* A value is an int32 length, highest byte first, and that many bytes of PostgreSQL's text output; NULL is
the length -1. So one column's values, one after another, are the body of a binary ``text[]``.

*Images.* A row is matched by the values of its replica identity's columns; under FULL these are all columns, and are
compared as text. A key-changing update has two images, the old and the new one.

*Waves.* A change is applied after the change that touched one of its images before: it gets the lowest wave in
which its operation comes later. Applying wave after wave, and in each wave deletes, then updates, then inserts, gives
the state that commit order gives; segments stand in this order. TRUNCATE is a barrier: its wave is above all before it
and below all after it. So is a change of a table's description. The exact commit order is kept in ``order``.

*Equal rows.* A table without a key may hold equal rows, so a delete or an update under FULL changes exactly one of the
rows that match. Within a wave

- the deletes of a table are one segment, in which an image may stand n times: n of the rows that match are deleted.
  Number the segment's elements per image, and the rows of the table per image, and join on both;
- no two updates of a table have the same old image, whatever their segments, but several rows of the table may match:
  one of them is updated;
- inserts of equal rows are one segment.

*Superseded.* An update that keeps its key, and all of whose columns are in the next change of the same row, which is
again such an update, stands in a segment marked superseded, and the later one takes its wave. The fast path skips
these segments.
"""

from __future__ import annotations

import sys
from array import array
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
    """End of its commit record: resuming here repeats nothing of it. 0 in a part before the last."""
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
    """From 1."""
    superseded: bool
    """Every row is overwritten by a later update of the batch: replayed only in exact order."""
    rows: int
    columns: tuple[int, ...]
    """Positions, in the relation, of the columns that ``texts`` or ``values`` hold. A column that is not
    here was not sent (an unchanged TOASTed value) and keeps what the replica has. Empty for deletes, and for an
    update under FULL of which nothing was sent: there the row only has to exist."""
    key: tuple[int, ...]
    """Positions of the columns that ``old`` holds and rows are matched by; empty if an update is matched by
    the new values of the relation's key."""
    texts: tuple[bytes, ...]
    """INSERT: per column, ``rows`` values in COPY text format, a newline between two."""
    values: tuple[bytes, ...]
    """UPDATE: per column, ``rows`` elements."""
    old: tuple[bytes, ...]
    """UPDATE, DELETE: per key column, the elements of its old values."""
    truncate_options: int = 0
    """TRUNCATE: 1 CASCADE, 2 RESTART IDENTITY (pgoutput's bits)."""
    truncated: tuple[int, ...] = ()
    """TRUNCATE: every relation of the statement, ``relation`` being the first."""


class Chunk(NamedTuple):
    """Rows of a table that is copied: what the source holds of them at the batch's place in the stream.

    All rows of a range of keys, if it has one: what the replica has there is replaced. Else rows that take the place
    of those with the same key.
    """

    relation: int
    """Index into the batch's relations."""
    by_range: bool
    """Whether it speaks of a range. Without bounds that is the whole table."""
    key: tuple[int, ...]
    """Positions of the columns that the bounds speak of, in the order in which they are compared; empty: no bounds."""
    lower: tuple[bytes, ...]
    """Texts of the lower bound; empty: from the first row."""
    lower_inclusive: bool
    upper: tuple[bytes, ...]
    """Texts of the upper bound, inclusive; empty: to the last row."""
    spared: tuple[bytes, ...]
    """Per column of the key the elements of rows in the range that the stream has brought already: to be left alone."""
    rows: int
    columns: tuple[int, ...]
    """Positions of the columns of ``copy_text``."""
    copy_text: bytes
    """``rows`` lines of COPY text format, each ended by a newline, in the order of ``columns``."""

    @property
    def is_whole_table(self) -> bool:
        """Whether what the replica's table holds is replaced, all of it."""
        return self.by_range and not self.lower and not self.upper


class Batch(NamedTuple):
    """Whole transactions, or one part of a single transaction that is larger than a batch."""

    relations: tuple[Relation, ...]
    segments: tuple[Segment, ...]
    """In the order in which the fast path applies them; a superseded one behind its equals."""
    order: bytes
    """For each change in commit order the index of its segment, as little-endian uint16; the rows of a segment
    stand in that order too, so walking ``order`` with a cursor per segment replays history exactly."""
    transactions: tuple[Transaction, ...]
    """In commit order. A part of a large transaction has one."""
    part: int
    """Which part of a large transaction, from 0; 0 for whole transactions."""
    complete: bool
    """False while parts of the large transaction are still to come."""
    chunk: Chunk | None = None
    """Rows of a table that is copied. A batch that has them holds no changes; a table that can only be copied whole comes
    in parts, as if it were one transaction."""

    def in_order(self) -> array[int]:
        """``order`` as numbers."""
        numbers = array("H", self.order)
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers
