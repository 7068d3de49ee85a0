"""A table as the replica has it: what decides how changes are written to it."""

from __future__ import annotations

from typing import NamedTuple


class Function(NamedTuple):
    """A function that reads a type's text form."""

    schema: str
    name: str
    arguments: int
    result_oid: int
    element_oid: int
    """What the function wants as its second argument."""


class ReplicaColumn(NamedTuple):
    """A column of the replica's table."""

    name: str
    number: int
    type_oid: int
    type_modifier: int
    type_name: str
    """The column's type as SQL writes it, schema-qualified, without a modifier."""
    base_oid: int
    """The type below any domain, or the type itself."""
    base_name: str
    """As SQL writes it, without a modifier."""
    base_schema: str
    base_plain_name: str
    """Schema and name of the base type as the catalogue has them."""
    input: Function
    casts_from: frozenset[str]
    """Of ``text``, ``varchar`` and ``bpchar``, those with a cast to the base type that is not its input function."""
    not_null: bool
    identity_always: bool
    generated: bool
    unproven_domain: bool
    """Its domain has a constraint that was never checked against what is stored."""


class IndexColumn(NamedTuple):
    """A column of an index, and the operator that the index finds equals by."""

    number: int
    equals_schema: str
    equals_name: str


class Index(NamedTuple):
    """A B-tree over plain columns of all rows."""

    unique: bool
    columns: tuple[IndexColumn, ...]


class UniquePart(NamedTuple):
    """A column or an expression of a `Unique`, and the operator by which two rows have the same."""

    expression: str
    """As SQL says it of a row of the table, its columns without the table's name."""
    equals_schema: str
    equals_name: str
    collation: str
    """Quoted and qualified; empty if the type has none."""


class Unique(NamedTuple):
    """What no two rows of a table may have in common, checked row by row: a unique index or an exclusion constraint."""

    parts: tuple[UniquePart, ...]
    predicate: str
    """Of which rows it speaks; empty: of all."""
    nulls_equal: bool


class UniqueColumn(NamedTuple):
    """A column that the expressions of a `Unique` may name."""

    name: str
    type_name: str
    collation: str
    """As in `UniquePart`."""
    generated_as: str
    """Its expression, if it is generated; else empty."""


class Uniques(NamedTuple):
    """All that is unique in a table."""

    columns: tuple[UniqueColumn, ...]
    uniques: tuple[Unique, ...]


class ReplicaTable(NamedTuple):
    """The replica's table of a relation of the stream."""

    schema: str
    name: str
    columns: tuple[ReplicaColumn, ...]
    indexes: tuple[Index, ...]

    def column(self, name: str) -> ReplicaColumn | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)
