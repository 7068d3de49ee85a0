"""Programs in Java that a benchmark runs for a while, and what their REST interface says of Connect's connectors."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from deploy.lab.daemons import last_lines
from deploy.lab.ports import accepts
from embassy.model.errors import TransientError

_START_SECONDS = 400.0
_END_SECONDS = 30.0
_CAUSE = "Caused by: "
_SHOWN = 300


class Jvm:
    """One program; on two cores with a heap of gigabytes, Java itself would choose a collector that costs more."""

    def __init__(self, name: str, java: Path, *, heap: str, logging: Path, folder: Path) -> None:
        """Take a name, the launcher, the largest heap (``2g``), a configuration of log4j, and a folder to run in."""
        self.name = name
        self.log = folder / f"{name.replace(' ', '-')}.log"
        self._folder = folder
        self._command = [
            str(java), "-Xms256m", f"-Xmx{heap}", "-XX:+UseParallelGC", "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={logging}",
        ]  # fmt: skip
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process; 0 if it was not started."""
        return self._popen.pid if self._popen else 0

    def start(self, *arguments: str) -> None:
        """Start it, in a session of its own: an interrupt from the keyboard is the benchmark's to pass on."""
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                [*self._command, *arguments],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def stop(self) -> None:
        """Wait for its end, which it was asked for, or kill it; nothing if it was not started."""
        if self._popen is None:
            return
        try:
            self._popen.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._popen = None

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            TransientError: it has ended; the message has its last words.
        """
        if self._popen is not None and self._popen.poll() is not None:
            raise TransientError(
                f"the {self.name} ended with {self._popen.returncode}: {last_lines(self.log)}", place=str(self.log)
            )

    def await_port(self, port: int) -> None:
        """Wait until it listens.

        Raises:
            TransientError: it has ended, or does not.
        """
        end = time.monotonic() + _START_SECONDS
        while not accepts(port):
            self.check()
            if time.monotonic() > end:
                raise TransientError(f"the {self.name} does not listen on port {port}", place=str(self.log))
            time.sleep(0.05)


class Worker:
    """A Connect worker: a program with connectors in it."""

    def __init__(self, jvm: Jvm, port: int, connectors: int) -> None:
        """Take the program, the port of its REST interface and how many connectors it is to have."""
        self.jvm = jvm
        self._port = port
        self._connectors = connectors

    def start(self, jars: Path, settings: Path, connectors: Sequence[Path]) -> None:
        """Start it with its configuration and those of its connectors, and do not wait."""
        files = map(str, (settings, *connectors))
        self.jvm.start("-cp", f"{jars}/*", "org.apache.kafka.connect.cli.ConnectStandalone", *files)

    def await_running(self) -> None:
        """Wait until each connector runs, and the tasks that it has: MirrorMaker makes none before there are topics.

        Raises:
            TransientError: one has failed, or does not run in time.
        """
        end = time.monotonic() + _START_SECONDS
        while len(states := self._states()) < self._connectors or not all(map(_runs, states.values())):
            self.check()
            if time.monotonic() > end:
                raise TransientError(f"the {self.jvm.name} does not run: {states}", place=str(self.jvm.log))
            time.sleep(0.1)

    def check(self) -> None:
        """Make sure that it runs and that no task has failed.

        Raises:
            TransientError: one has; the message has the cause.
        """
        self.jvm.check()
        for name, status in self._states().items():
            for part in (status["connector"], *status["tasks"]):
                if part["state"] == "FAILED":
                    cause = root_cause(part.get("trace", ""))
                    raise TransientError(f"the connector {name} has failed: {cause}", place=str(self.jvm.log))

    def _states(self) -> dict[str, Any]:
        """By connector; none while it does not answer."""
        try:
            url = f"http://127.0.0.1:{self._port}/connectors?expand=status"
            with urllib.request.urlopen(url, timeout=10) as answer:
                found: dict[str, dict[str, Any]] = json.load(answer)
        except (OSError, ValueError, HTTPException):
            return {}
        return {name: connector["status"] for name, connector in found.items()}


def root_cause(trace: str) -> str:
    """What a Java stack trace names last as a cause."""
    lines = trace.strip().splitlines()
    causes = [line.strip().removeprefix(_CAUSE) for line in lines if line.strip().startswith(_CAUSE)]
    return (causes[-1] if causes else lines[0] if lines else "no trace")[:_SHOWN]


def _runs(status: dict[str, Any]) -> bool:
    return all(part["state"] == "RUNNING" for part in (status["connector"], *status["tasks"]))
