"""A service's process: signals, systemd's line, exit codes; with loops that only turn."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SCRIPT = """
import os, sys, threading
from embassy.model.errors import IntegrityError
from embassy.runtime import logs
from embassy.runtime.gauges import LifecycleGauges
from embassy.runtime.lifecycle import Supervisor
from embassy.runtime.metrics import Metrics
from embassy.runtime.supervised_stream import Assignment
from embassy.runtime.systemd import Systemd

class Turning:
    def run(self, stop, pulse):
        while not stop.wait(0.05):
            pulse()
        print("drained", flush=True)

class Deaf:
    def run(self, stop, pulse):
        print("turning", flush=True)
        pulse()
        threading.Event().wait()

class Halting:
    def run(self, stop, pulse):
        raise IntegrityError("record 7 is missing")

logs.configure()
loops = {"turning": Turning, "deaf": Deaf, "halting": Halting}
names = sys.argv[1:]
supervisor = Supervisor(
    [Assignment(name, loops[name], lambda: 0.0, 60) for name in names],
    component="consumer",
    observer=LifecycleGauges(Metrics(version="0", component="consumer", site="x"), "consumer", names),
    systemd=Systemd(),
    drain_seconds=30,
    linger_seconds=float(os.environ.get("LINGER", 0)),
)
print("started", flush=True)
sys.exit(supervisor.run())
"""


@contextmanager
def _service(*loops: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    popen = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *loops],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield popen
    finally:
        popen.kill()
        popen.communicate()


@contextmanager
def _systemd(folder: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """A socket as systemd's, and what comes through it."""
    address = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(address)
        line.settimeout(20)

        def messages() -> Iterator[str]:
            while True:
                yield line.recv(4096).decode()

        yield address, messages()


def _until(messages: Iterator[str], wanted: str) -> list[str]:
    seen = []
    for message in messages:
        seen.append(message)
        if wanted in message:
            break
    return seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    with _systemd(tmp_path) as (address, messages), _service("turning", NOTIFY_SOCKET=address) as popen:
        _until(messages, "READY=1")
        popen.send_signal(number)
        out, _ = popen.communicate(timeout=60)
        assert "drained" in out
        assert popen.returncode == 0
        assert "STOPPING=1" in _until(messages, "STOPPING=1")[-1]


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with _systemd(tmp_path) as (address, messages), _service("deaf", NOTIFY_SOCKET=address) as popen:
        _until(messages, "1 running")
        popen.terminate()
        _until(messages, "STOPPING=1")
        popen.terminate()
        start = time.monotonic()
        assert popen.wait(60) == 128 + signal.SIGTERM
        assert time.monotonic() - start < 25, "it did not wait for the drain"


def test_all_halted_ends_with_the_family_of_the_halt() -> None:
    with _service("halting") as popen:
        _, err = popen.communicate(timeout=60)
        assert popen.returncode == 9
        assert "record 7 is missing" in err
        assert "every stream has halted" in err


def test_what_has_halted_for_good_stays_for_a_while_with_its_watchdog_fed_until_it_is_told_to_end(
    tmp_path: Path,
) -> None:
    with _systemd(tmp_path) as (address, messages):
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000", "LINGER": "3600"}
        with _service("halting", **environment) as popen:
            _until(messages, "1 halted (halting)")
            assert _until(messages, "WATCHDOG=1")
            assert popen.poll() is None
            popen.terminate()
            _, err = popen.communicate(timeout=60)
            assert popen.returncode == 9
            assert "every stream has halted" in err


def test_one_halted_stream_keeps_the_process_and_shows_in_its_status(tmp_path: Path) -> None:
    with _systemd(tmp_path) as (address, messages), _service("turning", "halting", NOTIFY_SOCKET=address) as popen:
        _until(messages, "1 running, 1 halted (halting)")
        assert popen.poll() is None
        popen.terminate()
        popen.communicate(timeout=60)
        assert popen.returncode == 9


def test_the_watchdog_is_fed_while_the_loops_turn(tmp_path: Path) -> None:
    with _systemd(tmp_path) as (address, messages):
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}
        with _service("turning", **environment) as popen:
            assert _until(messages, "WATCHDOG=1")
            assert _until(messages, "WATCHDOG=1")
            popen.terminate()
            popen.communicate(timeout=60)
