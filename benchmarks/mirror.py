"""MirrorMaker 2 as a carrier."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from benchmarks.carrying import Carried, Load, carried, running
from deploy.lab.artifacts import KAFKA_VERSION, find_java
from deploy.lab.kafka_broker import ADMIN, KafkaBroker
from deploy.lab.lab import Lab


class Mirror:
    """MirrorMaker 2, tuned for throughput; a fresh name each time, so that it begins at the topic's start."""

    name = "mirrormaker"

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._runs = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._jars = _mirror_jars(lab)

    def carry(self, topic: str, load: Load) -> Carried:
        """Carry a topic, whole."""
        self._runs += 1
        alias, lab = f"home{self._runs}", self._lab
        broker = lab.site(lab.embassies[0]).kafka
        settings: dict[str, str] = {
            "clusters": f"{alias}, there",
            **_ssl(alias, lab.home.kafka, self._folder),
            **_ssl("there", broker, self._folder),
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
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
        logging = broker.folder / "log4j2.xml"
        command = [
            str(find_java(broker.account)), "-Xms256m", "-Xmx1g", f"-Dlog4j2.configurationFile={logging}",
            "-cp", f"{self._jars}/*", "org.apache.kafka.connect.mirror.MirrorMaker", str(file),
        ]  # fmt: skip
        with running(command, self._folder / "mm2.log") as popen:
            return carried(broker, f"{alias}.{topic}", load, popen)


def _ssl(alias: str, broker: KafkaBroker, folder: Path) -> dict[str, str]:
    own = broker.authority.client(ADMIN)
    store = folder / f"{broker.site}.pem"
    store.touch(0o600)
    store.write_text(own.key.read_text() + own.certificate.read_text())
    return {
        f"{alias}.bootstrap.servers": broker.bootstrap,
        f"{alias}.security.protocol": "SSL",
        f"{alias}.ssl.keystore.type": "PEM",
        f"{alias}.ssl.keystore.location": str(store),
        f"{alias}.ssl.truststore.type": "PEM",
        f"{alias}.ssl.truststore.location": str(own.ca),
    }


def _mirror_jars(lab: Lab) -> Path:
    """MirrorMaker's jars beside the lab's servers, fetched once."""
    kept = lab.layout.cache / f"mirror-{KAFKA_VERSION}"
    if not kept.is_dir():
        scratch = kept.with_suffix(".new")
        subprocess.run(
            [
                shutil.which("mvn") or "mvn", "-q", "-B", "-f", str(Path(__file__).with_name("mirror-pom.xml")),
                f"-Dkafka.version={KAFKA_VERSION}", "dependency:copy-dependencies", "-DincludeScope=runtime",
                f"-DoutputDirectory={scratch}",
            ],
            check=True,
        )  # fmt: skip
        scratch.rename(kept)
    return kept
