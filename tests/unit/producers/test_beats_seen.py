from __future__ import annotations

import pytest

from embassy.model.lsn import Lsn
from producers.beats_seen import BeatsSeen
from producers.continuity import RestoredError, must_remember

_LAST = (1 << 32) - 1


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _seen(*beats: tuple[int, int], clock: _Clock | None = None) -> BeatsSeen:
    seen = BeatsSeen(clock or _Clock())
    for xid, end_lsn in beats:
        seen.note(xid, Lsn(end_lsn))
    return seen


@pytest.mark.parametrize(
    ("beats", "written_by", "forgotten"),
    [
        ([], 5, None),
        ([(7, 70), (9, 90)], 9, None),
        ([(7, 70), (9, 90)], 12, None),
        ([(7, 70), (9, 90)], 8, 9),
        ([(7, 70), (9, 90)], 7, 9),
        ([(7, 70), (9, 101)], 7, None),  # the newer one is not in the stream, whoever has lost it
        ([(7, 70), (9, 101)], 6, 7),
        ([(7, 101)], 6, None),
        ([(9, 90)], None, None),
        ([(_LAST, 90)], 3, None),  # numbers come round
        ([(3, 90)], _LAST, 3),
    ],
)
def test_a_beat_of_the_stream_is_forgotten_if_the_row_is_older(
    beats: list[tuple[int, int]], written_by: int | None, forgotten: int | None
) -> None:
    assert _seen(*beats).forgotten(Lsn(100), written_by) == forgotten


def test_few_are_kept() -> None:
    seen = _seen(*((number, number) for number in range(1, 1000)))
    assert seen.forgotten(Lsn(950), 940) == 950
    assert seen.forgotten(Lsn(899), 1) is None


def test_what_is_a_day_old_says_nothing() -> None:
    clock = _Clock()
    seen = _seen((9, 90), clock=clock)
    clock.now = 86_000
    assert seen.forgotten(Lsn(100), 8) == 9
    clock.now = 87_000
    assert seen.forgotten(Lsn(100), 8) is None


def test_a_source_that_has_forgotten_one_is_refused_and_both_are_named() -> None:
    must_remember(_seen((9, 90)), 9, resume_lsn=Lsn(100), slot="embassy_x")
    with pytest.raises(RestoredError, match="of transaction 9; the newest that it knows is of 8") as caught:
        must_remember(_seen((9, 90)), 8, resume_lsn=Lsn(100), slot="embassy_x")
    assert "do not discard it" in caught.value.hint
