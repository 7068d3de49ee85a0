"""data-embassy as a contestant: one producer, one bridge, one consumer, two Kafka clusters."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from http.client import HTTPException

from benchmarks.contestant import Contestant
from benchmarks.machine import cpu_seconds, peak_rss_mb
from deploy.demo.provisioning import provision
from deploy.lab.daemons import last_lines
from deploy.lab.kafka_broker import KafkaBroker
from deploy.lab.lab import Lab
from deploy.lab.roles import Role, roles
from embassy.model.errors import TransientError

NAME = "ours"
_READY_SECONDS = 60.0
_DRAIN_SECONDS = 30.0


class Ours(Contestant):
    """The three roles as processes of their own, with the configuration that the lab gives them."""

    def __init__(self, lab: Lab) -> None:
        registry = lab.registries[NAME]
        super().__init__(NAME, lab, f"embassy_{registry.stream}")
        self._topic = registry.topic
        self._roles = roles(lab.layout, lab.state)
        self._running: dict[str, tuple[Role, subprocess.Popen[bytes]]] = {}

    def start(self) -> None:
        """Provision, start the roles and wait until each says that it is ready."""
        provision(self._lab)
        self._lab.layout.roles.mkdir(parents=True, exist_ok=True)
        for role in self._roles:
            role.address.unlink(missing_ok=True)
            with role.log.open("wb") as log:
                running = subprocess.Popen(
                    role.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ)
                )
            self._running[role.stage] = (role, running)
        end = time.monotonic() + _READY_SECONDS
        for role, _ in self._running.values():
            while not is_ready(role):
                self.check()
                if time.monotonic() > end:
                    raise TransientError(f"{role.name} is not ready: {last_lines(role.log)}", place=str(role.log))
                time.sleep(0.05)

    def stop(self) -> None:
        """Let the roles drain and end, the first in the chain first."""
        for role, running in self._running.values():
            running.terminate()
            try:
                running.wait(_DRAIN_SECONDS)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
                raise TransientError(f"{role.name} does not end", place=str(role.log)) from None
        self._running.clear()

    def check(self) -> None:
        """Make sure that every role runs."""
        for role, running in self._running.values():
            if running.poll() is not None:
                raise TransientError(
                    f"{role.name} ended with {running.returncode}: {last_lines(role.log)}", place=str(role.log)
                )

    def cpu_seconds(self) -> dict[str, float]:
        """Roles, brokers and databases."""
        return {
            **{stage: cpu_seconds(running.pid) for stage, (_, running) in self._running.items()},
            "kafka home": cpu_seconds(self._brokers[0].pid or 0),
            "kafka embassy": cpu_seconds(self._brokers[1].pid or 0),
            **super().cpu_seconds(),
        }

    def hop_bytes(self) -> dict[str, int]:
        """What the brokers store of the stream: all that travels, Kafka's own framing included."""
        return {
            hop: sum(
                file.stat().st_size for folder in broker.log_dirs for file in folder.glob(f"{self._topic}-0/*.log")
            )
            for hop, broker in zip(("home topic", "foreign topic"), self._brokers, strict=True)
        }

    def peak_rss_mb(self) -> dict[str, float]:
        """Of the roles."""
        return {stage: peak_rss_mb(running.pid) for stage, (_, running) in self._running.items()}

    @property
    def _brokers(self) -> tuple[KafkaBroker, KafkaBroker]:
        return self._lab.home.kafka, self._lab.site(self._lab.embassies[0]).kafka


def is_ready(role: Role) -> bool:
    """Whether a role says that it serves all its streams."""
    try:
        address = role.address.read_text(encoding="ascii").strip()
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, HTTPException):
        return False
