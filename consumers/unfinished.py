"""Which tables the replica does not have whole, at the place in the stream that it has come to.

The source's requests for copies travel in the stream, so the replica's embassy.table_copy is right at each place. Until
a table's copy is done, its changes may meet rows that have yet to come; everywhere else a row that is missing halts
the stream. If all of a table is still to come, a row there that contradicts the stream is of no worth; but where only
some ranges of it are, such a row may stand for one that nothing else will bring, and it halts the stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from consumers.text_rows import elements, texts
from embassy.model.batch import Batch, Operation, Segment
from embassy.model.own_tables import OWN_SCHEMA
from embassy.model.relation import Relation
from embassy.pg import table_copies
from embassy.pg.apply_session import ApplySession, Call, Query
from embassy.pg.presence import has_table
from embassy.pg.table_copies import AWAITED

Name = tuple[str, str]
Lacking = Mapping[Name, bool]
"""Tables that may lack rows, and whether each is to come as a whole."""

_COPIES = (OWN_SCHEMA, "table_copy")
_QUERY = f"""
SELECT schema_name, table_name, bool_or(whole) FROM (
    SELECT schema_name, table_name, from_key IS NULL AND to_key IS NULL AS whole
    FROM embassy.table_copy WHERE state <> 'done'
    UNION ALL SELECT a.schema_name, a.table_name, true FROM ({AWAITED}) AS a
) AS found GROUP BY 1, 2"""


_STILL_NONE = Call(Query(f"SELECT FROM ({_QUERY}) AS lacking"))


class Unfinished:
    """Of one replica.

    Where no table lacked rows when last asked, nothing waits for the answer: whether that is still so is asked by a
    statement that travels ahead of the batch's own, and which must find no row.
    """

    def __init__(self, session: ApplySession) -> None:
        self._session = session
        self._provisioned = False
        self._known: Lacking | None = None
        self._none_lately = False

    def forget(self) -> None:
        """Look again: what was applied may have been rolled back, or something else has changed it."""
        self._known = None

    def doubt(self) -> None:
        """Look again before anything is supposed."""
        self._known, self._none_lately = None, False

    def at(self, batch: Batch) -> Lacking:
        """The tables that may lack rows while a batch is applied; to be asked before that, for each batch."""
        if self._known is None:
            self._known = self._read()
            self._none_lately = self._provisioned and not self._known
        return self._with_told(self._known, batch)

    def supposed(self, batch: Batch) -> tuple[Lacking, list[Call]]:
        """The same, if what is to be executed first, in the same transaction, finds no row; else `doubt` and ask `at`."""
        if self._known is not None or not self._none_lately:
            return self.at(batch), []
        self._known = {}
        return self._with_told(self._known, batch), [_STILL_NONE]

    def _with_told(self, known: Lacking, batch: Batch) -> Lacking:
        found = dict(known)
        for name, whole in _told_by(batch):
            found[name] = whole or found.get(name, False)
            self.doubt()
        return found

    def _read(self) -> Lacking:
        connection = self._session.connection
        if not self._provisioned:
            self._provisioned = has_table(connection, "embassy.awaited_copy")
        if not self._provisioned:
            return {}
        return {(schema, name): whole for schema, name, whole in connection.execute(_QUERY.encode())}


def awaited(session: ApplySession) -> Lacking:
    """The tables that wait for a copy now, under the names that the statements of this batch have given them."""
    return dict.fromkeys(table_copies.awaited(session.connection), True)


def _told_by(batch: Batch) -> Iterator[tuple[Name, bool]]:
    """The copies that a batch says something about; whatever it says, they may be unfinished somewhere in it."""
    for segment in batch.segments:
        relation = batch.relations[segment.relation]
        if (relation.schema, relation.name) == _COPIES and segment.columns:
            yield from _copies(relation, segment)


def _copies(relation: Relation, segment: Segment) -> Iterator[tuple[Name, bool]]:
    places = {relation.columns[position].name: at for at, position in enumerate(segment.columns)}
    wanted = [places[name] for name in ("schema_name", "table_name", "from_key", "to_key")]
    if segment.operation is Operation.INSERT:
        columns = [texts(segment.texts[place]) for place in wanted]
    else:
        columns = [elements(segment.values[place]) for place in wanted]
    for schema, name, from_key, to_key in zip(*columns, strict=True):
        yield ((schema or b"").decode(), (name or b"").decode()), from_key is None and to_key is None
