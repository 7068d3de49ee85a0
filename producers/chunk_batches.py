"""Batches that carry chunks, and which rows of an ordinary batch a copy must still bring."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from embassy.model.batch import Batch, Chunk, Operation, Segment, Transaction
from embassy.model.relation import Relation, ReplicaIdentity
from producers.chunk_rows import Merged, unescaped
from producers.copy_desk import Offer, Unfinished

_LENGTH = struct.Struct(">i")


def chunk_batch(relation: Relation, read: Chunk, merged: Merged) -> Batch:
    """The batch of a chunk, as it is at its place in the stream."""
    columns = zip(*merged.spared, strict=True) if read.by_range else ()
    spared = tuple([b"".join([_element(unescaped(value)) for value in column]) for column in columns])
    chunk = read._replace(rows=merged.rows, copy_text=merged.copy_text, spared=spared)
    return Batch((relation,), (), b"", (), 0, complete=True, chunk=chunk)


def piece_batch(offer: Offer, piece: bytes, part: int, transaction: Transaction, *, last: bool) -> Batch:
    """The batch of a piece of a table that is copied whole."""
    chunk = offer.chunk._replace(by_range=part == 0, rows=piece.count(b"\n"), copy_text=piece)
    transactions = () if last and part == 0 else (transaction,)
    return Batch((offer.relation,), (), b"", transactions, part, complete=last, chunk=chunk)


def moved_in_part(
    batch: Batch, unfinished: Unfinished, oids_of: Callable[[Relation], Sequence[int]]
) -> Iterator[tuple[int, Relation, list[str]]]:
    """Rows of unfinished tables whose key was changed by an update that did not send them whole.

    If the old key is not copied yet, the replica has nothing to make the new row of, and the walk may be past it. So
    each is asked for by itself, before the update is in the stream. Under REPLICA IDENTITY FULL tables are copied whole.

    Args:
        batch: what is about to be shipped.
        unfinished: which tables and rows are still to be copied.
        oids_of: the oids of tables that the source describes like this.

    Returns:
        For each the table's oid and description, and its new key in the order of the description's.
    """
    for segment in batch.segments:
        relation = batch.relations[segment.relation]
        if (
            segment.operation is Operation.UPDATE
            and segment.key
            and len(segment.columns) < len(relation.columns)
            and relation.identity is not ReplicaIdentity.FULL
        ):
            for oid in oids_of(relation):
                if oid in unfinished:
                    for key in _moved(segment, unfinished[oid]):
                        yield oid, relation, key


def _moved(segment: Segment, awaited: frozenset[tuple[str, ...]] | None) -> Iterator[list[str]]:
    old = dict(zip(segment.key, map(_values, segment.old), strict=True))
    # a value of the key that was not sent is the old one
    new = old | dict(zip(segment.columns, map(_values, segment.values), strict=True))
    for row in range(segment.rows):
        if awaited is None or tuple(sorted(values[row] for values in old.values())) in awaited:
            yield [new[column][row] for column in segment.key]


def _values(column: bytes) -> Sequence[str]:
    found, at = [], 0
    while at < len(column):
        (length,) = _LENGTH.unpack_from(column, at)
        at += _LENGTH.size
        found.append(column[at : at + max(length, 0)].decode())
        at += max(length, 0)
    return found


def _element(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value
