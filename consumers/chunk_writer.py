"""Writes the chunks of a table that is copied: what they speak of is in the replica afterwards as it is in the chunk.

Rows of the chunk's range go, and the chunk's come, in one transaction: no reader sees one without the other. Where a
row to come has a key or another unique value that a row outside the range still has, that one is wrong, or stands for
a range that is yet to be copied. It goes too if the table is copied whole. Beside a copy of some rows nothing would bring
what it stands for, and the stream halts: only what has a key of the chunk's own rows is theirs to replace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from consumers.sql_builder import Access, copy
from consumers.sql_terms import Target, found_by, quoted, target, typed
from consumers.targets import Targets
from consumers.text_rows import TEXT_ARRAY_OID, elements
from consumers.unfinished import Unfinished
from consumers.unproven_checks import Unproven, unproven_checks
from consumers.way_sql import deletions
from embassy.model.batch import Batch, Chunk
from embassy.model.errors import IntegrityError
from embassy.pg.apply_session import ApplySession, Call, Query, StatementFailed
from embassy.pg.replica_catalog import find_table
from embassy.runtime.failpoints import CONSUMER_AFTER_CHUNK_CLEARED, failpoint

_SAVEPOINT = Query("SAVEPOINT embassy_chunk")
_RELEASE = Query("RELEASE SAVEPOINT embassy_chunk")
_ROLLBACK_TO = Call(Query("ROLLBACK TO SAVEPOINT embassy_chunk"))
_TAKEN = ("23505", "23P01")
_BROKEN = ("23514", "23502")
"""A check, or NOT NULL."""
_STAGE = "pg_temp.embassy_chunk"


class ChunkWriter:
    """Writes within the transaction that is open."""

    def __init__(
        self,
        session: ApplySession,
        targets: Targets,
        unfinished: Unfinished,
        planned_for: Callable[[Access], Sequence[Call]],
    ) -> None:
        """Take a session.

        Args:
            session: the replica's.
            targets: its tables.
            unfinished: which of them are copied whole.
            planned_for: what to execute so that the planner finds rows in that way.
        """
        self._session = session
        self._targets = targets
        self._unfinished = unfinished
        self._planned_for = planned_for

    def write(self, batch: Batch) -> None:
        """Write a batch's chunk.

        Raises:
            IntegrityError: the replica's table cannot hold it.
            TransientError: the session ended.
        """
        chunk = batch.chunk
        assert chunk is not None, "only batches with a chunk are written here"
        relation = batch.relations[chunk.relation]
        destination = self._targets.of(relation)
        try:
            if chunk.by_range:
                self._session.run([*self._planned_for(Access.BY_INDEX_AND_IMAGE), _cleared(destination, chunk)])
            failpoint(CONSUMER_AFTER_CHUNK_CLEARED)
            if chunk.rows:
                self._fill(destination, batch, chunk)
        except StatementFailed as failure:
            raise IntegrityError(
                f"rows of {relation} that are copied cannot be written: {failure.reason}",
                place=f"{relation}, {self._session.place}",
                hint="make the replica's table what the source's is, then start the consumer again; nothing was skipped",
            ) from failure

    def _fill(self, destination: Target, batch: Batch, chunk: Chunk) -> None:
        try:
            rows = self._filled(destination, batch, chunk)
        except StatementFailed as failure:
            unproven = _unproven_after(self._session, failure, destination)
            if unproven is None:
                raise
            self._session.run(unproven.taken)
            rows = self._filled(destination, batch, chunk)
            self._session.run(unproven.back)
        if rows != chunk.rows:
            raise IntegrityError(
                f"{rows} of {chunk.rows} rows of {destination.relation} were written", place=self._session.place
            )

    def _filled(self, destination: Target, batch: Batch, chunk: Chunk) -> int:
        self._session.defer(_SAVEPOINT)
        try:
            rows = self._session.copy(copy(destination, chunk.columns), [chunk.copy_text])
        except StatementFailed as failure:
            if failure.sqlstate not in _TAKEN:
                raise
            self._session.run([_ROLLBACK_TO])
            relation = destination.relation
            if self._unfinished.at(batch).get((relation.schema, relation.name), False):
                rows = self._replace(destination, chunk, self._all_in_the_way(destination, chunk))
            elif chunk.by_range:  # what it replaces is gone already
                raise self._in_the_way(destination, failure) from failure
            else:
                try:
                    rows = self._replace(destination, chunk, [_same_rows(destination, chunk)])
                except StatementFailed as left:
                    if left.sqlstate not in _TAKEN:
                        raise
                    raise self._in_the_way(destination, left) from left
        self._session.defer(_RELEASE)
        return rows

    def _all_in_the_way(self, destination: Target, chunk: Chunk) -> list[str]:
        given = {
            destination.columns[position].name: quoted(destination.columns[position].name)
            for position in chunk.columns
        }
        return deletions(destination.name, self._targets.uniques(destination), given, f" FROM {_STAGE}")

    def _in_the_way(self, destination: Target, failure: StatementFailed) -> IntegrityError:
        relation = destination.relation
        return IntegrityError(
            f"some rows of {relation} are copied, and a row of the replica that is none of them is in their way: "
            f"{failure.reason}",
            place=f"{relation}, {self._session.place}",
            hint=f"that row is wrong too; a copy of the whole table mends both: embassy resync {relation}, "
            "at home and in the embassy, then start the consumer again; nothing was skipped",
        )

    def _replace(self, destination: Target, chunk: Chunk, ways: Sequence[str]) -> int:
        """By way of a table that holds the rows for a moment.

        Args:
            destination: the table.
            chunk: its rows.
            ways: statements that delete what makes way for the rows in that table.
        """
        names = ", ".join(quoted(destination.columns[position].name) for position in chunk.columns)
        session = self._session
        session.run(
            [
                Call(
                    Query(
                        f"CREATE TEMPORARY TABLE embassy_chunk ON COMMIT DROP AS "
                        f"SELECT {names} FROM ONLY {destination.name} LIMIT 0"
                    )
                )
            ]
        )
        session.copy(f"COPY {_STAGE} ({names}) FROM STDIN", [chunk.copy_text])
        calls = [*self._planned_for(Access.BY_SCAN), *(Call(Query(way)) for way in ways)]
        calls.append(
            Call(
                Query(
                    f"INSERT INTO {destination.name} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {_STAGE}"
                )
            )
        )
        rows = session.run(calls)[-1]
        session.run([Call(Query(f"DROP TABLE {_STAGE}"))])
        return rows


def _unproven_after(session: ApplySession, failure: StatementFailed, destination: Target) -> Unproven | None:
    """The constraints that rows of before may break, if it was one that failed; the transaction is usable again then."""
    if failure.sqlstate not in _BROKEN:
        return None
    session.run([_ROLLBACK_TO])
    found = unproven_checks(session, destination.name)
    return found if found.taken else None


def _same_rows(destination: Target, chunk: Chunk) -> str:
    """The statement that takes away the rows that have a key of the staged ones."""
    keys, _ = found_by(destination, chunk.key)
    names = {key.position: quoted(destination.columns[key.position].name) for key in keys}
    same = " AND ".join(f"t.{names[key.position]} {key.equals} v.{names[key.position]}" for key in keys)
    return f"DELETE FROM ONLY {destination.name} AS t USING {_STAGE} AS v WHERE {same}"


def rows_to_clear(session: ApplySession, batch: Batch) -> int:
    """How many rows of the replica a chunk of a range takes out, before its own come.

    Raises:
        IntegrityError: the replica has no table that fits.
        TransientError: the session ended.
    """
    chunk = batch.chunk
    assert chunk is not None, "only a chunk clears a range"
    relation = batch.relations[chunk.relation]
    destination = target(relation, find_table(session.connection, relation.schema, relation.name))
    try:
        # as for taking them out: Access.BY_INDEX_AND_IMAGE
        return session.count(_within(destination, chunk, "SELECT count(*)"), ("enable_hashjoin",))
    except StatementFailed as failure:
        raise IntegrityError(
            f"rows of {relation} that a copy takes out cannot be counted: {failure.reason}",
            place=f"{relation}, {session.place}",
            hint="make the replica's table what the source's is, then start the consumer again; nothing was skipped",
        ) from failure


def _cleared(destination: Target, chunk: Chunk) -> Call:
    """The statement that takes away what the range holds, but for what it must leave alone."""
    return _within(destination, chunk, "DELETE")


def _within(destination: Target, chunk: Chunk, verb: str) -> Call:
    """A statement about what the range holds, but for what a chunk must leave alone."""
    columns = [destination.columns[position] for position in chunk.key]
    names = ", ".join(f"t.{quoted(column.name)}" for column in columns)
    conditions: list[str] = []
    types: list[int] = []
    values: list[bytes | None] = []
    for operator, bound in (
        (">=" if chunk.lower_inclusive else ">", chunk.lower),
        ("<=", chunk.upper),
    ):
        if bound:
            parameters = ", ".join(f"${len(values) + i}" for i in range(1, len(bound) + 1))
            conditions.append(f"({names}) {operator} ({parameters})")
            types += [column.base_oid for column in columns]
            values += bound
    if chunk.spared:
        arrays = ", ".join(f"pg_catalog.unnest(${len(values) + i})" for i in range(1, len(columns) + 1))
        texts = [f"s{i}" for i in range(len(columns))]
        keys = [typed(column, text) for column, text in zip(columns, texts, strict=True)]
        selected = ", ".join(
            f"{key or text} AS k{i}" for i, (key, text) in enumerate(zip(keys, texts, strict=True))
        )
        same = " AND ".join(
            f"t.{quoted(column.name)} OPERATOR(pg_catalog.=) v.k{i}"
            if key
            else f"t.{quoted(column.name)}::pg_catalog.text = v.k{i}"
            for i, (column, key) in enumerate(zip(columns, keys, strict=True))
        )
        conditions.append(
            f"NOT EXISTS (SELECT FROM (SELECT {selected} FROM ROWS FROM ({arrays}) AS u ({', '.join(texts)}) OFFSET 0) "
            f"AS v WHERE {same})"
        )
        types += [TEXT_ARRAY_OID] * len(columns)
        values += [_array(column) for column in chunk.spared]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return Call(Query(f"{verb} FROM ONLY {destination.name} AS t{where}", tuple(types)), values)


def _array(column: bytes) -> bytes:
    """Elements as the text of an array."""
    texts = [(value or b"").replace(b"\\", rb"\\").replace(b'"', rb"\"") for value in elements(column)]
    return b"{" + b",".join(b'"' + text + b'"' for text in texts) + b"}"
