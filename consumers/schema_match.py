"""Whether a replica's table can take a relation's rows as they are; if not, the stream halts and says what differs."""

from __future__ import annotations

from embassy.model.errors import IntegrityError
from embassy.model.own_tables import OWN_SCHEMA, PUBLISHED
from embassy.model.relation import Column, Relation
from embassy.model.replica_table import ReplicaColumn, ReplicaTable

_FIRST_UNSTABLE_OID = 10_000
"""Types below it have the same oid in every database of every version."""
_VARCHAR, _VARBIT, _NUMERIC = 1043, 1562, 1700
_SCALE_MASK = 0x7FF
_SYSTEM_SCHEMAS = ("pg_catalog", "information_schema")


def matched_columns(relation: Relation, table: ReplicaTable | None) -> tuple[ReplicaColumn, ...]:
    """For each column of the relation, the replica's.

    The replica may have columns that the stream does not know: they keep their defaults. It may also be wider (no
    modifier, a longer varchar, more digits before the point), as it is while a column is being widened there first.

    Raises:
        IntegrityError: the replica lacks the table or a column, a value would not be the same there, or the table
            is not the stream's to change.
    """
    if relation.schema in _SYSTEM_SCHEMAS or (relation.schema == OWN_SCHEMA and relation.name not in PUBLISHED):
        raise IntegrityError(
            "the stream changes a table that is not the registry's",
            place=str(relation),
            hint="find out who changed the publication at home, or the producer",
        )
    if table is None:
        raise _drift(relation, "the replica lacks the table")
    found = []
    for column in relation.columns:
        mine = table.column(column.name)
        if mine is None:
            raise _drift(relation, f"the replica lacks column {column.name}")
        if mine.generated:
            raise _drift(relation, f"column {column.name} is generated in the replica, and plain at the source")
        if not _same_type(column, mine):
            known = column.type_name or f"the type with oid {column.type_oid}"
            raise _drift(
                relation, f"column {column.name} is {mine.type_name} in the replica, and {known} at the source"
            )
        if not _holds(column, mine):
            raise _drift(
                relation, f"column {column.name} has another length, precision or scale than at the source"
            )
        found.append(mine)
    return tuple(found)


def _same_type(column: Column, mine: ReplicaColumn) -> bool:
    if column.type_oid < _FIRST_UNSTABLE_OID:
        return mine.type_oid == column.type_oid
    return column.type_name in ("", f"{mine.base_schema}.{mine.base_plain_name}")


def _holds(column: Column, mine: ReplicaColumn) -> bool:
    """Whether the replica's type modifier keeps every value that the source's allows, unchanged."""
    theirs, ours = column.type_modifier, mine.type_modifier
    if ours in (theirs, -1):
        return True
    if theirs < 0:
        return False
    if column.type_oid in (_VARCHAR, _VARBIT):
        return ours > theirs
    if column.type_oid == _NUMERIC:
        return (ours - 4) & _SCALE_MASK == (theirs - 4) & _SCALE_MASK and ours - 4 > theirs - 4
    return False


def _drift(relation: Relation, what: str) -> IntegrityError:
    return IntegrityError(
        what,
        place=str(relation),
        hint="make the replica's table what the source's is, then start the consumer again; nothing was skipped",
    )
