"""Whether a database has a table: each side, and each version, has tables of the product that others have not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg.errors import UndefinedTable


def has_table(connection: psycopg.Connection[Any], table: str) -> bool:
    """Whether a table is there; its name is qualified, and quoted where it has to be."""
    return connection.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (table,)).fetchone() == (True,)


_THERE = """
ARRAY(SELECT t FROM pg_catalog.unnest(%(looked_for)s::text[]) t WHERE pg_catalog.to_regclass(t) IS NOT NULL)"""


class Part(NamedTuple):
    """One value that is looked at."""

    sql: str
    """An expression, with named parameters of the look."""
    tables: tuple[str, ...] = ()
    """What must be there for it to be asked, named as `has_table` wants it."""


class _Statement(NamedTuple):
    supposed: frozenset[str]
    """The tables that it is made for."""
    sql: bytes


class Look:
    """Looks at several values in one exchange, whichever of their tables are there: for what is asked again and again.

    The statement is made for the tables that were there last time, and tells which are there now; if those are others, it
    is made anew. Any thread may look, with whatever connection.
    """

    def __init__(self, *parts: Part) -> None:
        """Take what is to be looked at."""
        self._parts = parts
        self._tables = sorted({table for part in parts for table in part.tables})
        self._statement = self._made(frozenset())

    def __call__(self, connection: psycopg.Connection[Any], parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values, in order; None where a table is missing.

        Args:
            connection: in autocommit mode, unless this is the first look.
            parameters: of the parts.
        """
        while True:
            supposed, statement = self._statement
            try:
                row = connection.execute(statement, {**parameters, "looked_for": self._tables}).fetchone()
            except UndefinedTable:  # one that was supposed to be there
                if not supposed:
                    raise
                self._statement = self._made(frozenset())
                continue
            assert row is not None, "a query without FROM has one row"
            *values, told = row
            if supposed.symmetric_difference(told):
                self._statement = self._made(frozenset(told))
                continue
            return tuple(values)

    def _made(self, supposed: frozenset[str]) -> _Statement:
        expressions = [part.sql if supposed.issuperset(part.tables) else "NULL" for part in self._parts]
        return _Statement(supposed, f"SELECT {', '.join(expressions)}, {_THERE}".encode())
