from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embassy.model.errors import ConfigurationError
from embassy.runtime import failpoints

_SCRIPT = """
from embassy.runtime.failpoints import FailpointReached, failpoint
for turn in range(1, 6):
    failpoint("bridge.before_append")
    try:
        failpoint("producer.after_append")
    except FailpointReached as reached:
        print("raised", reached)
    print(turn, flush=True)
"""


def _run(armed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        check=False,
        env={**os.environ, failpoints.ENVIRONMENT: armed},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_unarmed_nothing_happens() -> None:
    done = _run("")
    assert (done.returncode, done.stdout.split()) == (0, ["1", "2", "3", "4", "5"])


def test_an_armed_failpoint_kills_at_the_first_hit() -> None:
    done = _run("producer.after_append")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_an_armed_failpoint_kills_at_the_nth_hit_only() -> None:
    done = _run("producer.after_append:3:kill")
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["1", "2"])


def test_an_armed_failpoint_raises_once() -> None:
    done = _run("producer.after_append:2:raise")
    assert (done.returncode, done.stdout) == (0, "1\nraised producer.after_append\n2\n3\n4\n5\n")


def test_a_bad_value_stops_the_process_at_once_and_lists_the_names() -> None:
    done = _run("producer.after_apend")
    assert done.returncode == 1
    assert "did you mean 'producer.after_append'?" in done.stderr
    assert "consumer.before_commit" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("text", ["bridge.after_append:0", "bridge.after_append:x", "bridge.after_append:kill:2"])
def test_what_is_neither_a_count_nor_an_action_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a failpoint"):
        failpoints.parse(text)


def test_every_constant_is_in_all_once() -> None:
    constants = {
        name: value
        for name, value in vars(failpoints).items()
        if name.startswith(("PRODUCER_", "BRIDGE_", "CONSUMER_"))
    }
    listed = (*failpoints.ALL, *failpoints.BACKLOG, *failpoints.COPYING, *failpoints.DDL)
    assert sorted(constants.values()) == sorted(listed)
    assert {name.replace("_", ".", 1).lower() for name in constants} == set(listed)


def test_every_window_is_killed_in_by_a_fault_test() -> None:
    """By its own name, or by the list that it stands in."""
    faults = Path(__file__).parents[2] / "faults"
    text = "".join(path.read_text() for path in faults.glob("test_*.py"))
    named = {name: value for name, value in vars(failpoints).items() if name.isupper()}
    lists = [value for name, value in named.items() if isinstance(value, tuple) and _names(text, name)]
    killed_in = {window for windows in lists for window in windows}
    killed_in |= {value for name, value in named.items() if isinstance(value, str) and _names(text, name)}
    assert set(failpoints.KNOWN) <= killed_in


def _names(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None
