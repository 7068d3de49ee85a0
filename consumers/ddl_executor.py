"""Statements of the source's DDL, executed at their place in the stream, in the transaction that is open.

A statement means what it meant at the source: the same role is active, with the same search_path and settings. What
another server would store differently (`now()`, a sequence's next value) is stored as the source did. Afterwards the
tables must be what they are there. What cannot be read, executed or made equal halts the stream; an operator may then
do it by hand, and note that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from consumers import untold
from consumers.ddl import Command, text_of
from consumers.sql_terms import quoted
from consumers.text_rows import INT8_OID, TEXT_OID
from consumers.unproven_checks import unproven_checks
from embassy.model.errors import IntegrityError
from embassy.model.sql_text import Unreadable, validated_constraint, without_validation
from embassy.pg import awaited_tables, replica_schema
from embassy.pg.apply_session import ApplySession, Call, Query, StatementFailed
from embassy.runtime.failpoints import CONSUMER_AFTER_DDL, CONSUMER_BEFORE_DDL, failpoint

_SET = Query("SELECT pg_catalog.set_config($1, $2, true)", (TEXT_OID, TEXT_OID))
_PLANNER = ("enable_nestloop", "enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan")
_TRUSTING = {"check_function_bodies": "off"}
"""The source has checked them, and a function may speak of what only its session had: a temporary table."""
_CLEAR = Query("DELETE FROM embassy.ddl_rows WHERE ordinal = $1", (INT8_OID,))
_COPYING = """
SELECT EXISTS (SELECT FROM embassy.table_copy WHERE state <> 'done') OR EXISTS (SELECT FROM embassy.awaited_copy)"""
_IS_FOREIGN_KEY = """
SELECT bool_and(contype = 'f') FROM pg_catalog.pg_constraint
WHERE conname = (pg_catalog.parse_ident(%s))[1] AND conrelid = ANY (%s::regclass[])"""
_VALID = """
UPDATE pg_catalog.pg_constraint c SET convalidated = true
FROM pg_catalog.unnest(%s::text[]) AS t (what)
WHERE c.conrelid = %s::regclass AND c.contype = 'f' AND NOT c.convalidated AND what !~ ' NOT (VALID|ENFORCED)$'
  AND pg_catalog.starts_with(what, pg_catalog.format('%%I FOREIGN KEY ', c.conname))"""
_CONVERTS = re.compile(r"\bTYPE\b", re.IGNORECASE)
# A key's new type has the foreign keys that speak of it looked at anew: as not valid, they are not. Not so of partitions.
_DISTRUST = """
UPDATE pg_catalog.pg_constraint c SET convalidated = false
FROM pg_catalog.pg_class t, pg_catalog.pg_class r
WHERE c.contype = 'f' AND c.convalidated
  AND t.oid = c.conrelid AND t.relkind = 'r' AND r.oid = c.confrelid AND r.relkind = 'r'
  AND (t.oid = ANY (%(tables)s::regclass[]) OR r.oid = ANY (%(tables)s::regclass[]))
RETURNING t.oid::bigint, c.conname"""
_TRUST = """
UPDATE pg_catalog.pg_constraint SET convalidated = true
WHERE contype = 'f' AND (conrelid::bigint, conname) IN (
    SELECT * FROM ROWS FROM (pg_catalog.unnest(%s::bigint[]), pg_catalog.unnest(%s::name[])) AS t (relation, name))"""
_REFERENCED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND convalidated AND confrelid IN (
    SELECT t.oid UNION ALL SELECT a.relid FROM pg_catalog.pg_partition_ancestors(t.oid) a))
FROM pg_catalog.to_regclass(%s) t (oid) WHERE t.oid IS NOT NULL"""
_COLUMNS_SO_FAR = "SELECT relnatts FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s)"
_NEW_COLUMN = """
SELECT EXISTS (SELECT FROM embassy.missing_values(a.attrelid) m WHERE m.number = a.attnum AND m.value = %s)
FROM pg_catalog.pg_attribute a WHERE a.attrelid = %s::regclass AND a.attname = %s AND a.attnum > %s"""
_STATEMENT_BRIEF = 300
_FOUND = {
    "DROP INDEX": "to_regclass",
    "DROP FUNCTION": "to_regprocedure",
    "DROP PROCEDURE": "to_regprocedure",
    "DROP ROUTINE": "to_regprocedure",
    "DROP DOMAIN": "to_regtype",
}
"""By what of a command's objects is looked up here whether they are there."""
_NOT_THERE = "42P01"
_CASCADES = re.compile(r"\bCASCADE$", re.IGNORECASE)
_MISSING_ROLE = re.compile(r'role "(.*)" does not exist')


class DdlExecutor:
    """Executes commands whose rows are in the replica already."""

    def __init__(self, session: ApplySession) -> None:
        self._session = session

    def execute(self, command: Command) -> None:
        """Execute one.

        Raises:
            IntegrityError: it cannot be read, not be executed here, or a table is not the same afterwards.
            TransientError: the session ended.
        """
        self._session.run()
        if self._one("SELECT true FROM embassy.ddl_by_hand WHERE ordinal = %s", command.ordinal):
            return
        statement = self._statement(command)
        statement = statement and self._of_what_is_there(command, statement)
        if statement is None:
            return
        unproven = self._unproven(command, statement)
        columns_before = {
            stored["table"]: self._one(_COLUMNS_SO_FAR, stored["table"]) for stored in command.stored
        }
        try:
            trusted = self._distrust(command, statement)
            self._empty(command, statement)
            replica_schema.unsilence(self._session.connection)
            awaited = awaited_tables.held(self._session.connection)
            failpoint(CONSUMER_BEFORE_DDL)
            self._carry_out(command, statement, unproven)
            failpoint(CONSUMER_AFTER_DDL)
            if trusted:
                self._session.connection.execute(_TRUST, tuple(map(list, zip(*trusted, strict=True))))
            awaited_tables.follow(self._session.connection, awaited)
            self._guard()
            for filled in command.filled:
                self._fill(command, filled)
            if command.filled:
                self._session.run([Call(_CLEAR, [str(command.ordinal).encode()])])
            for stored in command.stored:
                self._store(stored, columns_before[stored["table"]])
        except StatementFailed as failure:
            raise self._failed(command, failure.reason, statement) from failure
        for shape in command.shapes:
            self._compare(command, shape, statement)

    def _statement(self, command: Command) -> str | None:
        query = command.query
        if query is None:
            query = str(self._one("SELECT query FROM embassy.ddl WHERE ordinal = %s", command.query_of) or "")
        try:
            statement = text_of(command, query)
        except Unreadable as error:
            raise self._failed(command, f"its text cannot be told: {error}", query, told=False) from error
        if not self._one("SELECT true FROM pg_catalog.pg_roles WHERE rolname = %s", command.role):
            raise self._failed(command, f'role "{command.role}" does not exist', query)
        return statement

    def _of_what_is_there(self, command: Command, statement: str) -> str | None:
        """A DROP without what never came; None if that is all.

        That is an index whose building CONCURRENTLY has failed, or what was made over a temporary table. Afterwards both
        sides are alike in any case.
        """
        found = _FOUND.get(command.tag)
        if found is None:
            return statement
        dropped = [str(what["identity"]) for what in command.objects]
        there = [name for name in dropped if self._one(f"SELECT pg_catalog.{found}(%s) IS NOT NULL", name)]
        if len(there) == len(dropped):
            return statement
        behaviour = " CASCADE" if _CASCADES.search(statement) else ""
        return f"{command.tag} {', '.join(there)}{behaviour}" if there else None

    def _unproven(self, command: Command, statement: str) -> str | None:
        """The statement without the proof of foreign keys, where rows are still being copied: the source has proven them.

        Empty: it proves one and does nothing else. None: it is to be executed as it is.
        """
        if command.tag != "ALTER TABLE" or not any(" FOREIGN KEY " in what for what in _constraints(command)):
            return None
        if not self._one(_COPYING):
            return None
        try:
            constraint = validated_constraint(statement, backslashes=command.backslashes)
            if constraint is None:
                return without_validation(statement, backslashes=command.backslashes)
        except Unreadable:
            return None
        tables = [shape["table"] for shape in command.shapes]
        return "" if self._one(_IS_FOREIGN_KEY, constraint, tables) else None

    def _take_for_valid(self, command: Command) -> None:
        """As every foreign key here is that was there before the rows were; a promotion looks at the rows themselves."""
        for shape in command.shapes:
            self._session.connection.execute(_VALID, (list(shape["constraints"]), shape["table"]))

    def _distrust(self, command: Command, statement: str) -> list[tuple[int, str]]:
        """Foreign keys that a conversion need not prove again, for the source has: rows are missing here, or to come."""
        converts = command.tag == "ALTER TABLE" and _CONVERTS.search(statement)
        if not converts or not (command.filled or self._one(_COPYING)):
            return []
        tables = [shape["table"] for shape in command.shapes]
        there = [table for table in tables if self._one("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", table)]
        return self._session.connection.execute(_DISTRUST.encode(), {"tables": there}).fetchall()

    def _empty(self, command: Command, statement: str) -> None:
        """Take out the rows that the source's will replace: to compute new values here could have effects of its own."""
        for filled in command.filled:
            referenced = self._one(_REFERENCED, filled["table"])  # None: the statement makes the table
            if referenced is False or (referenced and not _CONVERTS.search(statement)):
                self._session.run([Call(Query(f"DELETE FROM ONLY {filled['table']}"))])

    def _run(self, command: Command, statement: str) -> None:
        """As the role and with the settings of the source; the planner may do what it likes."""
        wanted = {**command.settings, **dict.fromkeys(_PLANNER, "on"), **_TRUSTING}
        before = self._session.connection.execute(
            "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY (%s)", (list(wanted),)
        ).fetchall()
        known = {name for name, _ in before}  # a setting may be newer than this server
        enter = [_set(name, value) for name, value in wanted.items() if name in known]
        leave = [_set(name, value) for name, value in before]
        self._session.run([*enter, _set("role", command.role)])
        self._session.run([Call(Query(statement))] if statement else [])
        self._session.run([_set("role", "none"), *leave])

    def _carry_out(self, command: Command, statement: str, unproven: str | None) -> None:
        if unproven is not None:
            self._run(command, unproven)
            self._take_for_valid(command)
        elif command.objects and all(what["type"] == "index" for what in command.objects):
            self._run_about_indexes(command, statement)
        else:
            if command.tag == "ALTER TABLE":
                untold.lend(self._session, command, statement)
            self._run(command, statement)

    def _run_about_indexes(self, command: Command, statement: str) -> None:
        """Those that the replica lacks are made, as they have become; what is not valid at the source need not be."""
        try:
            with self._session.connection.transaction():
                self._run(command, statement)
        except StatementFailed as failure:
            version = self._session.connection.info.server_version // 10_000
            if failure.sqlstate != _NOT_THERE or any(shape["version"] != version for shape in command.shapes):
                raise
            for shape in command.shapes:
                self._compare(command, shape, statement)
            names = [what["identity"] for what in command.objects]
            there = all(self._one("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", name) for name in names)
            if there and not untold.renames(statement, backslashes=command.backslashes):
                self._run(command, statement)

    def _guard(self) -> None:
        """New tables are written by nobody else; new triggers do not repeat what they did at the source."""
        connection = self._session.connection
        for schema, name in replica_schema.unguarded(connection):
            replica_schema.guard(connection, schema, name)
        for found in replica_schema.firing(connection):
            replica_schema.silence(connection, found)
        self._session.forget()

    def _fill(self, command: Command, filled: Mapping[str, Any]) -> None:
        """Give a table the rows that it had at the source after the statement, and no others."""
        name, columns = filled["table"], filled["columns"]
        here = self._session.connection.execute(
            "SELECT attname FROM pg_catalog.pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (name,),
        ).fetchall()
        if [column for (column,) in here] != columns:
            why = f"the columns of {name} stand in another order than at the source"
            raise self._failed(command, why, "its rows")
        written = [quoted(column) for column in columns if column not in filled["generated"]]
        rows = f"SELECT content::{name} AS r FROM embassy.ddl_rows WHERE ordinal = $1 AND target = $2"
        insert = (
            f"INSERT INTO {name} ({', '.join(written)}) OVERRIDING SYSTEM VALUE"
            f" SELECT {', '.join([f'(r).{column}' for column in written])} FROM ({rows} ORDER BY number OFFSET 0) x"
        )
        whose = [str(command.ordinal).encode(), name.encode()]
        calls = [Call(Query(f"DELETE FROM ONLY {name}"))]
        if written:
            calls.append(Call(Query(insert, (INT8_OID, TEXT_OID)), whose))
        unproven = unproven_checks(self._session, name)
        self._session.run([*unproven.taken, *calls, *unproven.back])

    def _store(self, stored: Mapping[str, str], columns_before: int | None) -> None:
        """Give the rows of before the value that a new column has at the source, if it is another one here.

        The source tells of each column that its transaction has touched. One that was here before the statement has
        what the stream has written to it since.
        """
        name, column, value = stored["table"], stored["column"], stored["value"]
        if columns_before is not None and self._one(_NEW_COLUMN, value, name, column, columns_before) is False:
            update = f"UPDATE ONLY {name} SET {quoted(column)} = $1"
            unproven = unproven_checks(self._session, name)
            self._session.run([*unproven.taken, Call(Query(update), [value.encode()]), *unproven.back])

    def _compare(self, command: Command, theirs: Mapping[str, Any], statement: str) -> None:
        """A table must have here what it has at the source; it may have more."""
        name = theirs["table"]
        ours = self._one("SELECT embassy.table_shape(pg_catalog.to_regclass(%s))", name)
        if ours is None or ours["table"] is None:
            raise self._failed(command, f"{name} is not there afterwards", statement)
        kinds = ("columns", "constraints", "indexes") if ours["version"] == theirs["version"] else ("columns",)
        for kind in kinds:
            lacking = [what for what in theirs[kind] if what not in ours[kind]]
            if lacking and not untold.make(self._session, name, kind, lacking):
                has = [what for what in ours[kind] if what not in theirs[kind]]
                instead = f", and has {'; '.join(has)}" if has else ""
                why = f"{name} differs from the source's: the replica lacks {'; '.join(lacking)}{instead}"
                raise self._failed(command, why, statement)

    def _one(self, query: str, *parameters: object) -> Any:
        row = self._session.connection.execute(query.encode(), parameters).fetchone()
        return None if row is None else row[0]

    def _failed(self, command: Command, reason: str, text: str, *, told: bool = True) -> IntegrityError:
        missing = _MISSING_ROLE.search(reason)
        given = f"CREATE ROLE {quoted(missing[1])} here" if missing else "let the replica have what it needs"
        by_hand = (
            f"do by hand what it does, then INSERT INTO embassy.ddl_by_hand VALUES ({command.ordinal}, 'why')"
        )
        again = "start the consumer again"
        way_out = f"{given} and {again}; or {by_hand}" if told else f"{by_hand} and {again}"
        return IntegrityError(
            f"{command} cannot be executed as {command.role}: {reason}: {' '.join(text.split())[:_STATEMENT_BRIEF]}",
            place=self._session.place,
            hint=f"{way_out}; nothing of this transaction is in the replica",
        )


def _constraints(command: Command) -> list[str]:
    return [what for shape in command.shapes for what in shape["constraints"]]


def _set(name: str, value: str) -> Call:
    return Call(_SET, [name.encode(), value.encode()])
