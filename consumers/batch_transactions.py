"""Opened batches as whole transactions, changes by column name: for readers that are not in a hurry. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from consumers.inbox import BatchOpened, Event
from consumers.text_rows import segment_rows
from embassy.model.batch import Batch, Operation, Segment
from embassy.model.source_transaction import Change, SourceTransaction


def transactions(events: Iterable[Event]) -> Iterator[SourceTransaction]:
    """Transactions in commit order. One that comes in parts is one, once its last part has come; copied rows are none.

    Args:
        events: of an inbox, in their order.
    """
    parts: list[Change] = []
    for event in events:
        if not isinstance(event, BatchOpened):  # a new incarnation: parts that came so far come again
            parts = []
            continue
        batch = event.batch
        if batch.chunk is not None:
            continue
        entries = _entries(batch)
        for transaction in batch.transactions:
            parts += chain.from_iterable(islice(entries, transaction.changes))
            if batch.complete:
                yield SourceTransaction(transaction.xid, transaction.committed_at, transaction.end_lsn, parts)
                parts = []


def _entries(batch: Batch) -> Iterator[list[Change]]:
    """What each entry of a batch's order stands for: a change of a row, or one TRUNCATE of several tables."""
    rows = [_rows(batch, segment) for segment in batch.segments]
    for index in batch.in_order():
        segment = batch.segments[index]
        if segment.operation is Operation.TRUNCATE:
            yield [Change(batch.relations[table], Operation.TRUNCATE, None, None) for table in segment.truncated]
        else:
            yield [next(rows[index])]


def _rows(batch: Batch, segment: Segment) -> Iterator[Change]:
    """The changes of one segment."""
    relation = batch.relations[segment.relation]
    present = [relation.columns[position].name for position in segment.columns]
    matched = [relation.columns[position].name for position in segment.key]
    deletes = segment.operation is Operation.DELETE
    for row in segment_rows(segment):
        new, old = row[: len(present)], row[len(present) :]
        yield Change(
            relation,
            segment.operation,
            dict(zip(matched, old, strict=True)) if matched or deletes else None,
            None if deletes else dict(zip(present, new, strict=True)),
        )
