"""The replica's catalogue, made up, for statements that are only looked at."""

from __future__ import annotations

from collections.abc import Sequence

from embassy.model.relation import Column, Relation, ReplicaIdentity
from embassy.model.replica_table import Function, Index, IndexColumn, ReplicaColumn, ReplicaTable

TYPES = {
    "text": (25, "text", "textin", 1),
    "integer": (23, "int4", "int4in", 1),
    "numeric": (1700, "numeric", "numeric_in", 3),
    "character varying": (1043, "varchar", "varcharin", 3),
    "bpchar": (1042, "bpchar", "bpcharin", 3),
    "name": (19, "name", "namein", 1),
}


def column(name: str, number: int, kind: str = "text", **others: object) -> ReplicaColumn:
    """A column of a built-in type; ``others`` override what is usual."""
    oid, plain, reads, arguments = TYPES[kind]
    usual = ReplicaColumn(
        name=name,
        number=number,
        type_oid=oid,
        type_modifier=-1,
        type_name=kind,
        base_oid=oid,
        base_name=kind,
        base_schema="pg_catalog",
        base_plain_name=plain,
        input=Function("pg_catalog", reads, arguments, oid, oid),
        casts_from=frozenset({"text", "varchar", "bpchar"} if kind == "name" else ()),
        not_null=False,
        identity_always=False,
        generated=False,
        unproven_domain=False,
    )
    return usual._replace(**others)  # type: ignore[arg-type]


def index(*numbers: int, unique: bool = True) -> Index:
    """A B-tree with pg_catalog's operators."""
    return Index(unique, tuple(IndexColumn(number, "pg_catalog", "=") for number in numbers))


def table(columns: Sequence[ReplicaColumn], *indexes: Index) -> ReplicaTable:
    """Table ``s.t``."""
    return ReplicaTable("s", "t", tuple(columns), indexes)


def relation(
    replica: ReplicaTable, key: Sequence[str] = (), identity: ReplicaIdentity = ReplicaIdentity.DEFAULT
) -> Relation:
    """The same table as the stream describes it."""
    return Relation(
        replica.schema,
        replica.name,
        identity,
        tuple(
            Column(c.name, c.base_oid, "", c.type_modifier, identity is ReplicaIdentity.FULL or c.name in key)
            for c in replica.columns
        ),
    )
