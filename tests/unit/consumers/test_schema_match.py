"""Which tables can take which rows."""

from __future__ import annotations

import pytest

from consumers.schema_match import matched_columns
from embassy.model.errors import IntegrityError
from embassy.model.relation import Column, Relation, ReplicaIdentity
from tests.harness.replica_tables import column, table

NUMERIC_8_2, NUMERIC_14_2, NUMERIC_14_3 = 524294, 917510, 917511


def described(oid: int, modifier: int = -1, name: str = "") -> Relation:
    return Relation("s", "t", ReplicaIdentity.DEFAULT, (Column("c", oid, name, modifier, in_key=True),))


def test_columns_are_matched_by_name_in_the_streams_order() -> None:
    found = table([column("extra", 1), column("b", 2), column("a", 3)])
    relation = Relation(
        "s", "t", ReplicaIdentity.DEFAULT, tuple(Column(n, 25, "", -1, in_key=False) for n in "ab")
    )
    assert [c.number for c in matched_columns(relation, found)] == [3, 2]


def test_a_missing_table_is_named() -> None:
    with pytest.raises(IntegrityError, match="lacks the table") as halted:
        matched_columns(described(25), None)
    assert halted.value.place == "s.t"


@pytest.mark.parametrize(
    ("theirs", "mine", "fits"),
    [
        ((25, -1), ("text", -1), True),
        ((25, -1), ("character varying", -1), False),
        ((1043, 9), ("character varying", 9), True),
        ((1043, 9), ("character varying", 13), True),
        ((1043, 9), ("character varying", 8), False),
        ((1043, 9), ("character varying", -1), True),
        ((1043, -1), ("character varying", 9), False),
        ((1042, 9), ("bpchar", 13), False),
        ((1700, NUMERIC_8_2), ("numeric", NUMERIC_14_2), True),
        ((1700, NUMERIC_14_2), ("numeric", NUMERIC_8_2), False),
        ((1700, NUMERIC_8_2), ("numeric", NUMERIC_14_3), False),
        ((1700, NUMERIC_8_2), ("numeric", -1), True),
        ((1700, -1), ("numeric", NUMERIC_8_2), False),
    ],
)
def test_a_column_must_keep_every_value_as_it_is(
    theirs: tuple[int, int], mine: tuple[str, int], *, fits: bool
) -> None:
    found = table([column("c", 1, mine[0], type_modifier=mine[1])])
    if fits:
        assert len(matched_columns(described(*theirs), found)) == 1
    else:
        with pytest.raises(IntegrityError, match="column c") as halted:
            matched_columns(described(*theirs), found)
        assert halted.value.hint


def test_types_that_are_not_built_in_are_compared_by_name() -> None:
    mood = column(
        "c", 1, type_oid=70001, base_oid=70001, base_schema="s", base_plain_name="mood", type_name="s.mood"
    )
    assert matched_columns(described(50001, name="s.mood"), table([mood]))
    with pytest.raises(IntegrityError, match=r"column c is s\.mood in the replica, and s\.temper at the source"):
        matched_columns(described(50001, name="s.temper"), table([mood]))
    domain = column("c", 1, "numeric", type_oid=70002, type_name="s.amount")
    assert matched_columns(described(50002, name="pg_catalog.numeric"), table([domain]))
    with pytest.raises(IntegrityError, match="column c"):
        matched_columns(described(1700), table([domain]))


def test_a_generated_column_cannot_be_written() -> None:
    with pytest.raises(IntegrityError, match="column c is generated"):
        matched_columns(described(25), table([column("c", 1, generated=True)]))


@pytest.mark.parametrize(
    "name", [("embassy", "progress"), ("pg_catalog", "pg_authid"), ("information_schema", "t")]
)
def test_tables_that_are_not_the_registrys_are_left_alone(name: tuple[str, str]) -> None:
    relation = described(25)._replace(schema=name[0], name=name[1])
    with pytest.raises(IntegrityError, match="not the registry's") as halted:
        matched_columns(relation, table([column("c", 1)]))
    assert halted.value.place == ".".join(name)


def test_the_heartbeat_is_the_streams_to_change() -> None:
    relation = described(25)._replace(schema="embassy", name="heartbeat")
    assert matched_columns(relation, table([column("c", 1)]))
