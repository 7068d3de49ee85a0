"""When a backlog is read by query, and in which stretches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embassy.model.lsn import Lsn
from embassy.pg.backlog_session import Stretch
from producers.slot_reader import next_end, pays

_MIB = 1 << 20
_LSNS = st.integers(0, 1 << 44).map(Lsn)


def test_it_pays_from_a_size_on_unless_much_more_had_to_be_decoded_again() -> None:
    reached = Lsn(10_000 * _MIB)
    assert not pays(Stretch(reached, Lsn(reached + 16 * _MIB - 1)), reached, 16 * _MIB)
    assert pays(Stretch(reached, Lsn(reached + 16 * _MIB)), reached, 16 * _MIB)
    assert pays(Stretch(Lsn(reached - 16 * _MIB), Lsn(reached + 16 * _MIB)), reached, 16 * _MIB)
    assert not pays(Stretch(Lsn(reached - 17 * _MIB), Lsn(reached + 16 * _MIB)), reached, 16 * _MIB)
    assert not pays(Stretch(Lsn(reached - 1025 * _MIB), Lsn(reached + 9_000 * _MIB)), reached, 16 * _MIB)
    assert pays(Stretch(Lsn(reached + 1), Lsn(reached + 16 * _MIB)), reached, 16 * _MIB), "kept from later on"


@given(kept_from=_LSNS, reached=_LSNS, end=_LSNS)
def test_stretches_lead_to_the_end_and_never_past_it(kept_from: Lsn, reached: Lsn, end: Lsn) -> None:
    found = next_end(kept_from, reached, end)
    assert found <= end
    assert found == end or found > reached


@given(size=st.integers(1, 1 << 36))
def test_a_slot_that_does_not_move_along_costs_no_more_than_twice_the_log(size: int) -> None:
    """A transaction that stays open keeps the log from the same place on, for every stretch."""
    reached, decoded = Lsn(0), 0
    while reached < size:
        reached = next_end(Lsn(0), reached, Lsn(size))
        decoded += reached
    assert decoded <= 3 * size


@given(size=st.integers(1, 1 << 36))
def test_the_first_stretch_is_a_small_share_and_the_next_ones_are_few(size: int) -> None:
    """Nothing of a stretch is sent before all of it is decoded."""
    assert next_end(Lsn(0), Lsn(0), Lsn(size)) <= min(size // 8, 256 * _MIB) + 1
    reached, stretches = Lsn(0), 0
    while reached < size:
        reached, stretches = next_end(Lsn(0), reached, Lsn(size)), stretches + 1
    assert stretches <= 13
