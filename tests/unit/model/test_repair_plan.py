from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embassy.model.errors import ConfigurationError
from embassy.model.repair_plan import RepairPlan, TableRepair, decode, encode, ranges_of
from embassy.model.verification import TableName

PLAN = RepairPlan(
    "land",
    "ab" * 16,
    "2026-11-25T12:00:00+00:00",
    (
        TableRepair(TableName('a"b', "ü"), ("x", "y"), ((("1", "a"), ("1", "b")), (("2", "\n"), ("2", "\n"))), 4),
        TableRepair(TableName("s", "t"), (), (), 1),
    ),
)


def test_a_plan_comes_as_it_went() -> None:
    assert decode(encode(PLAN).encode(), "plan") == PLAN
    assert PLAN.copies == 3


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schema": "embassy.repair-plan/2"}',
        encode(PLAN).replace('"1",', "").encode(),
        encode(PLAN).replace('"differing": 4', '"differing": null').encode(),
        b"\xff",
    ],
)
def test_what_is_no_plan_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigurationError, match="not a plan") as refused:
        decode(text, "the.file")
    assert refused.value.place == "the.file"


def test_keys_that_may_be_sorted_otherwise_at_home_are_not_joined() -> None:
    keys = [("a", "1"), ("b", "2"), ("c", "3")]
    assert ranges_of(keys, ["text", "integer"], most=3) == tuple((key, key) for key in keys)
    assert ranges_of(keys, ["text", "integer"], most=2) == ()
    assert ranges_of(keys, ["integer", "numeric"], most=2) == ((keys[0], keys[1]), (keys[2], keys[2]))


@given(st.integers(0, 50), st.integers(1, 20))
def test_ranges_hold_every_key_once_and_are_not_too_many(count: int, most: int) -> None:
    keys = [(str(i),) for i in range(count)]
    ranges = ranges_of(keys, ["bigint"], most)
    assert len(ranges) <= most
    covered = [i for (first,), (last,) in ranges for i in range(int(first), int(last) + 1)]
    assert covered == list(range(count))
