"""data-embassy as a contestant: one producer, one bridge, one consumer, two Kafka clusters."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contestant import Contestant
from benchmarks.fleet import Fleet
from benchmarks.machine import cpu_seconds, peak_rss_mb, rss_mb
from deploy.demo.provisioning import provision
from deploy.lab.lab import Lab

NAME = "ours"


class Ours(Contestant):
    """The three roles as processes of their own, with the configuration that the lab gives them."""

    def __init__(self, lab: Lab) -> None:
        registry = lab.registries[NAME]
        super().__init__(NAME, lab, f"embassy_{registry.stream}")
        self._topic = registry.topic
        self._fleet = Fleet(lab)

    def start(self) -> None:
        """Provision, start the roles and wait until each says that it is ready."""
        provision(self._lab)
        self._fleet.start()

    def stop(self) -> None:
        """Let the roles drain and end."""
        self._fleet.stop()

    def check(self) -> None:
        """Make sure that every role runs."""
        self._fleet.check()

    def own_cpu_seconds(self) -> dict[str, float]:
        """Of the roles."""
        return {stage: cpu_seconds(running.pid) for stage, (_, running) in self._fleet.running.items()}

    def hop_bytes(self) -> dict[str, int]:
        """What the brokers store of the stream."""
        return self.topic_bytes([self._topic])

    def address(self, stage: str) -> Path:
        """The file that says where a role tells its metrics."""
        return next(role.address for role in self._fleet.roles if role.stage == stage)

    def rss_mb(self) -> dict[str, float]:
        """What the roles have resident now."""
        return {stage: rss_mb(running.pid) for stage, (_, running) in self._fleet.running.items()}

    def peak_rss_mb(self) -> dict[str, float]:
        """Of the roles."""
        return {stage: peak_rss_mb(running.pid) for stage, (_, running) in self._fleet.running.items()}
