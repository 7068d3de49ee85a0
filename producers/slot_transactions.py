"""A slot's messages as whole transactions, changes by column name: for readers that are not in a hurry. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from embassy.model.batch import Operation
from embassy.model.lsn import Lsn
from embassy.model.relation import Relation
from embassy.model.source_transaction import Change, SourceTransaction, Values
from producers import pgoutput_decoder as pgoutput
from producers.described import Described
from producers.pgoutput_decoder import NULL_ELEMENT, Begin, Elements

_OPERATIONS = {
    pgoutput.INSERT: Operation.INSERT,
    pgoutput.UPDATE: Operation.UPDATE,
    pgoutput.DELETE: Operation.DELETE,
}
_TRUNCATE = b"T"[0]
_LENGTH_BYTES = 4


def transactions(messages: Iterable[bytes], after: Lsn) -> Iterator[SourceTransaction]:
    """Transactions that end behind a position, in commit order.

    Args:
        messages: of pgoutput, protocol version 1, in their order.
        after: what ends up to here is left out.

    Raises:
        IntegrityError: a message cannot be understood.
    """
    described = Described()
    begun: Begin | None = None
    changes: list[Change] = []
    for message in messages:
        kind = message[0]
        if described.take(message):
            continue
        if kind == pgoutput.BEGIN:
            begun, changes = pgoutput.decode_begin(message), []
        elif kind == pgoutput.COMMIT:
            commit = pgoutput.decode_commit(message)
            if begun is not None and commit.end_lsn > after:
                yield SourceTransaction(begun.xid, commit.committed_at, commit.end_lsn, changes)
            begun, changes = None, []
        elif kind in _OPERATIONS:
            changes.append(_row_change(message, described))
        elif kind == _TRUNCATE:
            relations = [described.relation(oid, message) for oid in pgoutput.decode_truncate(message).oids]
            changes += [Change(relation, Operation.TRUNCATE, None, None) for relation in relations]


def _row_change(message: bytes, described: Described) -> Change:
    change = pgoutput.decode_row_change(message)
    relation = described.relation(change.oid, message)
    old = None if change.old is None else _values(relation, change.old)
    if old is not None and not change.old_is_whole:
        old = {
            column.name: old[column.name] for column in relation.columns if column.in_key and column.name in old
        }
    new = None if change.new is None else _values(relation, change.new)
    return Change(relation, _OPERATIONS[change.kind], old, new)


def _values(relation: Relation, row: Elements) -> Values:
    return {
        column.name: None if value == NULL_ELEMENT else value[_LENGTH_BYTES:]
        for column, value in zip(relation.columns, row, strict=True)
        if value is not None
    }
