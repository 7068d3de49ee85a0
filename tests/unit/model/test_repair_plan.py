from __future__ import annotations

import pytest

from embassy.model.errors import ConfigurationError
from embassy.model.repair_plan import KEYS_AT_ONCE, RepairPlan, TableRepair, decode, encode
from embassy.model.verification import TableName

PLAN = RepairPlan(
    "land",
    "ab" * 16,
    "2026-11-25T12:00:00+00:00",
    (
        TableRepair(TableName('a"b', "ü"), ("x", "y"), (("1", "a"), ("2", "\n")), 4),
        TableRepair(TableName("s", "t"), (), (), 1),
    ),
)


def test_a_plan_comes_as_it_went() -> None:
    assert decode(encode(PLAN).encode(), "plan") == PLAN
    assert PLAN.copies == 2


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schema": "embassy.repair-plan/1"}',
        encode(PLAN).replace('"1",', "").encode(),
        encode(PLAN).replace('"differing": 4', '"differing": null').encode(),
        b"\xff",
    ],
)
def test_what_is_no_plan_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigurationError, match="not a plan") as refused:
        decode(text, "the.file")
    assert refused.value.place == "the.file"


def test_each_key_is_asked_for_once_and_not_too_many_in_one_copy() -> None:
    keys = tuple((str(number),) for number in range(2 * KEYS_AT_ONCE + 1))
    copies = TableRepair(TableName("s", "t"), ("id",), keys, len(keys)).copies
    assert [len(copy) for copy in copies] == [KEYS_AT_ONCE, KEYS_AT_ONCE, 1]
    assert tuple(key for copy in copies for key in copy) == keys
