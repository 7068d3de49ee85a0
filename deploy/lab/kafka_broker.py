"""One real Kafka cluster of a single node (KRaft, broker and controller in one) on loopback ports."""

from __future__ import annotations

import base64
import signal
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.lab.artifacts import KafkaPrograms
from deploy.lab.ports import accepts, free_port
from deploy.lab.server import Server
from embassy.model.errors import ConfigurationError

ADMIN = "admin"
_BROKER = "broker"
_STOP_SECONDS = 20


@dataclass(frozen=True, slots=True)
class KafkaBroker(Server):
    """The broker of a site and the ways to connect to it."""

    title: ClassVar[str] = "Kafka"
    program: ClassVar[str] = "java"

    programs: Callable[[], KafkaPrograms]

    @property
    def log_dirs(self) -> tuple[Path, ...]:
        """The folders of the topics' and the metadata's files: all that the broker stores."""
        return (self.folder / "topics",)

    @property
    def last_argument(self) -> Path:
        """The broker's configuration."""
        return self.folder / "server.properties"

    @property
    def working_folder(self) -> Path:
        """The broker's folder."""
        return self.folder

    @property
    def bootstrap(self) -> str:
        """The address for clients."""
        return f"localhost:{self.port}"

    def client_config(self, role: str) -> dict[str, str | int | float | bool]:
        """The configuration of librdkafka for a role: mutual TLS, host name checked."""
        own = self.authority.client(role)
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": f"{role}-{self.site}",
            "security.protocol": "ssl",
            "ssl.ca.location": str(own.ca),
            "ssl.certificate.location": str(own.certificate),
            "ssl.key.location": str(own.key),
            "ssl.endpoint.identification.algorithm": "https",
        }

    def admin_client(self) -> AdminClient:
        """A client that may do anything on this cluster."""
        quiet = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "log_level": 0}
        return AdminClient({**self.client_config(ADMIN), **quiet})

    def prepare(self) -> None:
        """Write the broker's configuration and certificate, and format its folder if that was never done."""
        self.make_folder()
        self._issue_certificate()
        settings = "".join(f"{name}={value}\n" for name, value in self._settings().items())
        self.write(self.last_argument, settings)
        self.write(self._logging, (files("deploy.lab") / "kafka-log4j2.xml").read_text(encoding="utf-8"))
        if not (self.log_dirs[0] / "meta.properties").is_file():
            self._format()

    def relocate(self, taken: set[int]) -> None:
        """Choose other ports, for a broker that does not run."""
        port = free_port(taken)
        self.ledger.move(port, free_port({*taken, port}))

    def command(self) -> list[str | Path]:
        """A broker and controller in one."""
        return [*self._java(), "kafka.Kafka", self.last_argument]

    def answers(self, left_seconds: float) -> bool:
        """Whether a client gets the cluster's metadata."""
        if not accepts(self.port):
            return False
        try:
            return bool(self.admin_client().list_topics(timeout=min(5, left_seconds)).brokers)
        except KafkaException:
            return False

    def stop(self) -> None:
        """Shut down, cleanly if possible, and wait until the process is gone."""
        if daemon := self.daemon:
            daemon.send(signal.SIGCONT)
            daemon.ask(signal.SIGTERM, self.patience, _STOP_SECONDS)
        self.kill9()
        self.ledger.record(None)

    @property
    def _logging(self) -> Path:
        return self.folder / "log4j2.xml"

    def _java(self) -> list[str | Path]:
        programs = self.programs()
        logging = f"-Dlog4j2.configurationFile={self._logging}"
        return [programs.java, *programs.options, logging, "-cp", f"{programs.jars}/*"]

    def _settings(self) -> dict[str, str]:
        server = self.ledger.server
        controller = f"127.0.0.1:{server.controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENT",
            "listeners": f"CLIENT://127.0.0.1:{server.port},CONTROLLER://{controller}",
            "advertised.listeners": f"CLIENT://{self.bootstrap}",
            "listener.security.protocol.map": "CLIENT:SSL,CONTROLLER:SSL",
            "log.dirs": ",".join(map(str, self.log_dirs)),
            # Mutual TLS on both listeners. A valid certificate alone opens nothing: the common name is the
            # principal, and what a principal may do is in the access lists.
            "ssl.client.auth": "required",
            "ssl.enabled.protocols": "TLSv1.3",
            "ssl.protocol": "TLSv1.3",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.folder / "server.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.folder / "ca.pem"),
            "ssl.endpoint.identification.algorithm": "https",
            "ssl.principal.mapping.rules": r"RULE:^CN=([^,]+).*$/$1/,DEFAULT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": f"User:{ADMIN};User:{_BROKER}",
            "auto.create.topics.enable": "false",
            "num.partitions": "1",
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "message.max.bytes": "1048588",
            "log.retention.hours": "168",
            "unclean.leader.election.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            # The cleaner's default buffer alone is a third of the heap; it only compacts the broker's own topics here.
            "log.cleaner.dedupe.buffer.size": str(8 << 20),
            # A killed broker may register again only when the session of its predecessor has ended; 9 s by default.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "num.network.threads": "2",
            "num.io.threads": "4",
        }

    def _format(self) -> None:
        self.announce(f"{self.site} kafka", "formatting")
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode("ascii")
        tool = [*self._java(), "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        run = subprocess.run(
            [*tool, f"--cluster-id={cluster_id}", f"--config={self.last_argument}"],
            cwd=self.folder,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self.account.identity,
        )
        if run.returncode != 0:
            said = run.stdout.decode(errors="replace").strip().splitlines()
            raise ConfigurationError(f"Kafka cannot format: {' | '.join(said[-3:])}", place=str(self.folder))

    def _issue_certificate(self) -> None:
        ca = self.authority.ca.read_text(encoding="ascii")
        mine = self.folder / "ca.pem"
        if not mine.is_file() or mine.read_text(encoding="ascii") != ca:
            key, chain = self.authority.issue_server(_BROKER)
            self.write(self.folder / "server.pem", key + chain)
            self.write(mine, ca)
