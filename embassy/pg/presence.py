"""Whether a database has a table: each side, and each version, has tables of the product that others have not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.errors import UndefinedTable

from embassy.pg.exchange import Answer, Errand, Question


def has_table(connection: psycopg.Connection[Any], table: str) -> bool:
    """Whether a table is there; its name is qualified, and quoted where it has to be."""
    return connection.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (table,)).fetchone() == (True,)


def has_column(connection: psycopg.Connection[Any], table: str, column: str) -> bool:
    """Whether a table is there and has a column: one of an earlier version may lack it."""
    row = connection.execute(
        """SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute
                          WHERE attrelid = pg_catalog.to_regclass(%s) AND attname = %s AND NOT attisdropped)""",
        (table, column),
    ).fetchone()
    return row == (True,)


_THERE = """
ARRAY(SELECT t FROM pg_catalog.unnest({}::text[]) t WHERE pg_catalog.to_regclass(t) IS NOT NULL)"""


class Part(NamedTuple):
    """One value that is looked at."""

    sql: str
    """An expression, in which ``{stream}`` and the like stand for the look's constants."""
    tables: tuple[str, ...] = ()
    """What must be there for it to be asked, named as `has_table` wants it."""


class _Statement(NamedTuple):
    supposed: frozenset[str]
    """The tables that it is made for."""
    question: Question


class Look:
    """Looks at several values in one exchange, whichever of their tables are there: for what is asked again and again.

    The statement is made for the tables that were there last time, and tells which are there now; if those are others, it
    is made anew. Any thread may look, with whatever connection.
    """

    def __init__(self, *parts: Part, **constants: bytes | int | str) -> None:
        """Take what is to be looked at, and what its expressions name."""
        self._parts = parts
        self._constants = {name: _literal(value) for name, value in constants.items()}
        self._tables = sorted({table for part in parts for table in part.tables})
        self._statement = self._made(frozenset())

    def __call__(self, connection: psycopg.Connection[Any]) -> tuple[Any, ...]:
        """The values, in order; None where a table is missing. In autocommit mode, unless this is the first look."""
        while True:
            answer: Answer
            try:
                answer = connection.execute(self._statement.question.sql).fetchone()
            except UndefinedTable as error:
                answer = error
            values = self._values(answer)
            if values is not None:
                return values

    def errand(self, found: Callable[[tuple[Any, ...]], None]) -> Errand:
        """The same, to be asked along with other things."""

        def take(answer: Answer) -> bool:
            values = self._values(answer)
            if values is None:
                return False
            found(values)
            return True

        return Errand(lambda: self._statement.question, take, UndefinedTable)

    def _values(self, answer: Answer) -> tuple[Any, ...] | None:
        """The values; None: a table has come or gone, and it is to be asked again."""
        supposed = self._statement.supposed
        if isinstance(answer, UndefinedTable) and supposed:  # one that was supposed to be there
            self._statement = self._made(frozenset())
            return None
        if isinstance(answer, psycopg.Error):
            raise answer
        assert answer is not None, "a query without FROM has one row"
        *values, told = answer
        if supposed.symmetric_difference(told):
            self._statement = self._made(frozenset(told))
            return None
        return tuple(values)

    def _made(self, supposed: frozenset[str]) -> _Statement:
        expressions = [
            part.sql.format(**self._constants) if supposed.issuperset(part.tables) else "NULL"
            for part in self._parts
        ]
        there = _THERE.format(sql.Literal(self._tables).as_string())
        return _Statement(supposed, Question(f"SELECT {', '.join(expressions)}, {there}".encode()))


def _literal(value: bytes | int | str) -> str:
    if isinstance(value, str):
        return sql.Literal(value).as_string()
    return f"pg_catalog.decode('{value.hex()}', 'hex')" if isinstance(value, bytes) else str(value)
