"""Tables that enter a publication whose stream runs: nobody may write between the look for rows and the publication.

The rows that are there are asked for in the same transaction, so the stream brings the request before any change of the
table.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from embassy.model.errors import RefusedError
from embassy.pg import publication, publication_watch, table_copies
from embassy.pg.catalog import SourceTable, brief


class LateTables:
    """Takes tables into one publication."""

    def __init__(self, connection: psycopg.Connection[Any], name: str, *, role: str, copied: bool) -> None:
        """Take where to work.

        Args:
            connection: an administrator's, in autocommit mode.
            name: the publication's.
            role: the producer's, which reads what is copied.
            copied: whether rows are asked for; not where the replica holds the same ones.
        """
        self._connection = connection
        self._name = name
        self._role = role
        self._copied = copied

    def add(self, table: SourceTable) -> None:
        """Take in a table that was never in; within the caller's transaction."""
        self._enter(table, "there before the stream", even_empty=False)
        publication_watch.note(self._connection, self._name)

    def add_again(self, table: SourceTable) -> None:
        """Take in one that was left out for a while; it may be empty now, and the replica have rows of it."""
        self._enter(table, "left out of the publication", even_empty=True)
        name = sql.Identifier(table.schema, table.name).as_string()
        publication_watch.note_anew(self._connection, self._name, name)

    def left_out(self, tables: list[SourceTable], place: str) -> list[SourceTable]:
        """Those of the tables whose changes are missing in the stream because somebody has altered the publication.

        Raises:
            RefusedError: one of the product's own is among them.
        """
        gaps = publication_watch.gaps(self._connection, self._name)
        found = [table for table in tables if str(table) in gaps]
        own = [str(table) for table in found if table.own]
        if own:
            raise RefusedError(
                f"publication {self._name} was altered by someone else, and has not all that the product said in "
                f"{brief(own)}: DDL may be missing in the stream",
                place=place,
                hint="resync the stream under a new enrolment",
            )
        return found

    def _enter(self, table: SourceTable, reason: str, *, even_empty: bool) -> None:
        connection, name = self._connection, self._name
        publication.keep_writers_out(connection, table)
        publication.leave(connection, name, table)
        if self._copied and not table.own:
            for leaf in publication.unpublished_leaves(connection, name, table):
                if even_empty or publication.holding_rows(connection, [leaf]):
                    publication.let_read(connection, leaf, self._role)
                    table_copies.request(connection, leaf.schema, leaf.name, reason=reason)
        publication.add(connection, name, table)
