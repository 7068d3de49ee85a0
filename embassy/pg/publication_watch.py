"""Whether a stream's publication has left nothing out: looked at at each start, and again and again while a stream runs.

Whoever alters a publication in place is not seen in the stream, and the heart's table goes on travelling. So what the
product has put into it is noted at the source; a table that is there no more, or again under another number of the
catalogue, has a gap. The SQL is schemas/sql/source_published.sql.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from embassy.model.errors import IntegrityError
from embassy.pg import publication, source_schema
from embassy.pg.catalog import brief
from embassy.pg.exchange import Errand
from embassy.pg.presence import Look, Part, has_table

_NOTES = "embassy.published"
_RESYNC = "resync the stream; a new stream's publication is made by embassy provision apply"
_APPLY = "embassy provision apply puts them in again and has them copied; then start the producer"


class PublicationWatch:
    """One stream's."""

    def __init__(self, name: str, stream: bytes, publication: str) -> None:
        """Take the stream's name, for errors, its identity, and its publication."""
        self._name = name
        self._stream = stream
        self._publication = publication
        self._look = Look(Part("embassy.note_gaps({publication})", (_NOTES,)), publication=publication)

    def prove(self, connection: psycopg.Connection[Any]) -> None:
        """Make sure, before anything is read from the slot, that the publication has not been changed by anyone else.

        What a source of an earlier version has not noted is taken as it is, once.

        Raises:
            IntegrityError: it was dropped, or leaves changes out, or did so.
        """
        name = self._publication
        if source_schema.publication_was_replaced(connection, self._stream, name):
            raise self._error(
                f"publication {name} is not the one that the stream began with: what was committed while there was "
                "none is not in the log's changes",
                _RESYNC,
            )
        found = publication.publication_state(connection, name)
        self._check(self._look(connection)[0])
        if found is not None and found.faults:
            raise self._error(
                f"publication {name} is not as a stream needs it: {'; '.join(found.faults)}",
                f"ALTER PUBLICATION {name}, then embassy provision apply",
            )
        note(connection, name)

    def errand(self, failed: Callable[[IntegrityError], None]) -> Errand:
        """Looks whether anything was left out since, and tells what."""

        def found(values: tuple[Any, ...]) -> None:
            try:
                self._check(values[0])
            except IntegrityError as error:
                failed(error)

        return self._look.errand(found)

    def _check(self, left_out: list[str] | None) -> None:
        if left_out:
            raise self._error(
                f"publication {self._publication} was altered by someone else, and has not all changes of "
                f"{brief(left_out)}: what was committed meanwhile is not in the stream",
                _APPLY,
            )

    def _error(self, text: str, hint: str) -> IntegrityError:
        return IntegrityError(text, place=self._name, hint=hint)


def gaps(connection: psycopg.Connection[Any], name: str) -> list[str]:
    """The tables whose changes are not all in the stream, as far as that was noted."""
    if not has_table(connection, _NOTES):
        return []
    row = connection.execute("SELECT embassy.publication_gaps(%s)", (name,)).fetchone()
    return list(row[0]) if row else []


def note(connection: psycopg.Connection[Any], name: str) -> None:
    """Note what is in a publication, as far as it is not noted; a source of an earlier version has no place for it."""
    if has_table(connection, _NOTES):
        connection.execute("SELECT embassy.note_published(%s)", (name,))


def begin(connection: psycopg.Connection[Any], name: str) -> None:
    """Note what is in a publication when a slot was made: nothing that came before it is in its stream."""
    connection.execute(
        """DELETE FROM embassy.published n USING pg_catalog.pg_publication p
           WHERE p.oid = n.publication AND p.pubname = %s""",
        (name,),
    )
    note(connection, name)


def note_anew(connection: psycopg.Connection[Any], name: str, table: str) -> None:
    """Note that a table was put in, and that what it holds is accounted for; its name is qualified, and quoted."""
    connection.execute("SELECT embassy.note_published_anew(%s, %s::pg_catalog.regclass)", (name, table))
