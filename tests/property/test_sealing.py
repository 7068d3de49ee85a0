"""Whatever home ships while a replica is sealed: the sealing ends, and with all that it has to have."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embassy.model.errors import EmbassyError, StepError
from embassy.model.record import Head, RecordKind
from embassy.pg.progress_store import Progress
from failover.drain import PATIENCE_SECONDS, Reach
from failover.sealing import Sealed, seal
from tests.harness import memory_log
from tests.harness.memory_log import GENESIS, MemoryLog, verified

_INCARNATION = b"\x01" * 16
_LOOK_SECONDS = 0.002
_TAKE_SECONDS = 0.05
_APPLY_SECONDS = 0.01
"""From a record's arrival until it can be applied."""


@dataclass(frozen=True)
class Home:
    """How home and the way to the embassy behave."""

    rate: int
    """Commits a second."""
    dies_at: float | None
    """Before this moment it has committed its last; None: it lives on."""
    late_seconds: float
    """From a commit to its arrival, while no backlog is carried."""
    backlog_seconds: float = 0
    """So much of its commits is not carried yet when the sealing begins, at moment 0."""
    carried_at: float = 10
    """How many times faster than it came into being a backlog is carried."""


@dataclass
class World:
    """A log that grows, and a replica to which a consumer applies unless it is kept out, by one clock."""

    home: Home
    applied_a_second: int
    log: MemoryLog = field(default_factory=MemoryLog)
    now: float = 0
    kept_out: bool = False
    consumer_since: float | None = None
    applied: int = 0
    """How many records of the log are applied."""

    def __post_init__(self) -> None:
        value, head = memory_log.seal(GENESIS, RecordKind.KEY, incarnation=_INCARNATION)
        self._heads, self._committed = [head], [-self.home.backlog_seconds - self.home.late_seconds]
        self._arrived = [-inf]
        self.log.append(value)
        self.applied = 1
        self._coming = deque(self._commits())
        self.log.bounds = self._bounds  # type: ignore[method-assign]
        self.wait(0)

    def _commits(self) -> Iterator[tuple[float, float]]:
        """When each is committed, and when it arrives; for ten minutes, which stands for without end."""
        home, at = self.home, self._committed[0]
        while home.rate and (at := at + 1 / home.rate) < (600 if home.dies_at is None else home.dies_at):
            carried = (at + home.late_seconds + home.backlog_seconds) / home.carried_at
            yield at, max(at + home.late_seconds, carried if home.backlog_seconds else 0)

    def _bounds(self) -> tuple[int, int]:
        self.wait(_LOOK_SECONDS)
        return MemoryLog.bounds(self.log)

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        """Time passes: records arrive and are applied."""
        self.now += seconds
        while self._coming and self._coming[0][1] <= self.now:
            self._arrive(*self._coming.popleft())
        if self.consumer_since is not None and not self.kept_out:
            passed, self.consumer_since = self.now - self.consumer_since, self.now
            fetched = bisect_right(self._arrived, self.now - _APPLY_SECONDS)
            self.applied = min(fetched, self.applied + max(1, int(passed * self.applied_a_second)))

    def _arrive(self, committed: float, arrives: float) -> None:
        head = self._heads[-1]
        value, after = memory_log.seal(
            head, RecordKind.DATA, incarnation=_INCARNATION, resume_lsn=head.resume_lsn + 1
        )
        self.log.append(value)
        self._heads.append(after)
        self._committed.append(committed)
        self._arrived.append(arrives)

    def arrived(self) -> Head:
        return self._heads[-1]

    def progress(self) -> Progress:
        at = self.applied - 1
        return Progress(self._heads[at], b"", self.applied, int((self._committed[at] + 1_000) * 1e6))

    @contextmanager
    def applying(self) -> Iterator[World]:
        self.consumer_since = self.now
        yield self
        self.consumer_since = None

    def failure(self) -> EmbassyError | None:
        return None

    def take(self) -> None:
        self.kept_out = True
        self.wait(_TAKE_SECONDS)

    def release(self) -> None:
        self.kept_out, self.consumer_since = False, None

    def seal(self, *, may_leave_behind: bool = True) -> Sealed:
        """As a promotion does: drain, then seal."""
        reach = Reach(
            "land",
            log=self.log,
            signers=verified,
            progress=self.progress,
            applying=self.applying,
            stall_seconds=60,
            accept_undrained=False,
            clock=self.clock,
            pause=self.wait,
            tell=lambda _words: None,
        )
        reach.drain()
        return seal(
            "land",
            self,
            reach,
            self.progress,
            accept_undrained=False,
            may_leave_behind=may_leave_behind,
            clock=self.clock,
        )


_homes = st.builds(
    Home,
    rate=st.integers(0, 120),
    dies_at=st.one_of(st.none(), st.floats(-1, 0)),
    late_seconds=st.floats(0, PATIENCE_SECONDS),
    backlog_seconds=st.sampled_from([0.0, 0.0, 3.0, 20.0]),
    carried_at=st.floats(3, 50),
)


@settings(max_examples=40, deadline=None)
@given(home=_homes, applied_a_second=st.sampled_from([10, 100, 5_000]))
def test_what_had_arrived_is_in_and_of_a_dead_home_everything(home: Home, applied_a_second: int) -> None:
    world = World(home, applied_a_second)
    there = world.arrived()
    sealed = world.seal()
    assert world.kept_out
    assert sealed.progress.head.resume_lsn >= there.resume_lsn
    assert sealed.left.level == (sealed.progress.head == world.arrived())
    if home.dies_at is not None and not home.backlog_seconds:
        assert sealed.left.level, "what was under way when home died is in"
    assert world.now < 500


def test_a_home_that_ships_without_end_cannot_hold_a_promotion_up() -> None:
    world = World(Home(rate=100, dies_at=None, late_seconds=0.2), applied_a_second=5_000)
    sealed = world.seal()
    assert not sealed.left.level
    assert world.now < 4 * PATIENCE_SECONDS
    assert 0 < (sealed.left.records or 0) <= 100, "behind the line is only what came since it was drawn"


def test_a_backlog_that_is_still_carried_is_waited_for_although_home_lives() -> None:
    world = World(Home(rate=50, dies_at=None, late_seconds=0.1, backlog_seconds=60, carried_at=6), 5_000)
    sealed = world.seal()
    behind = world.now - (sealed.progress.committed_at / 1e6 - 1_000)
    assert behind < 2, "of a minute that was missing when the sealing began"


def test_a_switchover_leaves_nothing_behind() -> None:
    world = World(Home(rate=100, dies_at=None, late_seconds=0), applied_a_second=5_000)
    with pytest.raises(StepError, match="records keep coming"):
        world.seal(may_leave_behind=False)
