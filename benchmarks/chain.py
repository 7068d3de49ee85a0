"""What a user would build of other people's parts, as a contestant.

Debezium, Kafka at home, MirrorMaker 2, Kafka in the embassy, Debezium's JDBC sink. The brokers and the databases are the
servers that everyone uses.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import chain_settings, marks
from benchmarks.contestant import LEVEL_SECONDS, Contestant
from benchmarks.java_clients import kafka_client, postgres_client, properties
from benchmarks.java_programs import JavaPrograms
from benchmarks.jvm import Jvm, Worker
from benchmarks.machine import cpu_seconds, peak_rss_mb
from benchmarks.workloads import Connection
from deploy.lab.databases import OWNER, PRODUCER
from deploy.lab.lab import Lab
from deploy.lab.ports import free_port
from embassy.model.errors import TransientError

NAME = chain_settings.NAME
SOURCE, MIRROR, SINK, REGISTRY = "debezium source", "mirrormaker", "debezium sink", "schema registry"
_HEAP = {SOURCE: "2g", MIRROR: "1g", SINK: "2g", REGISTRY: "512m"}
_LOOK_SECONDS = 0.005
_CHECK_SECONDS = 5.0
_START_SECONDS = 60.0
_MARKED_PERSON = "30000000001"


class Chain(Contestant):
    """Each part in a process of its own, connected by the same mutual TLS as the others.

    Its JVMs compile what they run often, so what is measured comes after a round that is not. Whether its tables end
    equal is a result and not a condition: it promises less.
    """

    warms_up = True
    vouches = False

    def __init__(self, lab: Lab) -> None:
        super().__init__(NAME, lab, NAME)
        self._folder = lab.layout.roles / NAME
        self._programs = JavaPrograms.of(lab)
        self._workers: list[Worker] = []
        self._jvms: dict[str, Jvm] = {}

    def start(self) -> None:
        """Make the databases, publish, and start every part."""
        self.make_databases()
        with self.source() as source:
            source.execute(f"CREATE PUBLICATION {NAME} FOR TABLE {', '.join(chain_settings.TABLES)}")
        self._folder.mkdir(parents=True, exist_ok=True)
        ports: set[int] = set()
        for _ in range(4):
            ports.add(free_port(ports))
        registry_port, *worker_ports = ports
        registry = f"http://127.0.0.1:{registry_port}"
        jvm = self._jvm(REGISTRY)
        jvm.start(
            "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={registry_port}", "-jar",
            str(self._programs.registry),
        )  # fmt: skip
        jvm.await_port(registry_port)
        home, embassy = (kafka_client(broker, self._folder) for broker in self.brokers)
        connectors = {
            SOURCE: [
                chain_settings.source(
                    port=self.home.port,
                    user=PRODUCER,
                    tls=postgres_client(self.home, PRODUCER, self._folder),
                    registry=registry,
                )
            ],
            MIRROR: [chain_settings.mirror(home, embassy)],
            SINK: chain_settings.sinks(
                port=self.abroad.port,
                user=OWNER,
                tls=postgres_client(self.abroad, OWNER, self._folder),
                registry=registry,
            ),
        }
        for (name, settings), port in zip(connectors.items(), worker_ports, strict=True):
            self._start_worker(name, home if name == SOURCE else embassy, port, settings)
        for worker in self._workers:
            worker.await_running()
        self.await_sender(_START_SECONDS)

    def stop(self) -> None:
        """End every part, the last first; nothing is to be carried any more."""
        for jvm in reversed(self._jvms.values()):
            jvm.send(signal.SIGCONT)
            jvm.send(signal.SIGTERM)
        for jvm in self._jvms.values():
            jvm.stop()

    def check(self) -> None:
        """Make sure that no process and no task has ended."""
        for jvm in self._jvms.values():
            jvm.check()
        for worker in self._workers:
            worker.check()

    def own_cpu_seconds(self) -> dict[str, float]:
        """Of every part."""
        return {name: cpu_seconds(jvm.pid) for name, jvm in self._jvms.items()}

    def set_aside(self) -> None:
        """Freeze every part too: idle JVMs poll, and others would pay for it."""
        super().set_aside()
        for jvm in self._jvms.values():
            jvm.send(signal.SIGSTOP)

    def let_go(self) -> None:
        """Thaw every part, and let the sender go on."""
        for jvm in self._jvms.values():
            jvm.send(signal.SIGCONT)
        super().let_go()

    def hop_bytes(self) -> dict[str, int]:
        """What the brokers store of the tables' topics."""
        return self.topic_bytes([chain_settings.topic(table) for table in chain_settings.TABLES])

    def peak_rss_mb(self) -> dict[str, float]:
        """Of the chain's own processes."""
        return {name: peak_rss_mb(jvm.pid) for name, jvm in self._jvms.items()}

    def send_mark(self, source: Connection) -> int:
        """Write a mark into every table: each travels by itself, and the last change of one says nothing of others."""
        with source.transaction():
            number = marks.send(source)
            words = _words(number)
            source.execute("UPDATE person SET residence = %s WHERE personal_code = %s", (words, _MARKED_PERSON))
            source.execute("UPDATE property SET owner = %s WHERE id = 1", (words,))
        return number

    def await_mark(self, replica: Connection, mark: int) -> float:
        """Wait until every table shows a mark."""
        begun = checked = time.perf_counter()
        while True:
            there = _shown(replica, mark)
            now = time.perf_counter()
            if there:
                return now
            if now > checked + _CHECK_SECONDS:
                self.check()
                checked = now
            if now > begun + LEVEL_SECONDS:
                raise TransientError(f"{self.name}: mark {mark} is not in the replica after {LEVEL_SECONDS:g} s")
            time.sleep(_LOOK_SECONDS)

    def _jvm(self, name: str) -> Jvm:
        logging = self.brokers[0].folder / "log4j2.xml"
        jvm = Jvm(name, self._programs.java, heap=_HEAP[name], logging=logging, folder=self._folder)
        self._jvms[name] = jvm
        return jvm

    def _start_worker(
        self, name: str, client: Mapping[str, str], port: int, connectors: list[dict[str, str]]
    ) -> None:
        settings = chain_settings.worker(
            client,
            port=port,
            plugins=self._programs.plugins,
            offsets=str(self._folder / f"{connectors[0]['name']}.offsets"),
            compression="zstd" if name == MIRROR else "lz4",
        )
        worker = Worker(self._jvm(name), port, len(connectors))
        self._workers.append(worker)
        files = [self._written(f"{connector['name']}.properties", connector) for connector in connectors]
        worker.start(
            self._programs.connect, self._written(f"{name.replace(' ', '-')}.properties", settings), files
        )

    def _written(self, name: str, settings: Mapping[str, str]) -> Path:
        file = self._folder / name
        file.write_text(properties(settings), encoding="utf-8")
        return file


def _words(mark: int) -> str:
    return f"mark {mark}"


def _shown(replica: Connection, mark: int) -> bool:
    row = replica.execute(
        """
        SELECT EXISTS (SELECT FROM public.mark WHERE id = %s)
           AND EXISTS (SELECT FROM public.person WHERE personal_code = %s AND residence = %s)
           AND EXISTS (SELECT FROM public.property WHERE id = 1 AND owner = %s)""",
        (mark, _MARKED_PERSON, _words(mark), _words(mark)),
        prepare=True,
    ).fetchone()
    return row is not None and bool(row[0])
