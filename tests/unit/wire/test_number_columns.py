from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embassy.wire.number_columns import Numbers, pack, unpack

_ANY = st.integers(-(1 << 62), (1 << 62) - 1)


@given(st.lists(_ANY, min_size=1) | st.lists(st.integers(-3, 300), min_size=1))
def test_numbers_come_back_as_they_were(numbers: list[int]) -> None:
    assert unpack(pack(numbers), len(numbers)) == numbers


def test_a_known_answer() -> None:
    assert pack([10, 12, 271, 271]) == Numbers(10, 0, b"\x02\x03\x00" + b"\x00\x01\x00")
    assert pack([5, 4, 3, 2]) == Numbers(5, -1, b"\0\0\0")
    assert pack([7]) == Numbers(7, 0, b"")


def test_what_grows_evenly_takes_a_byte_each_that_compresses_to_nothing() -> None:
    assert pack(range(0, 1 << 40, 1 << 30)).rest == bytes(1023)


@pytest.mark.parametrize(
    ("rest", "count"), [(b"", 2), (b"\0", 1), (b"\0\0\0", 3), (bytes(18), 3), (b"", 0), (b"", -5)]
)
def test_what_does_not_hold_so_many_is_refused(rest: bytes, count: int) -> None:
    with pytest.raises(ValueError, match="do not hold"):
        unpack(Numbers(0, 0, rest), count)


def test_neighbours_that_lie_too_far_apart_are_not_packed() -> None:
    with pytest.raises(OverflowError):
        pack([0, 1 << 64, 0])
