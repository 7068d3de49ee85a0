from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from embassy.model.errors import (
    ConfigurationError,
    EmbassyError,
    IntegrityError,
    RefusedError,
    TransientError,
)
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.stop import Stop
from embassy.runtime.supervised_stream import Assignment, Clocks, Condition, Runnable, SupervisedStream

Step = Callable[["World"], None]


class World:
    """A clock that moves when told, and a stream that does one step of a script each time it is run."""

    def __init__(self, *script: Step, rpo_seconds: float = 60) -> None:
        self.now = 1000.0
        self.newest = 0.0
        self.pauses: list[float] = []
        self.told: list[tuple[object, ...]] = []
        self.stop = Stop()
        self._script = iter(script)
        self._broken: list[AssertionError] = []
        clocks = Clocks(lambda: self.now, lambda: self.now, self._jitter)
        assignment = Assignment("land", lambda: self, lambda: self.newest, rpo_seconds)
        self.stream = SupervisedStream(assignment, component="consumer", observer=self, clocks=clocks)

    def run(self, stop: threading.Event, pulse: Callable[[], None]) -> None:
        try:
            next(self._script)(self)
        except AssertionError as failure:  # the stream would take it for a bug of its loop
            self._broken.append(failure)
            raise

    def running(self, name: str, running: bool) -> None:  # noqa: FBT001
        self.told.append(("running", name, running))

    def failed(self, family: str) -> None:
        self.told.append(("failed", family))

    def halted(self, name: str, family: str) -> None:
        self.told.append(("halted", name, family))

    def turn(self, seconds: float, step: float = 0.25) -> None:
        """Let the loop turn for some time."""
        end = self.now + seconds
        while self.now < end:
            self.stream.pulse()
            self.now += step
        self.stream.pulse()

    def supervise(self) -> list[dict[str, object]]:
        with capture_logs() as entries:
            self.stream.run(self.stop)
        for failure in self._broken:
            raise failure
        return [dict(entry) for entry in entries]

    def _jitter(self, low: float, high: float) -> float:
        self.pauses.append(high)
        return low


def _fail(error: BaseException) -> Step:
    def step(world: World) -> None:
        raise error

    return step


def _end(world: World) -> None:
    world.stop.set()


UNREACHABLE = TransientError("connection refused", place="kafka", hint="is it up?")


def test_an_unreachable_server_is_tried_again_with_growing_pauses_and_logged_once() -> None:
    world = World(*[_fail(UNREACHABLE)] * 9, _end)
    entries = world.supervise()
    assert world.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert [entry["event"] for entry in entries] == ["waiting, and trying again"]
    assert world.told.count(("failed", "transient")) == 9
    assert world.stream.condition is Condition.STOPPED
    assert world.stream.code is ExitCode.OK


def test_a_reason_that_changes_is_logged_and_so_is_one_that_lasts() -> None:
    other = TransientError("another producer holds the slot", place="slot embassy_x", hint="this one waits")

    def much_later(world: World) -> None:
        world.now += 400
        raise other

    world = World(_fail(UNREACHABLE), _fail(other), _fail(other), much_later, _end)
    entries = world.supervise()
    assert [(entry["error"], entry["attempts"]) for entry in entries] == [
        ("connection refused", 1),
        ("another producer holds the slot", 2),
        ("another producer holds the slot", 4),
    ]
    assert entries[0]["hint"] == "is it up?"


def test_a_stream_runs_from_its_first_turn() -> None:
    def step(world: World) -> None:
        assert "starting" in world.stream.ready().text
        assert not world.stream.ready().passed
        world.stream.pulse()
        assert "running" in world.stream.ready().text
        assert world.stream.ready().passed
        world.stop.set()

    world = World(step)
    world.supervise()
    assert world.told == [("running", "land", True), ("running", "land", False)]


def test_a_stream_that_fails_after_each_first_turn_never_looks_green() -> None:
    def turn_and_fail(world: World) -> None:
        world.turn(0.5)
        assert world.stream.condition is Condition.WAITING
        assert not world.stream.ready().passed
        assert "connection refused" in world.stream.ready().text
        raise UNREACHABLE

    world = World(_fail(UNREACHABLE), turn_and_fail, turn_and_fail, _end)
    entries = world.supervise()
    assert world.pauses == [0.1, 0.2, 0.4]
    assert len(entries) == 1


def test_a_stream_that_keeps_turning_is_running_again_and_forgets_its_failures() -> None:
    def turn(world: World) -> None:
        world.turn(2)
        assert world.stream.condition is Condition.RUNNING
        assert world.stream.ready().passed
        raise UNREACHABLE

    world = World(_fail(UNREACHABLE), _fail(UNREACHABLE), turn, _end)
    entries = world.supervise()
    assert world.pauses == [0.1, 0.2, 0.1]
    assert [entry["event"] for entry in entries] == [
        "waiting, and trying again",
        "running again",
        "waiting, and trying again",
    ]
    assert entries[1]["attempts"] == 2


@pytest.mark.parametrize(
    ("error", "family", "code"),
    [
        (IntegrityError("record 7 is missing", place="s-1@6", hint="resync"), "integrity", ExitCode.INTEGRITY),
        (ConfigurationError("wal_level is replica"), "configuration", ExitCode.CONFIGURATION),
        (RefusedError("the replica was promoted"), "refused", ExitCode.REFUSED),
    ],
)
def test_what_a_retry_cannot_help_halts_the_stream(error: EmbassyError, family: str, code: ExitCode) -> None:
    world = World(_fail(error))
    (entry,) = world.supervise()
    assert world.stream.condition is Condition.HALTED
    assert world.stream.code is code
    assert world.told == [("failed", family), ("halted", "land", family), ("running", "land", False)]
    assert entry["log_level"] == "critical"
    assert (entry["error"], entry.get("place", ""), entry.get("hint", "")) == (
        error.args[0],
        error.place,
        error.hint,
    )
    assert not world.stream.ready().passed
    assert error.args[0] in world.stream.ready().text
    assert world.stream.live().passed, "a restart would not help"


@pytest.mark.parametrize("error", [ValueError("Müller, Anna"), SystemExit("Müller, Anna")])
def test_any_other_exception_is_a_bug_and_its_message_is_not_shown(error: BaseException) -> None:
    world = World(_fail(error))
    (entry,) = world.supervise()
    assert world.stream.code is ExitCode.BUG
    assert entry["exc_info"] is error
    assert ("halted", "land", "bug") in world.told
    assert type(error).__name__ in world.stream.ready().text
    assert "Müller" not in world.stream.ready().text


def test_a_loop_that_ends_by_itself_is_a_bug() -> None:
    world = World(lambda _world: None)
    world.supervise()
    assert world.stream.code is ExitCode.BUG


def test_a_loop_that_cannot_be_built_halts_its_stream() -> None:
    world = World()

    def build() -> Runnable:
        raise ConfigurationError("no such file", place="enrolment.json")

    stream = SupervisedStream(
        Assignment("land", build, lambda: 0.0, 60),
        component="bridge",
        observer=world,
        clocks=Clocks(lambda: 0.0, lambda: 0.0, lambda low, high: low),
    )
    with capture_logs():
        stream.run(Stop())
    assert stream.code is ExitCode.CONFIGURATION


def test_an_unreachable_server_while_draining_is_not_a_failure() -> None:
    def step(world: World) -> None:
        world.stop.set()
        raise UNREACHABLE

    world = World(step)
    world.supervise()
    assert world.stream.condition is Condition.STOPPED
    assert world.stream.code is ExitCode.OK


def test_a_loop_that_no_longer_turns_is_neither_live_nor_ready() -> None:
    def step(world: World) -> None:
        world.turn(1)
        assert world.stream.live().passed
        world.now += 121
        assert not world.stream.live().passed
        assert not world.stream.ready().passed
        world.stream.pulse()
        assert world.stream.live().passed
        world.stop.set()

    world = World(step)
    world.supervise()
    assert world.stream.code is ExitCode.OK


def test_a_start_may_read_a_whole_topic_but_not_for_ever() -> None:
    def step(world: World) -> None:
        world.now += 1000
        assert world.stream.live().passed
        world.now += 1000
        assert not world.stream.live().passed
        world.stop.set()

    world = World(step)
    world.supervise()


def test_a_stream_that_turns_but_passes_nothing_on_does_not_stay_green() -> None:
    def step(world: World) -> None:
        world.turn(29)
        assert world.stream.ready().passed, "nothing has come yet"
        world.turn(2)
        assert not world.stream.ready().passed
        assert "nothing has passed" in world.stream.ready().text
        world.newest = world.now - 1
        assert world.stream.ready().passed
        world.turn(31)
        assert not world.stream.ready().passed
        assert "stalled" in world.stream.ready().text
        world.stop.set()

    world = World(step, rpo_seconds=30)
    world.supervise()
