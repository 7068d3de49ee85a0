"""How much a promotion may lose is told by clocks that agree, or it is said that they do not."""

from __future__ import annotations

from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.pg.progress_store import Progress
from failover.loss import loss

_NOW = 1_800_000_000


def _progress(committed: float, applied: float) -> Progress:
    head = Head.genesis(bytes(32), 1, Lsn(0))
    return Progress(head, b"", 0, int(committed * 1e6), int(applied * 1e6))


def test_it_is_counted_from_the_newest_commit_that_is_here() -> None:
    for ahead in (-3600, -1, 0, 0.9):  # a home whose clock is behind makes it more, never less
        found = loss(_progress(_NOW - 60 + ahead, _NOW - 60), _NOW)
        assert found is not None
        assert (found.seconds, found.home_ahead_seconds) == (round(61 - ahead, 3), 0)
        assert found.words == f"at most {found.seconds:.1f} s of home's commits are lost"
    assert loss(Progress(Head.genesis(bytes(32), 1, Lsn(0)), b"", 0), _NOW) is None


def test_a_commit_that_came_before_it_was_made_tells_no_time() -> None:
    found = loss(_progress(_NOW + 3 * 3600 - 60, _NOW - 60), _NOW)
    assert found is not None
    assert (found.seconds, found.home_ahead_seconds) == (61, 3 * 3600)
    assert "home's clock is 10800 s ahead of this site's, or more" in found.words


def test_a_database_to_which_nothing_has_come_yet_is_as_of_when_it_was_superseded() -> None:
    found = loss(_progress(_NOW - 60, 0), _NOW)
    assert found is not None
    assert (found.seconds, found.home_ahead_seconds) == (61, 0)
    assert loss(_progress(_NOW + 60, 0), _NOW) is None, "of clocks that do not agree nothing can be counted"
