"""MirrorMaker 2 as a carrier."""

from __future__ import annotations

from pathlib import Path

from benchmarks.carrying import Carried, Load, carried, running
from benchmarks.java_clients import kafka_client, prefixed, properties
from benchmarks.java_programs import JavaPrograms
from deploy.lab.lab import Lab


class Mirror:
    """MirrorMaker 2, tuned for throughput; a fresh name each time, so that it begins at the topic's start."""

    name = "mirrormaker"

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._runs = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._programs = JavaPrograms.of(lab)
        self._jars = self._programs.connect

    def carry(self, topic: str, load: Load) -> Carried:
        """Carry a topic, whole."""
        self._runs += 1
        alias, lab = f"home{self._runs}", self._lab
        broker = lab.site(lab.embassies[0]).kafka
        settings: dict[str, str] = {
            "clusters": f"{alias}, there",
            **prefixed(f"{alias}.", kafka_client(lab.home.kafka, self._folder)),
            **prefixed("there.", kafka_client(broker, self._folder)),
            f"{alias}->there.enabled": "true",
            f"there->{alias}.enabled": "false",
            f"{alias}->there.topics": topic,
            "tasks.max": "1",
            "replication.factor": "1",
            "emit.heartbeats.enabled": "false",
            "emit.checkpoints.enabled": "false",
            "sync.topic.acls.enabled": "false",
            "sync.topic.configs.enabled": "true",
            "refresh.groups.enabled": "false",
            "refresh.topics.interval.seconds": "5",
            f"{alias}.consumer.fetch.max.bytes": "104857600",
            f"{alias}.consumer.max.partition.fetch.bytes": "52428800",
            f"{alias}.consumer.max.poll.records": "5000",
            "there.producer.acks": "all",
            "there.producer.batch.size": "1000000",
            "there.producer.linger.ms": "5",
            "there.producer.buffer.memory": "134217728",
            "there.producer.max.request.size": "1048588",
        }
        for kind in ("checkpoints", "heartbeats", "offset-syncs"):
            settings[f"{kind}.topic.replication.factor"] = "1"
        for kind in ("offset", "status", "config"):
            settings[f"{kind}.storage.replication.factor"] = "1"
        file = self._folder / "mm2.properties"
        file.write_text(properties(settings), encoding="utf-8")
        logging = broker.folder / "log4j2.xml"
        command = [
            str(self._programs.java), "-Xms256m", "-Xmx1g", f"-Dlog4j2.configurationFile={logging}",
            "-cp", f"{self._jars}/*", "org.apache.kafka.connect.mirror.MirrorMaker", str(file),
        ]  # fmt: skip
        with running(command, self._folder / "mm2.log") as popen:
            return carried(broker, f"{alias}.{topic}", load, popen)
