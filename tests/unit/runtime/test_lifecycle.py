from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from embassy.model.errors import ConfigurationError, IntegrityError, RefusedError
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.gauges import LifecycleGauges
from embassy.runtime.lifecycle import Supervisor
from embassy.runtime.metrics import Metrics
from embassy.runtime.supervised_stream import Assignment, Finished
from embassy.runtime.systemd import Systemd


class _Working:
    """Turns until told to stop."""

    def __init__(self, on_turn: Callable[[], None] = lambda: None) -> None:
        self.drained = False
        self._on_turn = on_turn

    def run(self, stop: threading.Event, pulse: Callable[[], None]) -> None:
        while not stop.wait(0.01):
            pulse()
            self._on_turn()
        self.drained = True


class _Failing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, stop: threading.Event, pulse: Callable[[], None]) -> None:
        raise self._error


class _Deaf:
    """Does not end when told to."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def run(self, stop: threading.Event, pulse: Callable[[], None]) -> None:
        pulse()
        self.release.wait(60)


class _Told(Systemd):
    def __init__(self) -> None:
        super().__init__({})
        self.lines: list[str] = []

    def ready(self) -> None:
        self.lines.append("ready")

    def alive(self) -> None:
        self.lines.append("alive")
        self.on_alive()

    def on_alive(self) -> None:
        """For a test to look about while the service is alive."""

    def stopping(self) -> None:
        self.lines.append("stopping")

    def status(self, text: str) -> None:
        self.lines.append(text)


class _Setting(NamedTuple):
    supervisor: Supervisor
    metrics: Metrics
    systemd: _Told

    def metric(self, line: str) -> str | None:
        text = self.metrics.exposition()[0].decode()
        return next((found.rpartition(" ")[2] for found in text.splitlines() if found.startswith(line)), None)


Loop = _Working | _Failing | _Deaf


def _setting(
    streams: Iterable[tuple[str, Loop]],
    *,
    drain_seconds: float = 5,
    linger_seconds: float = 0,
    finite: bool = False,
) -> _Setting:
    loops = dict(streams)
    metrics = Metrics(version="0", component="consumer", site="here")
    systemd = _Told()
    supervisor = Supervisor(
        [Assignment(name, lambda loop=loop: loop, lambda: 0.0, 60) for name, loop in loops.items()],  # type: ignore[misc]
        component="consumer",
        observer=LifecycleGauges(metrics, "consumer", loops),
        systemd=systemd,
        drain_seconds=drain_seconds,
        linger_seconds=linger_seconds,
        finite=finite,
    )
    return _Setting(supervisor, metrics, systemd)


def _run(setting: _Setting) -> ExitCode:
    with capture_logs():
        return setting.supervisor.run()


def test_streams_drain_when_told_to_stop() -> None:
    loops = {f"stream_{number}": _Working() for number in range(3)}
    setting = _setting(loops.items())
    loops["stream_1"]._on_turn = setting.supervisor.stop
    assert _run(setting) is ExitCode.OK
    assert all(loop.drained for loop in loops.values())
    assert setting.supervisor.stuck == ()
    assert setting.systemd.lines[0] == "ready"
    assert setting.systemd.lines[-1] == "stopping"
    assert "alive" in setting.systemd.lines


def test_one_stream_that_halts_leaves_the_others_running_and_is_never_green() -> None:
    error = IntegrityError("record 7 is missing", place="s-1@6", hint="carry it again")
    seen: dict[str, object] = {}

    def look() -> None:
        if not setting.supervisor.running("land") and setting.metric(HALTED) == "1.0":
            seen.update({check.name: check for check in setting.supervisor.ready()})
            seen["apply"] = setting.metric('embassy_apply_halted{reason="integrity",registry="land"}')
            seen["running"] = setting.metric('embassy_stream_running{component="consumer",registry="people"}')
            seen["gaps"] = setting.metric('embassy_gaps_total{registry="land"}')
            setting.supervisor.stop()

    HALTED = 'embassy_stream_halted{component="consumer",reason="integrity",registry="land"}'  # noqa: N806
    people = _Working(look)
    setting = _setting([("land", _Failing(error)), ("people", people)])
    assert _run(setting) is ExitCode.INTEGRITY, "a halted stream marks the end of the process too"
    assert people.drained
    assert not seen["land"].passed  # type: ignore[attr-defined]
    assert "record 7 is missing [s-1@6] → carry it again" in seen["land"].text  # type: ignore[attr-defined]
    assert seen["people"].passed  # type: ignore[attr-defined]
    assert (seen["apply"], seen["running"], seen["gaps"]) == ("1.0", "1.0", "1.0")
    assert any("halted (land)" in line for line in setting.systemd.lines)


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([ConfigurationError("a")], 2),
        ([RefusedError("a"), ConfigurationError("a")], 2),
        ([RefusedError("a"), RefusedError("a")], 5),
        ([ConfigurationError("a"), IntegrityError("a"), RefusedError("a")], 9),
        ([ValueError("a"), RefusedError("a")], 5),
        ([ValueError("a")], 1),
    ],
)
def test_when_all_streams_have_halted_the_worst_family_is_the_exit_code(
    errors: list[Exception], code: int
) -> None:
    setting = _setting([(f"stream_{n}", _Failing(error)) for n, error in enumerate(errors)])
    assert _run(setting) == code


def test_a_halt_that_no_restart_cures_is_shown_for_a_while_and_a_word_ends_that() -> None:
    seen: dict[str, object] = {}

    def look() -> None:
        if not seen and setting.systemd.lines[-2:-1] == ["1 halted (land)"]:  # a turn of the stay has passed
            (check,) = setting.supervisor.ready()
            seen.update(ready=check.passed, live=all(live.passed for live in setting.supervisor.live()))
            seen["halted"] = setting.metric('embassy_apply_halted{reason="refused",registry="land"}')
            setting.supervisor.stop()

    setting = _setting([("land", _Failing(RefusedError("promoted")))], linger_seconds=3600)
    setting.systemd.on_alive = look  # type: ignore[method-assign]
    assert _run(setting) is ExitCode.REFUSED
    assert seen == {"ready": False, "live": True, "halted": "1.0"}
    assert setting.systemd.lines[-1] == "stopping"


def test_a_stay_behind_a_halt_ends_by_itself() -> None:
    setting = _setting([("land", _Failing(IntegrityError("a gap")))], linger_seconds=0.1)
    assert _run(setting) is ExitCode.INTEGRITY
    assert "alive" in setting.systemd.lines


@pytest.mark.parametrize("error", [ValueError("a bug"), Finished("all is done")])
def test_what_a_restart_may_cure_and_what_is_done_ends_at_once(error: Exception) -> None:
    setting = _setting([("land", _Failing(error))], linger_seconds=3600)
    assert _run(setting) in (ExitCode.BUG, ExitCode.OK)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Finished("all is done"), ExitCode.OK),
        (RefusedError("frozen"), ExitCode.REFUSED),  # and does not stay: someone waits for its end
        (None, ExitCode.INTERRUPTED),
    ],
)
def test_what_ends_by_itself_has_not_done_it_when_it_was_told_to_stop(
    error: Exception | None, code: ExitCode
) -> None:
    loop = _Working() if error is None else _Failing(error)
    setting = _setting([("land", loop)], linger_seconds=3600, finite=True)
    if isinstance(loop, _Working):
        loop._on_turn = setting.supervisor.stop
    assert _run(setting) is code


def test_a_stream_that_does_not_end_in_time_is_named_and_left() -> None:
    deaf, working = _Deaf(), _Working()
    setting = _setting([("deaf", deaf), ("working", working)], drain_seconds=0.2)
    working._on_turn = setting.supervisor.stop
    try:
        assert _run(setting) is ExitCode.OK
        assert setting.supervisor.stuck == ("deaf",)
        assert working.drained
    finally:
        deaf.release.set()
        for thread in threading.enumerate():
            if thread.name == "deaf":
                thread.join(10)


def test_every_service_metric_of_a_stream_exists_from_the_start() -> None:
    setting = _setting([("land", _Working())])
    for family in ("integrity", "configuration", "refused", "bug"):
        labels = f'component="consumer",reason="{family}",registry="land"'
        assert setting.metric(f"embassy_stream_halted{{{labels}}}") == "0.0"
    assert setting.metric('embassy_errors_total{component="consumer",reason="transient"}') == "0.0"
