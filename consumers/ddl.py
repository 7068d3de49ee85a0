"""Statements of the source's DDL, executed at their place in the stream, in the transaction that is open.

A statement means what it meant at the source: the same role is active, with the same search_path and settings. What of it
cannot be read or executed here halts the stream; an operator may then do it by hand, and note that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from consumers.sql_terms import quoted
from consumers.text_rows import INT8_OID, TEXT_OID, copy_rows
from embassy.model.batch import Batch, Operation, Segment
from embassy.model.errors import IntegrityError
from embassy.model.relation import Relation
from embassy.model.sql_text import Unreadable, innermost, pick, without_concurrently
from embassy.pg import replica_schema
from embassy.pg.apply_session import ApplySession, Call, Query, StatementFailed

_SET = Query("SELECT pg_catalog.set_config($1, $2, true)", (TEXT_OID, TEXT_OID))
_PLANNER = ("enable_nestloop", "enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan")
_NO_SUCH_ROLE = "22023"


class Command(NamedTuple):
    """A row of embassy.ddl; schemas/sql/source_ddl.sql says what the columns hold."""

    ordinal: int
    tag: str
    role: str
    settings: Mapping[str, str]
    how: str
    query: str | None
    query_of: int | None
    nth: int
    objects: Sequence[Mapping[str, Any]]
    filled: Sequence[Mapping[str, Any]]

    def __str__(self) -> str:
        named = ", ".join([str(found["identity"]) for found in self.objects if found.get("identity")])
        return f"DDL {self.ordinal}, {self.tag}" + (f" ({named})" if named else "")


def holds_ddl(batch: Batch) -> bool:
    """Whether a batch has statements to execute."""
    return any(relation.is_ddl for relation in batch.relations)


def commands(relation: Relation, segment: Segment) -> list[Command]:
    """The statements that a segment brings: none unless it inserts them."""
    if not relation.is_ddl or segment.operation is not Operation.INSERT:
        return []
    names = [relation.columns[position].name for position in segment.columns]
    return [_command(dict(zip(names, row, strict=True))) for row in copy_rows(segment.copy_text)]


class DdlExecutor:
    """Executes them."""

    def __init__(self, session: ApplySession) -> None:
        self._session = session

    def execute(self, command: Command) -> None:
        """Execute one; its row is in the replica already.

        Raises:
            IntegrityError: it cannot be read, or not executed here.
            TransientError: the session ended.
        """
        self._session.run()
        connection = self._session.connection
        if connection.execute("SELECT FROM embassy.ddl_by_hand WHERE ordinal = %s", (command.ordinal,)).fetchone():
            return
        statement = self._statement(command)
        wanted = {**command.settings, **dict.fromkeys(_PLANNER, "on")}
        before = connection.execute(
            "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY (%s)", (list(wanted),)
        ).fetchall()
        known = {name for name, _ in before}
        enter = [_set(name, value) for name, value in wanted.items() if name in known]
        leave = [_set(name, value) for name, value in before]
        try:
            self._session.run(enter)
            self._session.run([_set("role", command.role)])
            self._session.run([Call(Query(statement))])
            self._session.run([_set("role", "none"), *leave])
            self._guard()
            for filled in command.filled:
                self._fill(command, filled)
        except StatementFailed as failure:
            raise self._failed(command, failure.reason, statement) from failure

    def _statement(self, command: Command) -> str:
        query = command.query
        if query is None:
            row = self._session.connection.execute(
                "SELECT query FROM embassy.ddl WHERE ordinal = %s", (command.query_of,)
            ).fetchone()
            query = row[0] if row else ""
        assert query is not None, "the row that is referred to has a text"
        backslashes = command.settings.get("standard_conforming_strings") == "off"
        try:
            if command.how == "statement":
                return query
            if command.how == "string":
                found = pick(query, command.tag, command.nth, backslashes=backslashes)
            else:
                found = innermost(query, command.tag, backslashes=backslashes)
        except Unreadable as error:
            raise self._failed(command, f"its text cannot be told: {error}", query) from error
        return without_concurrently(found)

    def _fill(self, command: Command, filled: Mapping[str, Any]) -> None:
        """Give a table the rows that it had at the source after the statement, and no others."""
        name, columns = filled["table"], filled["columns"]
        here = self._session.connection.execute(
            "SELECT attname FROM pg_catalog.pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (name,),
        ).fetchall()
        if [column for (column,) in here] != columns:
            raise self._failed(
                command, f"the columns of {name} stand in another order than at the source", "its rows"
            )
        written = [quoted(column) for column in columns if column not in filled["generated"]]
        whose = [str(command.ordinal).encode(), name.encode()]
        rows = f"SELECT content::{name} AS r FROM embassy.ddl_rows WHERE ordinal = $1 AND target = $2"
        insert = (
            f"INSERT INTO {name} ({', '.join(written)}) OVERRIDING SYSTEM VALUE"
            f" SELECT {', '.join([f'(r).{column}' for column in written])} FROM ({rows} ORDER BY number OFFSET 0) x"
        )
        delete = Query("DELETE FROM embassy.ddl_rows WHERE ordinal = $1 AND target = $2", (INT8_OID, TEXT_OID))
        self._session.run(
            [
                Call(Query(f"DELETE FROM ONLY {name}")),
                Call(Query(insert, (INT8_OID, TEXT_OID)), whose),
                Call(delete, whose),
            ]
        )

    def _guard(self) -> None:
        """New tables are written by nobody else; new triggers do not repeat what they did at the source."""
        connection = self._session.connection
        for schema, name in replica_schema.unguarded(connection):
            replica_schema.guard(connection, schema, name)
        for found in replica_schema.firing(connection):
            replica_schema.silence(connection, found)
        self._session.forget()

    def _failed(self, command: Command, reason: str, text: str) -> IntegrityError:
        role = command.role.replace('"', '""')
        way_out = (
            f'CREATE ROLE "{role}" on the replica'
            if f'role "{command.role}" does not exist' in reason
            else "let the replica have what it needs"
        )
        brief = " ".join(text.split())
        return IntegrityError(
            f"{command} cannot be executed as {command.role}: {reason}: {brief[:300]}",
            place=self._session.place,
            hint=f"{way_out} and start the consumer again; or do by hand what it does, then INSERT INTO "
            f"embassy.ddl_by_hand VALUES ({command.ordinal}, 'why'); nothing of this transaction is in the replica",
        )


def _set(name: str, value: str) -> Call:
    return Call(_SET, [name.encode(), value.encode()])


def _command(row: Mapping[str, bytes | None]) -> Command:
    def text(name: str) -> str:
        value = row[name]
        return value.decode() if value is not None else ""

    return Command(
        ordinal=int(text("ordinal")),
        tag=text("tag"),
        role=text("role"),
        settings=json.loads(text("settings")),
        how=text("how"),
        query=text("query") if row["query"] is not None else None,
        query_of=int(text("query_of")) if row["query_of"] is not None else None,
        nth=int(text("nth") or 1),
        objects=json.loads(text("objects")),
        filled=json.loads(text("filled")),
    )
