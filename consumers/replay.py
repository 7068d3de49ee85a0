"""A batch once more, change by change in the exact order of the source: what no faster way could apply.

What fails here cannot be applied at all, and the error says which change of which transaction it is. It names tables,
columns and constraints, never a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from consumers.ddl import commands
from consumers.ddl_executor import DdlExecutor
from consumers.sql_builder import truncate
from consumers.targets import Targets
from consumers.text_rows import Row, segment_rows
from consumers.unfinished import Lacking, awaited
from embassy.model.batch import Batch, Operation, Segment
from embassy.model.errors import IntegrityError
from embassy.model.relation import Relation
from embassy.pg.apply_session import ApplySession, Call, Query, StatementFailed
from embassy.pg.replica_catalog import owned_sequences

_CHUNK_CALLS = 1000
_CHUNK_BYTES = 4 << 20
_CANNOT_TRUNCATE = "0A000"

_SAVEPOINT = Query("SAVEPOINT embassy_truncate")
_ROLLBACK_TO = Query("ROLLBACK TO SAVEPOINT embassy_truncate")
_RELEASE = Query("RELEASE SAVEPOINT embassy_truncate")
_PLAN_ONCE = Call(Query("SET LOCAL plan_cache_mode = force_generic_plan"))
_PLAN_EACH = Call(Query("SET LOCAL plan_cache_mode = force_custom_plan"))


class _Due(NamedTuple):
    """A statement that is to be executed."""

    call: Call
    ordinal: int
    """Of the change that it is for."""
    exactly_one: bool = False
    """Whether it must find one row."""


class Replay:
    """Applies one batch in exact order, in the transaction that is open."""

    def __init__(
        self,
        session: ApplySession,
        targets: Targets,
        ddl: DdlExecutor,
        batch: Batch,
        pulse: Callable[[], None],
        *,
        unfinished: Lacking | None = None,
        changes: range | None = None,
    ) -> None:
        """Take a batch.

        Args:
            session: the replica's.
            targets: its tables.
            ddl: executes statements.
            batch: what is applied.
            pulse: called now and then.
            unfinished: tables that are being copied: rows of theirs may have yet to come.
            changes: which entries of ``order``; all if not said.
        """
        self._session = session
        self._targets = targets
        self._ddl = ddl
        self._batch = batch
        self._pulse = pulse
        self._unfinished = unfinished or {}
        self._order = batch.in_order()
        self._changes = changes if changes is not None else range(len(self._order))

    def run(self) -> None:
        """Apply each of the changes, superseded ones too.

        Raises:
            IntegrityError: a change cannot be applied.
            TransientError: the session ended.
        """
        batch = self._batch
        rows = [segment_rows(segment) for segment in batch.segments]
        ddl = [iter(commands(batch.relations[segment.relation], segment)) for segment in batch.segments]
        due = [_Due(_PLAN_ONCE, 0)]
        size = 0
        for index in self._order[: self._changes.start]:
            if batch.segments[index].operation is not Operation.TRUNCATE:
                next(rows[index])
                next(ddl[index], None)
        for ordinal in self._changes:
            index = self._order[ordinal]
            segment = batch.segments[index]
            if segment.operation is Operation.TRUNCATE:
                self._send(due)
                self._truncate(segment, ordinal)
                due, size = [], 0
                continue
            row = next(rows[index])
            command = next(ddl[index], None)
            relation = batch.relations[segment.relation]
            if (relation.schema, relation.name) in self._unfinished:
                due += self._with_the_way_cleared(relation, segment, row, ordinal)
                if self._may_make_a_row(relation, segment):
                    if self._send(due)[-1] == 0:
                        made = segment._replace(operation=Operation.INSERT, key=())
                        values = row[: len(segment.columns)]
                        self._send(self._with_the_way_cleared(relation, made, values, ordinal))
                    due, size = [], 0
            else:
                due.append(_Due(Call(self._targets.row_query(relation, segment), row), ordinal, exactly_one=True))
            size += sum(len(value) for value in row if value is not None)
            if command is not None:
                self._send(due)
                self._ddl.execute(command)
                self._targets.forget()
                self._unfinished = {**self._unfinished, **awaited(self._session)}
                due, size = [], 0
            elif len(due) >= _CHUNK_CALLS or size >= _CHUNK_BYTES:
                self._send(due)
                self._pulse()
                due, size = [], 0
        due.append(_Due(_PLAN_EACH, 0))
        self._send(due)

    def _send(self, due: Sequence[_Due]) -> list[int]:
        """Execute in one exchange; returns how many rows each found."""
        try:
            counts = self._session.run([each.call for each in due])
        except StatementFailed as failure:
            raise self._failed(due[failure.index].ordinal, failure.reason) from failure
        for each, count in zip(due, counts, strict=True):
            if each.exactly_one and count != 1:
                found = "no row has its key" if count == 0 else f"{count} rows have its key"
                raise self._failed(each.ordinal, found)
        return counts

    def _may_make_a_row(self, relation: Relation, segment: Segment) -> bool:
        """Whether a change of a table that is being copied is to become an INSERT if it finds no row.

        A row whose key changes from what is not copied yet may never come again, so it is made of the update. If that
        does not have all of it, the source has asked for the row by itself.
        """
        by_key = bool(relation.key) and not self._targets.of(relation).by_image
        moves = segment.operation is Operation.UPDATE and bool(segment.key) and by_key
        return moves and len(segment.columns) == len(relation.columns)

    def _with_the_way_cleared(self, relation: Relation, segment: Segment, row: Row, ordinal: int) -> list[_Due]:
        """A change of a table that is being copied: its row may have yet to come, and one in its way is wrong.

        It comes behind what removes the row that has its key, and those that have a unique value of its row. The latter
        only if all of the table is still to come: see `consumers.unfinished`.
        """
        calls = []
        by_key = bool(relation.key) and not self._targets.of(relation).by_image
        values = dict(zip(segment.columns, row, strict=False))
        takes_key = segment.operation is Operation.INSERT or bool(segment.key)
        if by_key and takes_key and all(position in values for position in relation.key):
            key = [values[position] for position in relation.key]
            if key != row[len(segment.columns) :]:
                calls.append(self._deletion(relation, key))
        if self._unfinished[relation.schema, relation.name] and segment.operation is not Operation.DELETE:
            calls += [Call(query, row) for query in self._targets.way_queries(relation, segment)]
        calls.append(Call(self._targets.row_query(relation, segment), row))
        return [_Due(call, ordinal) for call in calls]

    def _deletion(self, relation: Relation, key: Row) -> Call:
        shape = Segment(0, Operation.DELETE, 1, False, 1, (), relation.key, (), (), ())  # noqa: FBT003 - a tuple
        return Call(self._targets.row_query(relation, shape), key)

    def _truncate(self, segment: Segment, ordinal: int) -> None:
        """TRUNCATE; or DELETE all rows, where a table refers to these that is not truncated with them.

        At the source that table was: a partitioned root, which the stream does not name, or one that is not published.
        """
        relations = [self._batch.relations[index] for index in segment.truncated]
        destinations = [self._targets.of(relation) for relation in relations]
        restart = bool(segment.truncate_options & 2)
        try:
            self._session.run([Call(_SAVEPOINT)])
            try:
                self._session.run([Call(Query(truncate(destinations, restart_identity=restart))), Call(_RELEASE)])
            except StatementFailed as failure:
                if failure.sqlstate != _CANNOT_TRUNCATE:
                    raise
                self._session.run([Call(_ROLLBACK_TO), Call(_RELEASE)])
                statements = [f"DELETE FROM ONLY {destination.name}" for destination in destinations]
                for relation in relations if restart else ():
                    names = owned_sequences(self._session.connection, relation.schema, relation.name)
                    statements += [f"ALTER SEQUENCE {name} RESTART" for name in names]
                self._session.run([Call(Query(statement)) for statement in statements])
        except StatementFailed as failure:
            raise self._failed(ordinal, failure.reason) from failure

    def _failed(self, ordinal: int, reason: str) -> IntegrityError:
        batch = self._batch
        segment = batch.segments[self._order[ordinal]]
        relation = batch.relations[segment.relation]
        key = ", ".join(relation.columns[i].name for i in segment.key or relation.key) or "none"
        at = ordinal
        for transaction in batch.transactions:
            if at < transaction.changes:
                break
            at -= transaction.changes
        part = f" of part {batch.part}" if batch.part or not batch.complete else ""
        return IntegrityError(
            f"{segment.operation.name} of {relation} (key: {key}) cannot be applied: {reason}; "
            f"change {at + 1}{part} of transaction {transaction.xid}, committed at {transaction.commit_lsn}",
            place=f"{relation}, {self._session.place}",
            hint="the replica differs from what the source had: repair or resync the table, then start the consumer "
            "again; nothing of this transaction is in the replica",
        )
