"""There and back, by whoever and with whatever plans and reports: never two sides that write the same epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from failover.failback import FailbackStep, Proceed, SeenHome, decide_failback
from failover.fences import Opening, decide_opening
from failover.promotion import Finished, Mode, Seen, Step, Take, Terms, before_no_return, decide

_SITES = ("home", "embassy")
_STEPS = st.sampled_from((*range(1, 12), *(12,) * 11))
"""How far a run gets before it is killed: every second one to its end."""
_PERSONS = frozenset({"Anna", "Bert"})


class Plan(NamedTuple):
    """An approved plan; anyone may hold a copy, for ever."""

    nonce: int
    site: str
    terms: Terms


@dataclass
class Side:
    """What one site's database holds."""

    follows: int = 0
    raised: bool = False
    """By a promotion here, to the epoch that it follows."""
    guarded: bool = False
    fenced: bool = False
    """Each table has the trigger that refuses everyone."""
    fences: dict[int, tuple[int, bool]] = field(default_factory=dict)
    """By nonce: the epoch, and whether a report proved it."""
    slot: bool = False
    bundled: set[int] = field(default_factory=set)
    cleared: set[int] = field(default_factory=set)
    used_up: set[int] = field(default_factory=set)
    journal: dict[int, set[Step]] = field(default_factory=dict)
    raised_by: int = -1

    @property
    def writable(self) -> bool:
        return not (self.guarded or self.fenced)

    @property
    def epoch(self) -> int:
        """The epoch of what is written here."""
        return self.follows or 1

    @property
    def own(self) -> int:
        """The epoch of its reign; 0: the stream's first."""
        return self.follows if self.raised else 0

    @property
    def held(self) -> dict[int, bool]:
        """The plans for an epoch above its own for which it is shut: whether a report proves that they were run."""
        return {nonce: proven for nonce, (epoch, proven) in self.fences.items() if epoch > self.own}


class ThereAndBack(RuleBasedStateMachine):
    """Two sites, operators who know nothing of each other, plans and reports that are copied and kept."""

    @initialize()
    def begin(self) -> None:
        self.sides = {"home": Side(slot=True), "embassy": Side(follows=1, guarded=True)}
        self.plans: list[Plan] = []
        self.reports: list[Plan] = []
        self.told: set[tuple[int, str]] = set()
        """Fences that the other side has seen in the stream: the nonce, and where."""
        self.raised: list[int] = []
        self.disasters: set[int] = set()
        """Epochs that began without their predecessor being shut."""

    def _other(self, site: str) -> Side:
        return self.sides[_SITES[1 - _SITES.index(site)]]

    @rule(mode=st.sampled_from(Mode))
    def plan(self, *, mode: Mode) -> None:
        site = next((site for site, side in self.sides.items() if side.follows and not side.raised), None)
        if site is None:
            return
        side = self.sides[site]
        terms = Terms(mode, side.follows, side.follows + 1, 0, 1e9, 2)
        self.plans.append(Plan(len(self.plans), site, terms))

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def fence_the_source(self, data: st.DataObject) -> None:
        """By a plan; it tells so in the stream of the epoch that it writes, and a replica of that epoch sees it."""
        plan = data.draw(st.sampled_from(self.plans[-3:]))
        source, replica = self._other(plan.site), self.sides[plan.site]
        if plan.terms.mode is not Mode.SWITCHOVER or source.guarded or plan.terms.to_epoch <= source.own:
            return
        source.fenced = True
        source.fences.setdefault(plan.nonce, (plan.terms.to_epoch, False))
        if source.epoch == replica.follows and not replica.raised:
            self.told.add((plan.nonce, plan.site))

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """Abort, and release by the word of the site that was to be promoted."""
        self._give_up(data.draw(st.sampled_from(self.plans)))

    def _give_up(self, plan: Plan) -> None:
        replica, source = self.sides[plan.site], self._other(plan.site)
        if Step.EPOCH in replica.journal.get(plan.nonce, set()):
            return
        replica.used_up.add(plan.nonce)
        opening = decide_opening(source.held, plan.nonce)
        if opening is Opening.OPEN:
            source.fenced = False
        if opening is not Opening.SUPERSEDED:
            source.fences.pop(plan.nonce, None)

    @rule(site=st.sampled_from(_SITES))
    def call_everything_off(self, *, site: str) -> None:
        """In any order: a side that is shut for plans of which none was run is open again once all are given up."""
        source, held = self.sides[site], dict(self.sides[site].held)
        plans = [plan for plan in self.plans if plan.nonce in held]
        for plan in plans:
            self._give_up(plan)
        if held and not any(held.values()) and all(plan.nonce in self.sides[plan.site].used_up for plan in plans):
            assert not source.fenced, "shut, and nothing can open it"

    @precondition(lambda self: self.plans)
    @rule(data=st.data(), steps=_STEPS)
    def run_plan(self, data: st.DataObject, steps: int) -> None:
        """So far, and then it is killed; what is before the point of no return is taken anew by each run."""
        plan = data.draw(st.sampled_from(self.plans[-3:]))
        side, journal = self.sides[plan.site], self.sides[plan.site].journal.setdefault(plan.nonce, set())
        done: set[Step] = set()
        for _ in range(steps):
            raised = Step.EPOCH in journal
            seen = Seen(
                now=0,
                epoch=side.follows,
                sequence=0,
                persons=_PERSONS,
                used_up=plan.nonce in side.used_up,
                raised_by_plan=raised,
                done=frozenset(done | ({*filter(before_no_return, Step), *journal} if raised else set())),
            )
            action = decide(plan.terms, seen)
            if not isinstance(action, Take):
                return
            if action.step is Step.FENCE_HOME and (plan.nonce, plan.site) not in self.told:
                return
            self._step(plan, side, action.step)
            done.add(action.step)

    def _step(self, plan: Plan, side: Side, step: Step) -> None:
        if before_no_return(step):
            return
        side.journal[plan.nonce].add(step)
        if step is Step.EPOCH:
            side.follows, side.raised, side.raised_by = plan.terms.to_epoch, True, plan.nonce
            self.raised.append(side.follows)
            if plan.terms.mode is Mode.DISASTER:
                self.disasters.add(side.follows)
        elif step is Step.REVERSE:
            assert not side.writable, "nothing is written before the slot is there"
            side.slot = True
        elif step is Step.OPEN:
            side.guarded = False
        elif step is Step.REPORT:
            self.reports.append(plan)

    @precondition(lambda self: self.reports)
    @rule(data=st.data(), steps=_STEPS)
    def come_home(self, data: st.DataObject, steps: int) -> None:
        """With any report that there ever was, so far, and then it is killed, within a step even."""
        report = data.draw(st.sampled_from(self.reports[-2:]))
        side = self._other(report.site)
        for _ in range(steps):
            proven = report.terms.mode is Mode.SWITCHOVER and (report.nonce in side.fences)
            begun = side.follows >= report.terms.to_epoch
            action = decide_failback(
                SeenHome(
                    to_epoch=report.terms.to_epoch,
                    epoch=side.follows,
                    raised=side.raised,
                    shut=begun or (side.fences.get(report.nonce, (0, False))[1] and not side.writable),
                    bundled=begun or proven or report.nonce in side.bundled,
                    guarded=begun or (side.guarded and not side.fenced),
                    cleared=begun or proven or report.nonce in side.cleared,
                    slot=not begun and side.slot,
                    level=True,
                )
            )
            if isinstance(action, Finished) or not isinstance(action, Proceed):
                return
            half = data.draw(st.sampled_from((False, False, False, True)))
            self._home_step(report, side, action.step, half=half)
            if half:
                return

    @staticmethod
    def _home_step(report: Plan, side: Side, step: FailbackStep, *, half: bool) -> None:
        if step is FailbackStep.FENCE:
            side.fenced = True
            if not half:
                side.fences[report.nonce] = (report.terms.to_epoch, True)
        elif step is FailbackStep.GUARD:
            side.guarded = True
            side.fenced = side.fenced and half
        elif half:
            return
        elif step is FailbackStep.BUNDLE:
            assert side.slot, "what never shipped is read from the slot"
            side.bundled.add(report.nonce)
        elif step is FailbackStep.CLEAR:
            side.cleared.add(report.nonce)
        elif step is FailbackStep.SLOT:
            side.slot = False
        elif step is FailbackStep.BEGIN:
            side.follows, side.raised = report.terms.to_epoch, False

    @invariant()
    def no_two_sides_write_one_epoch(self) -> None:
        home, embassy = self.sides["home"], self.sides["embassy"]
        assert len(set(self.raised)) == len(self.raised)
        if home.writable and embassy.writable:
            # Nobody can shut a side that cannot be reached: until it is fenced there, what it writes counts no more.
            assert home.epoch != embassy.epoch
            assert max(home.epoch, embassy.epoch) in self.disasters

    @invariant()
    def who_follows_cannot_be_written_to(self) -> None:
        for side in self.sides.values():
            assert side.raised or not side.follows or not side.writable


TestThereAndBack = ThereAndBack.TestCase
TestThereAndBack.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
