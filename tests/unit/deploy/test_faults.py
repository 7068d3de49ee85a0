"""When what is broken, and how it is recorded."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from deploy.demo.faults import Action, Appointment, Saboteur, schedule
from deploy.lab.waiting import Patience
from embassy.model.errors import TransientError

TARGETS = ["producer", "bridge", "consumer", "kafka home", "kafka embassy", "postgres home", "postgres embassy"]
ROLES = TARGETS[:3]
DEADLINE_SECONDS = 10.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.005)


def test_the_same_seed_gives_the_same_faults_and_another_gives_others() -> None:
    def drawn(seed: int) -> tuple[Appointment, ...]:
        return schedule(TARGETS, kills=20, seconds=60, seed=seed, pauses=3, pausable=ROLES)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize("seed", range(20))
def test_everything_is_killed_once_before_anything_is_killed_twice(seed: int) -> None:
    kills = [fault.target for fault in schedule(TARGETS, kills=20, seconds=60, seed=seed)]
    assert len(kills) == 20
    assert set(kills[:7]) == set(kills[7:14]) == set(TARGETS)
    assert max(Counter(kills[14:]).values()) == 1


@pytest.mark.parametrize("seed", range(20))
def test_faults_are_spread_over_the_load_and_end_before_it_does(seed: int) -> None:
    times = [fault.at_seconds for fault in schedule(TARGETS, kills=12, seconds=60, seed=seed)]
    assert times == sorted(times)
    assert times[0] >= 3
    assert times[-1] <= 54
    assert all(sum(begin <= at < begin + 10 for at in times) >= 1 for begin in (3, 13, 23, 33, 43))


def test_only_roles_are_paused_and_pauses_come_beside_the_kills() -> None:
    drawn = schedule(TARGETS, kills=7, seconds=60, seed=3, pauses=4, pausable=ROLES)
    paused = [fault for fault in drawn if fault.action is Action.PAUSE]
    assert len(paused) == 4
    assert {fault.target for fault in paused} == set(ROLES)
    assert all(fault.pause_seconds > 0 for fault in paused)
    assert {fault.target for fault in drawn if fault.action is Action.KILL} == set(TARGETS)


def test_no_faults_are_no_faults() -> None:
    assert schedule(TARGETS, kills=0, seconds=60, seed=1) == ()


class Recorder:
    """A victim that does as it is told and notes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.happened: list[str] = []
        self.back = threading.Event()
        self.serving = threading.Event()

    def kill9(self) -> None:
        self.happened.append("killed")

    def pause(self) -> None:
        self.happened.append("paused")

    def resume(self) -> None:
        self.happened.append("resumed")

    def come_back(self, patience: Patience, limit_seconds: float) -> None:
        self._await(self.back, patience, limit_seconds)
        self.happened.append("back")

    def serve(self, patience: Patience, limit_seconds: float) -> None:
        self._await(self.serving, patience, limit_seconds)
        self.happened.append("serves")

    def _await(self, event: threading.Event, patience: Patience, limit_seconds: float) -> None:
        for _ in patience.looks(limit_seconds):
            if event.is_set():
                return
        raise TransientError("it stays away")


class Broken(Recorder):
    def kill9(self) -> None:
        raise TransientError("it does not run")


def kill(target: str, at_seconds: float = 0.0) -> Appointment:
    return Appointment(at_seconds, target, Action.KILL)


def test_a_fault_counts_as_recovered_when_its_target_serves_again() -> None:
    victim = Recorder("producer")
    victim.back.set()
    saboteur = Saboteur([kill("producer")], {"producer": victim})
    saboteur.start()
    until(lambda: victim.happened == ["killed", "back"], "the target to be back")
    (fault,) = saboteur.faults()
    assert (fault.target, fault.action, fault.recovered_seconds, fault.error) == ("producer", "kill -9", None, "")
    victim.serving.set()
    (fault,) = saboteur.finish()
    assert fault.recovered_seconds is not None
    assert fault.error == ""


def test_a_target_that_does_not_run_again_is_not_killed_again() -> None:
    victim, other = Recorder("kafka"), Recorder("postgres")
    other.back.set()
    other.serving.set()
    victim.serving.set()
    saboteur = Saboteur(
        [kill("kafka"), kill("kafka", 0.01), kill("postgres", 0.02)], {"kafka": victim, "postgres": other}
    )
    saboteur.start()
    until(lambda: other.happened == ["killed", "back", "serves"], "the other one to recover meanwhile")
    assert victim.happened == ["killed"]
    victim.back.set()
    assert [fault.recovered_seconds is not None for fault in saboteur.finish()] == [True] * 3
    assert victim.happened.count("killed") == 2


def test_a_target_that_cannot_be_broken_is_a_fault_that_never_recovered() -> None:
    saboteur = Saboteur([kill("bridge")], {"bridge": Broken("bridge")})
    saboteur.start()
    (fault,) = saboteur.finish()
    assert fault.recovered_seconds is None
    assert "does not run" in fault.error


def test_a_pause_ends_even_when_the_demonstration_does() -> None:
    victim = Recorder("consumer")
    saboteur = Saboteur([Appointment(0.0, "consumer", Action.PAUSE, 3600.0)], {"consumer": victim})
    saboteur.start()
    until(lambda: victim.happened == ["paused"], "the pause")
    saboteur.abort()
    assert victim.happened == ["paused", "resumed"]


def test_after_an_abort_nothing_more_is_broken_and_nothing_is_waited_for() -> None:
    victim = Recorder("kafka")
    saboteur = Saboteur([kill("kafka"), kill("kafka", 0.01), kill("kafka", 3600.0)], {"kafka": victim})
    saboteur.start()
    until(lambda: victim.happened == ["killed"], "the first fault")
    saboteur.abort()
    assert victim.happened == ["killed"]


def test_an_abort_before_the_start_is_possible() -> None:
    Saboteur([kill("kafka")], {"kafka": Recorder("kafka")}).abort()
