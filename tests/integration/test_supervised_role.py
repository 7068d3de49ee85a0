"""Supervision of a role: real processes, scripts in place of a role."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.demo.supervised_role import SupervisedRole
from deploy.lab.daemons import Daemon
from deploy.lab.roles import Role
from deploy.lab.waiting import Patience
from embassy.model.errors import TransientError

DEADLINE_SECONDS = 60.0
WORKS = """
import http.server, pathlib, signal, sys
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path in ("/livez", "/readyz") else 404)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
pathlib.Path(sys.argv[-1]).write_text(f"127.0.0.1:{server.server_port}\\n")
print('{"level": "info", "event": "started"}', flush=True)
server.serve_forever()
"""
FAILS = """
import sys
print('{"level": "critical", "event": "halted", "stream": "treasury", "error": "a gap"}', flush=True)
sys.exit(%d)
"""
NEVER_READY = WORKS.replace('"/livez", "/readyz"', '"/livez",')


@dataclass(frozen=True, slots=True)
class Script(Role):
    text: str = ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", self.text, "--address-file", str(self.address)]


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.01)


@contextmanager
def supervised(folder: Path, text: str) -> Iterator[SupervisedRole]:
    role = SupervisedRole(Script("producer", folder / "producer.toml", "producer", folder / "roles", text=text))
    role.start()
    try:
        yield role
    finally:
        role.stop()
        assert role.role.running() == []


def serving(role: SupervisedRole) -> Daemon:
    role.serve(Patience(), DEADLINE_SECONDS)
    (found,) = role.role.running()
    return found


def test_a_role_that_is_killed_is_started_again_and_that_is_no_complaint(tmp_path: Path) -> None:
    with supervised(tmp_path, WORKS) as role:
        first = serving(role)
        role.kill9()
        assert not first.alive
        assert serving(role) != first
    assert role.exits == ()


def test_a_role_that_is_paused_goes_on_as_the_same_process(tmp_path: Path) -> None:
    with supervised(tmp_path, WORKS) as role:
        first = serving(role)
        role.pause()
        role.resume()
        assert serving(role) == first
    assert role.exits == ()


def test_a_paused_role_can_be_stopped_cleanly(tmp_path: Path) -> None:
    with supervised(tmp_path, WORKS) as role:
        serving(role)
        role.pause()
    assert role.exits == ()


@pytest.mark.parametrize("code", [2, 5, 9])
def test_a_role_that_gives_up_is_not_started_again_and_its_words_are_kept(tmp_path: Path, code: int) -> None:
    with supervised(tmp_path, FAILS % code) as role:
        with pytest.raises(TransientError, match="has given up: halted: a gap"):
            role.serve(Patience(), DEADLINE_SECONDS)
        with pytest.raises(TransientError, match="does not run"):
            role.kill9()
    (end,) = role.exits
    assert (end.role, end.code, end.last_error, end.restarted) == ("producer", code, "halted: a gap", False)
    assert [halt.stream for halt in role.halts] == ["treasury"]


def test_a_role_that_dies_of_itself_is_started_again_and_noted(tmp_path: Path) -> None:
    with supervised(tmp_path, FAILS % 1) as role:
        until(lambda: len(role.exits) >= 2, "two ends")
    assert all((end.code, end.restarted) == (1, True) for end in role.exits[:2])


def test_a_role_that_somebody_else_kills_is_noted(tmp_path: Path) -> None:
    with supervised(tmp_path, WORKS) as role:
        first = serving(role)
        first.cut_power(Patience())
        until(lambda: role.exits != (), "the end to be noted")
        assert serving(role) != first
    (end,) = role.exits
    assert (end.code, end.restarted) == (-9, True)


def test_a_role_that_answers_but_is_not_ready_runs_and_does_not_serve(tmp_path: Path) -> None:
    with supervised(tmp_path, NEVER_READY) as role:
        role.come_back(Patience(), DEADLINE_SECONDS)
        with pytest.raises(TransientError, match="is not ready after"):
            role.serve(Patience(), 0.3)


def test_a_role_that_was_let_go_lives_on_and_is_found_and_ended_by_its_command_line(tmp_path: Path) -> None:
    with supervised(tmp_path, WORKS) as role:
        process = serving(role)
        role.let_go()
        assert process.alive
        role.role.end(Patience())
        assert not process.alive


def test_a_role_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    SupervisedRole(Script("producer", tmp_path / "producer.toml", "producer", tmp_path)).stop()
