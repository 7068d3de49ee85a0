"""Which tables the replica does not have whole, at the place in the stream that it has come to.

The source's requests for copies travel in the stream, so the replica's embassy.table_copy is right at each place. Until
a table's copy is done, its changes may meet rows that have yet to come; everywhere else a row that is missing halts
the stream.
"""

from __future__ import annotations

from collections.abc import Iterator

from consumers.text_rows import copy_rows, elements
from embassy.model.batch import Batch, Operation, Segment
from embassy.model.own_tables import OWN_SCHEMA
from embassy.model.relation import Relation
from embassy.pg.apply_session import ApplySession

Name = tuple[str, str]

_COPIES = (OWN_SCHEMA, "table_copy")
_QUERY = """
SELECT schema_name, table_name FROM embassy.table_copy WHERE state <> 'done'
UNION SELECT schema_name, table_name FROM embassy.awaited_copy"""


class Unfinished:
    """Of one replica."""

    def __init__(self, session: ApplySession) -> None:
        self._session = session
        self._provisioned = False
        self._known: frozenset[Name] | None = None

    def forget(self) -> None:
        """Look again: what was applied may have been rolled back, or something else has changed it."""
        self._known = None

    def at(self, batch: Batch) -> frozenset[Name]:
        """The tables that may lack rows while a batch is applied; to be asked before that, for each batch."""
        if self._known is None:
            self._known = self._read()
        found = self._known
        told = frozenset(_told_by(batch))
        if told:
            self._known = None
        return found | told

    def _read(self) -> frozenset[Name]:
        connection = self._session.connection
        if not self._provisioned:
            row = connection.execute(
                "SELECT pg_catalog.to_regclass('embassy.awaited_copy') IS NOT NULL"
            ).fetchone()
            self._provisioned = row == (True,)
        if not self._provisioned:
            return frozenset()
        return frozenset((schema, name) for schema, name in connection.execute(_QUERY))


def _told_by(batch: Batch) -> Iterator[Name]:
    """The tables that a batch says something about; whatever it says, they may be unfinished somewhere in it."""
    for segment in batch.segments:
        relation = batch.relations[segment.relation]
        if (relation.schema, relation.name) == _COPIES and segment.columns:
            yield from _names(relation, segment)


def _names(relation: Relation, segment: Segment) -> Iterator[Name]:
    places = {relation.columns[position].name: at for at, position in enumerate(segment.columns)}
    schema, name = places["schema_name"], places["table_name"]
    if segment.operation is Operation.INSERT:
        rows = [(row[schema], row[name]) for row in copy_rows(segment.copy_text)]
    else:
        rows = list(zip(elements(segment.values[schema]), elements(segment.values[name]), strict=True))
    for of, called in rows:
        yield (of or b"").decode(), (called or b"").decode()
