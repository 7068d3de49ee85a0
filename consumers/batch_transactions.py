"""Opened batches as whole transactions, changes by column name: for readers that are not in a hurry. Pure."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from consumers.inbox import BatchOpened, Event
from consumers.text_rows import copy_rows, elements
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
    order = array("H", batch.order)
    if sys.byteorder == "big":
        order.byteswap()
    rows = [_rows(batch, segment) for segment in batch.segments]
    for index in order:
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
    if segment.operation is Operation.INSERT:
        rows = copy_rows(segment.copy_text) if present else iter([[]] * segment.rows)
        for row in rows:
            yield Change(relation, segment.operation, None, dict(zip(present, row, strict=True)))
        return
    bodies = (*segment.values, *segment.old)
    for values in zip(*map(elements, bodies), strict=True) if bodies else iter([()] * segment.rows):
        new = dict(zip(present, values[: len(present)], strict=True))
        old = dict(zip(matched, values[len(present) :], strict=True))
        yield Change(
            relation,
            segment.operation,
            old if matched or segment.operation is Operation.DELETE else None,
            new if segment.operation is Operation.UPDATE else None,
        )
