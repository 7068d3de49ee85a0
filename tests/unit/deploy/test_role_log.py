"""What is read from a role's log."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.demo.role_log import Halt, halts, last_failure


def log(folder: Path, *lines: dict[str, str] | str) -> Path:
    path = folder / "role.log"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


STARTED = {"level": "info", "event": "started"}
HALTED = {
    "level": "critical",
    "event": "halted; the other streams go on",
    "stream": "treasury",
    "error": "a gap",
    "place": "s-1:42",
    "hint": "look",
}
WORDS = "halted; the other streams go on: a gap [s-1:42] → look"


def test_a_role_without_a_log_has_said_nothing(tmp_path: Path) -> None:
    assert halts(tmp_path / "none.log") == ()
    assert last_failure(tmp_path / "none.log") == ""


def test_halts_are_found_with_stream_place_and_hint_and_stand_once(tmp_path: Path) -> None:
    path = log(tmp_path, STARTED, HALTED, HALTED, {"level": "critical", "event": "every stream has halted"})
    assert halts(path) == (Halt("treasury", WORDS), Halt("", "every stream has halted"))


def test_a_word_that_only_looks_like_a_level_is_no_halt(tmp_path: Path) -> None:
    assert halts(log(tmp_path, {"level": "info", "event": "x", "stream": "critical"})) == ()


def test_the_last_failure_is_the_role_s_own_and_not_a_library_s(tmp_path: Path) -> None:
    noise = {"level": "error", "event": "FAIL [thrd:main]", "logger": "embassy.kafka"}
    assert last_failure(log(tmp_path, STARTED, HALTED, noise, STARTED)) == WORDS


def test_the_last_words_of_a_command_line_or_an_interpreter_count(tmp_path: Path) -> None:
    assert last_failure(log(tmp_path, STARTED, "error: no such key [x.toml]", "hint: make one")) == (
        "error: no such key [x.toml]"
    )
    traceback = ["Traceback (most recent call last):", '  File "x.py", line 1', "KeyError: 'x'"]
    assert last_failure(log(tmp_path, HALTED, *traceback)) == "KeyError: 'x'"
    assert last_failure(log(tmp_path, *traceback, HALTED, STARTED)) == WORDS
