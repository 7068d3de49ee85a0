"""However operators, clocks and networks behave, no two writable sides accept the same epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from failover.promotion import (
    NO_RETURN,
    Action,
    Finished,
    Mode,
    Refuse,
    Seen,
    Step,
    Take,
    Terms,
    before_no_return,
    decide,
    steps,
)

_PEOPLE = ("Anna", "Bert", "Carl")


@dataclass
class Plan:
    """A plan as a file: anyone may hold a copy, for ever."""

    nonce: int
    terms: Terms
    persons: frozenset[str] = frozenset()


@dataclass
class Run:
    """An operator's run of a plan, with a session that the server may have ended without the operator knowing."""

    plan: Plan
    alive: bool = True
    done: set[Step] = field(default_factory=set)
    next: Action | None = None
    decided_at: float = 0.0


@dataclass
class Replica:
    """What the replica's database holds; it alone changes by compare-and-set."""

    epoch: int = 1
    sequence: int = 0
    clock: float = 1_000.0
    newest_clock: float = 1_000.0
    used_up: set[int] = field(default_factory=set)
    raised_by: int | None = None
    journal: set[Step] = field(default_factory=set)
    opened: bool = False

    def now(self) -> float:
        self.newest_clock = max(self.newest_clock, self.clock)
        return self.newest_clock


class Promotions(RuleBasedStateMachine):
    """One stream: home, its replica, and any number of operators who know nothing of each other."""

    @initialize()
    def begin(self) -> None:
        self.replica = Replica()
        self.home_epoch = 1
        self.home_writes = True
        self.home_sequence = 0
        self.plans: list[Plan] = []
        self.runs: list[Run] = []
        self.raised: list[int] = []

    @rule(mode=st.sampled_from(Mode), stale=st.booleans(), valid=st.floats(1, 2_000))
    def plan(self, *, mode: Mode, stale: bool, valid: float) -> None:
        epoch = 1 if stale else self.replica.epoch
        terms = Terms(mode, epoch, epoch + 1, self.replica.sequence, self.replica.now() + valid, 1)
        self.plans.append(Plan(len(self.plans), terms))

    @precondition(lambda self: self.plans)
    @rule(data=st.data(), person=st.sampled_from(_PEOPLE))
    def approve(self, data: st.DataObject, person: str) -> None:
        plan = data.draw(st.sampled_from(self.plans))
        plan.persons |= {person}

    @precondition(lambda self: self.plans and len(self.runs) < 6)
    @rule(data=st.data())
    def run(self, data: st.DataObject) -> None:
        self.runs.append(Run(data.draw(st.sampled_from(self.plans))))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Observe and decide; acting comes later, when all of it may be old."""
        run = data.draw(st.sampled_from(self.runs))
        if run.alive:
            self._look(run)

    def _look(self, run: Run) -> None:
        replica, plan = self.replica, run.plan
        raised = replica.raised_by == plan.nonce
        seen = Seen(
            now=replica.now(),
            epoch=replica.epoch,
            sequence=replica.sequence,
            persons=plan.persons,
            used_up=plan.nonce in replica.used_up,
            raised_by_plan=raised,
            done=frozenset(run.done | ({*filter(before_no_return, Step), *replica.journal} if raised else set())),
        )
        run.next, run.decided_at = decide(plan.terms, seen), seen.now

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.runs))
        self._act(run)

    def _act(self, run: Run) -> None:
        if not run.alive or not isinstance(run.next, Take):
            return
        step, replica, plan, run.next = run.next.step, self.replica, run.plan, None
        if before_no_return(step):
            run.done.add(step)
        elif step is NO_RETURN:
            # The one statement that counts: only if epoch and nonce are still what the plan says.
            if replica.epoch == plan.terms.from_epoch and plan.nonce not in replica.used_up:
                assert len(plan.persons) >= 2
                assert run.decided_at < plan.terms.expires_at
                replica.epoch, replica.raised_by, replica.journal = plan.terms.to_epoch, plan.nonce, {step}
                self.raised.append(replica.epoch)
        elif replica.raised_by == plan.nonce:
            replica.journal.add(step)
            replica.opened = replica.opened or step is Step.OPEN

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def lose_a_session(self, data: st.DataObject) -> None:
        """Killed, or partitioned away."""
        data.draw(st.sampled_from(self.runs)).alive = False

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        plan = data.draw(st.sampled_from(self.plans))
        if self.replica.raised_by != plan.nonce:
            self.replica.used_up.add(plan.nonce)

    @rule(by=st.floats(-5_000, 5_000))
    def move_the_clock(self, by: float) -> None:
        self.replica.clock += by
        self.replica.now()

    @rule()
    def home_commits(self) -> None:
        """Home, in whatever state, writes and ships; the replica takes what is of its own epoch."""
        if self.home_writes:
            self.home_sequence += 1
            if self.replica.epoch == self.home_epoch:
                assert not self.replica.opened
                self.replica.sequence = self.home_sequence

    @rule(writes=st.booleans())
    def home_is_cut_off_or_returns(self, *, writes: bool) -> None:
        self.home_writes = writes

    @invariant()
    def no_two_writable_sides_accept_one_epoch(self) -> None:
        if self.replica.opened:
            assert self.replica.epoch > self.home_epoch
        assert len(set(self.raised)) == len(self.raised)
        assert self.replica.newest_clock >= self.replica.clock or self.replica.now() >= self.replica.clock

    def teardown(self) -> None:
        """Whoever runs a plan that has passed the point of no return gets to its end, whatever the clock says."""
        if self.replica.raised_by is None:
            return
        self.replica.clock += 1e6
        run = Run(self.plans[self.replica.raised_by])
        for _ in Step:
            self._look(run)
            self._act(run)
        self._look(run)
        assert isinstance(run.next, Finished)
        assert self.replica.opened


TestPromotions = Promotions.TestCase
TestPromotions.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)

_GOOD = Seen(
    now=10, epoch=1, sequence=5, persons=frozenset(_PEOPLE), used_up=False, raised_by_plan=False, done=frozenset()
)
_TERMS = Terms(Mode.DISASTER, 1, 2, 5, expires_at=20, persons_needed=2)


@pytest.mark.parametrize("mode", Mode)
def test_an_undisturbed_promotion_takes_each_step_once_in_order(mode: Mode) -> None:
    terms, taken, seen = _TERMS._replace(mode=mode), list[Step](), _GOOD
    while isinstance(action := decide(terms, seen), Take):
        taken.append(action.step)
        seen = seen._replace(done=seen.done | {action.step})
        if action.step is NO_RETURN:
            seen = seen._replace(epoch=2, raised_by_plan=True, now=1e9, persons=frozenset())
    assert isinstance(action, Finished)
    assert tuple(taken) == steps(mode)


@given(
    now=st.floats(0, 40),
    epoch=st.integers(1, 3),
    sequence=st.integers(0, 9),
    persons=st.frozensets(st.sampled_from(_PEOPLE)),
    used_up=st.booleans(),
    obstacles=st.sampled_from([(), ("a copy is not done",)]),
    needed=st.integers(1, 3),
)
def test_the_epoch_is_raised_only_if_everything_holds(
    *,
    now: float,
    epoch: int,
    sequence: int,
    persons: frozenset[str],
    used_up: bool,
    obstacles: tuple[str],
    needed: int,
) -> None:
    before = frozenset(filter(before_no_return, Step)) - {Step.GATE}
    seen = _GOOD._replace(
        now=now,
        epoch=epoch,
        sequence=sequence,
        persons=persons,
        used_up=used_up,
        obstacles=obstacles,
        done=before,
    )
    action = decide(_TERMS._replace(persons_needed=needed), seen)
    enough = len(persons) >= max(2, needed)
    if enough and now < 20 and epoch == 1 and sequence >= 5 and not used_up and not obstacles:
        assert action == Take(Step.GATE)
    else:
        assert isinstance(action, Refuse)
        assert action.reason
        assert action.hint
