"""The small pieces of the statements that write to a replica: names, typed values, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from consumers.schema_match import matched_columns
from embassy.model.relation import Relation, ReplicaIdentity
from embassy.model.replica_table import Index, ReplicaColumn, ReplicaTable

_TEXT_OID = 25
_STRINGS = (("varchar", "pg_catalog.varchar"), ("bpchar", "pg_catalog.bpchar"))


class Target(NamedTuple):
    """The replica's table of a relation; columns stand as in the relation."""

    relation: Relation
    name: str
    """Quoted."""
    columns: tuple[ReplicaColumn, ...]
    indexes: tuple[Index, ...]
    others: tuple[ReplicaColumn, ...] = ()
    """Columns that the stream does not know, and that are not generated."""

    @property
    def by_image(self) -> bool:
        """Whether rows are matched by the text of the whole row."""
        return self.relation.identity is ReplicaIdentity.FULL


class Found(NamedTuple):
    """A column by which an index finds rows."""

    position: int
    equals: str
    """The index's operator."""


def target(relation: Relation, table: ReplicaTable | None) -> Target:
    """Match a relation with the replica's table.

    Raises:
        IntegrityError: see `matched_columns`.
    """
    columns = matched_columns(relation, table)
    assert table is not None, "no table would not have matched"
    others = tuple(column for column in table.columns if column not in columns and not column.generated)
    return Target(relation, f"{quoted(relation.schema)}.{quoted(relation.name)}", columns, table.indexes, others)


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def typed(column: ReplicaColumn, text: str) -> str | None:
    """An expression of type text as the column's base type, by that type's input function.

    None if that cannot be said: casts from every kind of text are declared, and the function's result has a type of
    its own only in the catalogue (an enum's, an array's, a row's).
    """
    if column.base_oid == _TEXT_OID:
        return text
    if "text" not in column.casts_from:
        return f"{text}::{column.base_name}"
    reads = column.input
    if reads.result_oid == column.base_oid:
        # what every input function may take: the text, the type or its element's, and the modifier
        arguments = (f"pg_catalog.textout({text})", str(reads.element_oid), "-1")[: reads.arguments]
        return f"{quoted(reads.schema)}.{quoted(reads.name)}({', '.join(arguments)})"
    for kind, name in _STRINGS:
        if kind not in column.casts_from:
            return f"{text}::{name}::{column.base_name}"
    return None


def assigned(column: ReplicaColumn, text: str, value: str) -> str:
    """What an update of row ``t`` gives to a column; the value is of the base type, the text is what it was made of.

    A domain's constraint that was added NOT VALID holds for what is written, not for what is there: the source does
    not look at a value that an update leaves alone, so neither may the replica.
    """
    name = quoted(column.name)
    if column.unproven_domain:
        same = f'ROW(t.{name})::text COLLATE "C" = ROW({text})::text COLLATE "C"'
        return f"CASE WHEN {same} THEN t.{name} ELSE ({value})::{column.type_name} END"
    return value


def image(alias: str, columns: Sequence[ReplicaColumn]) -> str:
    """The text of a row, from each column's output function; unlike a cast, nobody can redefine it."""
    return f'ROW({", ".join(f"{alias}.{quoted(column.name)}" for column in columns)})::text COLLATE "C"'


def image_of_texts(texts: Sequence[str]) -> str:
    """The same of a row whose columns' texts are given."""
    return f'ROW({", ".join(texts)})::text COLLATE "C"'


def found_by(destination: Target, key: Sequence[int]) -> tuple[list[Found], bool]:
    """How rows are found by key columns that hold no NULL: each with its operator, and whether an index helps."""
    positions = {destination.columns[position].number: position for position in key}
    usable = [index for index in destination.indexes if index.columns[0].number in positions]
    usable.sort(key=lambda index: (not _within(index, positions), not index.unique, -len(index.columns)))
    operators = {
        column.number: f"OPERATOR({quoted(column.equals_schema)}.{column.equals_name})"
        for index in usable[:1]
        for column in index.columns
    }
    return [
        Found(position, operators.get(number, "OPERATOR(pg_catalog.=)")) for number, position in positions.items()
    ], bool(usable)


def narrowed_by(destination: Target, key: Sequence[int]) -> list[Found]:
    """The columns of the index that best narrows down where a row's image must be looked for; none without one.

    Equal images have equal values, so an index may be asked first; but not for NULL, which equals nothing.
    """
    positions = {destination.columns[p].number: p for p in key if destination.columns[p].not_null}
    best: list[Found] = []
    best_rank = (False, 0)
    for index in destination.indexes:
        found = []
        for column in index.columns:
            if column.number not in positions:
                break
            operator = f"OPERATOR({quoted(column.equals_schema)}.{column.equals_name})"
            found.append(Found(positions[column.number], operator))
        rank = (index.unique and len(found) == len(index.columns), len(found))
        if found and rank > best_rank:
            best, best_rank = found, rank
    return best


def _within(index: Index, positions: dict[int, int]) -> bool:
    return all(column.number in positions for column in index.columns)
