"""The replica's tables, looked up once, and the statements for each shape of segment, built once."""

from __future__ import annotations

from typing import NamedTuple

from consumers import row_sql, sql_builder
from consumers.sql_builder import Access
from consumers.sql_terms import Target, target
from consumers.text_rows import INT8_OID, TEXT_ARRAY_OID
from embassy.model.batch import Operation, Segment
from embassy.model.relation import Relation
from embassy.model.replica_table import Uniques
from embassy.pg.apply_session import ApplySession, Query
from embassy.pg.replica_catalog import find_table
from embassy.pg.replica_uniques import find_uniques

_SHAPES_MOST = 4096

_Shape = tuple[Relation, Operation, tuple[int, ...], tuple[int, ...]]


class SegmentQuery(NamedTuple):
    """How a segment of updates or deletes is written as a whole."""

    query: Query
    access: Access
    counted: Query
    """The same with one more parameter: the number of rows, in binary form. It fails if it finds others."""


class Targets:
    """What is known of the replica's tables."""

    def __init__(self, session: ApplySession) -> None:
        self._session = session
        self._targets: dict[Relation, Target] = {}
        self._segments: dict[_Shape, SegmentQuery | None] = {}
        self._rows: dict[_Shape, Query] = {}
        self._uniques: dict[str, Uniques] = {}
        self._ways: dict[_Shape, list[Query]] = {}

    def look_again(self) -> None:
        """Look at the tables when next asked: something was not as expected, and somebody may have altered them."""
        self._targets.clear()
        self._segments.clear()
        self._rows.clear()

    def forget(self) -> None:
        """Forget everything: the stream has altered the replica's tables."""
        self.look_again()
        self._uniques.clear()
        self._ways.clear()

    def of(self, relation: Relation) -> Target:
        """The relation's table.

        Raises:
            IntegrityError: the replica has none that fits.
        """
        found = self._targets.get(relation)
        if found is None:
            table = find_table(self._session.connection, relation.schema, relation.name)
            found = self._targets[relation] = target(relation, table)
        return found

    def segment_query(self, relation: Relation, segment: Segment) -> SegmentQuery | None:
        """How a segment of updates or deletes is written as a whole; None if only row by row.

        Raises:
            IntegrityError: as for `of`, or the segment has nothing to match rows by.
        """
        shape = (relation, segment.operation, segment.columns, segment.key)
        if shape not in self._segments:
            if len(self._segments) >= _SHAPES_MOST:
                self._segments.clear()
            self._segments[shape] = self._built(self.of(relation), segment)
        return self._segments[shape]

    def row_query(self, relation: Relation, segment: Segment) -> Query:
        """How one row of a segment is written.

        Raises:
            IntegrityError: as for `segment_query`.
        """
        shape = (relation, segment.operation, segment.columns, segment.key)
        found = self._rows.get(shape)
        if found is None:
            if len(self._rows) >= _SHAPES_MOST:
                self._rows.clear()
            destination = self.of(relation)
            if segment.operation is Operation.INSERT:
                built = row_sql.insert(destination, segment.columns)
            elif segment.operation is Operation.UPDATE:
                built = row_sql.update(destination, segment.columns, segment.key)
            else:
                built = row_sql.delete(destination, segment.key)
            found = self._rows[shape] = Query(built.sql, built.types)
        return found

    def uniques(self, destination: Target) -> Uniques:
        """What is unique in a table."""
        found = self._uniques.get(destination.name)
        if found is None:
            found = self._uniques[destination.name] = find_uniques(self._session.connection, destination.name)
        return found

    def way_queries(self, relation: Relation, segment: Segment) -> list[Query]:
        """What takes other rows out of the way of one of an insert or update segment; parameters as for `row_query`.

        Raises:
            IntegrityError: as for `segment_query`.
        """
        shape = (relation, segment.operation, segment.columns, segment.key)
        if shape not in self._ways:
            if len(self._ways) >= _SHAPES_MOST:
                self._ways.clear()
            destination = self.of(relation)
            inserts = segment.operation is Operation.INSERT
            built = row_sql.out_of_the_way(
                destination, self.uniques(destination), segment.columns, segment.key, inserts=inserts
            )
            self._ways[shape] = [Query(way.sql, way.types) for way in built]
        return self._ways[shape]

    def _built(self, destination: Target, segment: Segment) -> SegmentQuery | None:
        if segment.operation is Operation.UPDATE:
            built = sql_builder.update(destination, segment.columns, segment.key)
        else:
            built = sql_builder.delete(destination, segment.key)
        if built is None:
            return None
        types = (TEXT_ARRAY_OID,) * (len(segment.columns) + len(segment.key))
        counted = sql_builder.counted(built.sql, len(types) + 1)
        return SegmentQuery(
            Query(built.sql, types, binary=True), built.access, Query(counted, (*types, INT8_OID), binary=True)
        )
