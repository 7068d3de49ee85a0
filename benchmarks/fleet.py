"""The three roles of a lab as processes of their own, with the configuration that the lab gives them."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.request
from dataclasses import replace
from http.client import HTTPException

from benchmarks.machine import cpu_seconds, family_cpu_seconds
from deploy.lab.daemons import last_lines
from deploy.lab.lab import Lab
from deploy.lab.roles import Role, roles
from embassy.model.errors import TransientError

_END_SECONDS = 60.0


class Fleet:
    """One producer, one bridge and one consumer for all streams."""

    def __init__(self, lab: Lab, *, ready_seconds: float = 60.0, registry: str = "") -> None:
        """Take a lab's roles.

        Args:
            lab: whose.
            ready_seconds: how long they may take.
            registry: the only one that they carry; empty: all.
        """
        self._lab = lab
        self._ready_seconds = ready_seconds
        self.roles = [
            replace(role, options=_only(lab, role, registry) if registry else ())
            for role in roles(lab.layout, lab.state)
        ]
        self.running: dict[str, tuple[Role, subprocess.Popen[bytes]]] = {}
        """By stage."""

    def start(self) -> float:
        """Start what does not run; returns the seconds until each was ready.

        Raises:
            TransientError: one ended, or is not ready in time.
        """
        begun = time.monotonic()
        self.spawn()
        for role, popen in self.running.values():
            while not is_ready(role):
                if popen.poll() is not None or time.monotonic() - begun > self._ready_seconds:
                    raise TransientError(f"{role.name} is not ready: {last_lines(role.log)}", place=str(role.log))
                time.sleep(0.05)
        return time.monotonic() - begun

    def spawn(self) -> None:
        """Start what does not run, and do not wait for it."""
        self._lab.layout.roles.mkdir(parents=True, exist_ok=True)
        for role in self.roles:
            if role.stage not in self.running:
                role.address.unlink(missing_ok=True)
                with role.log.open("ab") as log:
                    popen = subprocess.Popen(role.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                self.running[role.stage] = (role, popen)

    def kill(self, stage: str) -> None:
        """End a role as a power cut would (kill -9); `spawn` brings it back."""
        _, popen = self.running.pop(stage)
        popen.send_signal(signal.SIGKILL)
        popen.wait(_END_SECONDS)

    def stop(self) -> None:
        """Let the roles drain and end, the first in the chain first.

        Raises:
            TransientError: one did not, and was killed.
        """
        stubborn = []
        for role, popen in self.running.values():
            popen.terminate()
            try:
                popen.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()
                stubborn.append(role)
        self.running.clear()
        for role in stubborn:
            raise TransientError(f"{role.name} does not end", place=str(role.log))

    def check(self) -> None:
        """Make sure that every role runs.

        Raises:
            TransientError: one has ended; the message has its last words.
        """
        for role, popen in self.running.values():
            if popen.poll() is not None:
                raise TransientError(
                    f"{role.name} ended with {popen.returncode}: {last_lines(role.log)}", place=str(role.log)
                )

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far: each role's, and the servers'."""
        found = {stage: cpu_seconds(popen.pid) for stage, (_, popen) in self.running.items()}
        for site in (self._lab.home, self._lab.site(self._lab.embassies[0])):
            found[f"kafka {site.name}"] = cpu_seconds(site.kafka.pid or 0)
            found[f"postgres {site.name}"] = family_cpu_seconds(site.postgres.pid or 0)
        return found


def _only(lab: Lab, role: Role, registry: str) -> tuple[str, str]:
    """A bridge knows no names."""
    return "-r", lab.registries[registry].stream if role.stage == "bridge" else registry


def is_ready(role: Role) -> bool:
    """Whether a role says that it serves all its streams."""
    try:
        address = role.address.read_text(encoding="ascii").strip()
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, HTTPException):
        return False
