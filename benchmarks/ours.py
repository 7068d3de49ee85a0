"""data-embassy as a contestant: one producer, one bridge, one consumer, two Kafka clusters."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contestant import Contestant
from benchmarks.fleet import Fleet
from benchmarks.machine import cpu_seconds, peak_rss_mb, rss_mb
from deploy.demo.provisioning import provision
from deploy.lab.kafka_broker import KafkaBroker
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

    def cpu_seconds(self) -> dict[str, float]:
        """Roles, brokers and databases."""
        return {
            **{stage: cpu_seconds(running.pid) for stage, (_, running) in self._fleet.running.items()},
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

    def address(self, stage: str) -> Path:
        """The file that says where a role tells its metrics."""
        return next(role.address for role in self._fleet.roles if role.stage == stage)

    def rss_mb(self) -> dict[str, float]:
        """What the roles have resident now."""
        return {stage: rss_mb(running.pid) for stage, (_, running) in self._fleet.running.items()}

    def peak_rss_mb(self) -> dict[str, float]:
        """Of the roles."""
        return {stage: peak_rss_mb(running.pid) for stage, (_, running) in self._fleet.running.items()}

    @property
    def _brokers(self) -> tuple[KafkaBroker, KafkaBroker]:
        return self._lab.home.kafka, self._lab.site(self._lab.embassies[0]).kafka
