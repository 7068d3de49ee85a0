"""One real Kafka cluster of a single node (KRaft, broker and controller in one) on loopback ports."""

from __future__ import annotations

import base64
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.lab.account import Account
from deploy.lab.artifacts import KafkaPrograms
from deploy.lab.certificates import Authority, now_utc
from deploy.lab.daemons import Daemon, last_lines, running_with, spawn
from deploy.lab.ports import accepts, free_port
from deploy.lab.state import Ledger
from deploy.lab.waiting import Announce, Patience
from embassy.model.errors import ConfigurationError, TransientError

ADMIN = "admin"
_BROKER = "broker"
_START_SECONDS = 60
_JVM = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")


@dataclass(frozen=True, slots=True)
class KafkaBroker:
    """The broker of a site: its folder, its process and the ways to connect to it.

    Attributes:
        site: the site's name, for messages.
        folder: everything the broker writes.
        authority: signs the broker's certificate and those of the roles.
    """

    site: str
    folder: Path
    authority: Authority
    ledger: Ledger
    account: Account
    patience: Patience
    announce: Announce
    programs: Callable[[], KafkaPrograms]

    @property
    def log_dirs(self) -> tuple[Path, ...]:
        """The folders of the topics' and the metadata's files: all that the broker stores."""
        return (self.folder / "topics",)

    @property
    def log(self) -> Path:
        """The broker's log."""
        return self.folder / "server.log"

    @property
    def properties(self) -> Path:
        """The broker's configuration."""
        return self.folder / "server.properties"

    @property
    def bootstrap(self) -> str:
        """The address for clients."""
        return f"localhost:{self.port}"

    @property
    def port(self) -> int:
        """Where it listens for clients."""
        return self.ledger.server.port

    @property
    def pid(self) -> int | None:
        """The broker's process id, running or not; None if it was stopped."""
        return self.ledger.server.pid

    @property
    def alive(self) -> bool:
        """Whether the broker's process runs."""
        return self._daemon() is not None

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
        self.folder.mkdir(parents=True, exist_ok=True)
        self.account.own(self.folder)
        self._issue_certificate()
        self._write("server.properties", "".join(f"{name}={value}\n" for name, value in self._settings().items()))
        if not (self.log_dirs[0] / "meta.properties").is_file():
            self._format()

    def relocate(self, taken: set[int]) -> None:
        """Choose other ports, for a broker that does not run."""
        port = free_port(taken)
        self.ledger.move(port, free_port({*taken, port}))

    def start(self, limit_seconds: float = _START_SECONDS) -> None:
        """Start the broker and wait until it answers; one that runs already is kept.

        Raises:
            TransientError: it does not answer within the limit; the message has the log's last lines.
        """
        if not self.alive:
            programs = self.programs()
            argv = [*self._java(programs), "kafka.Kafka", self.properties]
            daemon = spawn(argv, account=self.account, folder=self.folder, log=self.log)
            self.ledger.record(daemon)
        self.wait_ready(limit_seconds)

    def wait_ready(self, limit_seconds: float = _START_SECONDS) -> None:
        """Wait until the broker serves its clients.

        Raises:
            TransientError: it does not within the limit, or its process ended.
        """
        client: AdminClient | None = None
        for left in self.patience.looks(limit_seconds):
            if accepts(self.port):
                client = client or self.admin_client()
                if self._serves(client, left):
                    return
            elif not self.alive:
                raise TransientError(f"Kafka of {self.site} ended: {last_lines(self.log)}", place=str(self.log))
        raise TransientError(
            f"Kafka of {self.site} does not answer after {limit_seconds:g} s: {last_lines(self.log)}",
            place=str(self.log),
        )

    def stop(self) -> None:
        """Shut down, cleanly if possible, and wait until the process is gone."""
        daemon = self._daemon()
        if daemon is not None:
            daemon.signal(signal.SIGCONT)
            daemon.signal(signal.SIGTERM)
            try:
                daemon.wait_gone(self.patience, 20)
            except TransientError:
                daemon.cut_power(self.patience)
        self.ledger.record(None)

    def kill9(self) -> None:
        """End the broker as a power cut would."""
        daemon = self._daemon()
        if daemon is not None:
            daemon.cut_power(self.patience)

    def erase(self) -> None:
        """Remove everything a stopped broker wrote."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _daemon(self) -> Daemon | None:
        daemon = self.ledger.server.daemon
        if daemon is not None and daemon.alive:
            return daemon
        return running_with("java", str(self.properties))

    def _java(self, programs: KafkaPrograms) -> list[str | Path]:
        logging = files("deploy.lab") / "kafka-log4j2.xml"
        configured = self._write("log4j2.xml", logging.read_text(encoding="utf-8"))
        return [programs.java, *_JVM, f"-Dlog4j2.configurationFile={configured}", "-cp", f"{programs.jars}/*"]

    def _serves(self, client: AdminClient, left_seconds: float) -> bool:
        try:
            return bool(client.list_topics(timeout=min(5, left_seconds)).brokers)
        except KafkaException:
            return False

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
            "num.network.threads": "2",
            "num.io.threads": "4",
        }

    def _format(self) -> None:
        self.announce(f"{self.site} kafka", "formatting")
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode("ascii")
        _run_tool(
            [
                *self._java(self.programs()),
                "kafka.tools.StorageTool", "format", "--ignore-formatted",
                f"--cluster-id={cluster_id}", f"--config={self.properties}",
            ],
            self.account,
            self.folder,
        )  # fmt: skip

    def _issue_certificate(self) -> None:
        ca = self.authority.ca.read_bytes()
        mine = self.folder / "ca.pem"
        if mine.is_file() and mine.read_bytes() == ca and self.authority.is_current(now_utc()):
            return
        key, chain = self.authority.issue_server(_BROKER)
        self._write("server.pem", (key + chain).decode("ascii"))
        self._write("ca.pem", ca.decode("ascii"))

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(text, encoding="utf-8")
        self.account.own(path)
        return path


def _run_tool(argv: list[str | Path], account: Account, folder: Path) -> str:
    """Run one of Kafka's tools to its end.

    Raises:
        ConfigurationError: it failed; the message has its last lines.
    """
    run = subprocess.run(
        argv,
        cwd=folder,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **account.identity,
    )
    said = run.stdout.decode(errors="replace").strip()
    if run.returncode != 0:
        raise ConfigurationError(f"Kafka's tool failed: {' | '.join(said.splitlines()[-3:])}", place=str(folder))
    return said
