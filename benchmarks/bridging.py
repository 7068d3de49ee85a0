"""``python -m benchmarks.bridging``: the bridge and MirrorMaker 2 on the same records of the same topic, in turn.

A signed chain is written to the home topic once. Then each carries it to the embassy's cluster, whose broker is reached
through a proxy that adds a round trip. What is timed lies between the first fifth of the records and the last one, as the
broker shows them, so that neither pays for its start; CPU time is the carrier's own process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.cimpl import NewTopic
from rich.console import Console

from benchmarks.machine import cpu_seconds
from benchmarks.stand import stand
from deploy.lab import role_configs
from deploy.lab.artifacts import KAFKA_VERSION, find_java
from deploy.lab.kafka_broker import ADMIN, KafkaBroker
from deploy.lab.lab import Lab
from deploy.lab.ports import accepts, free_port
from deploy.lab.roles import program
from embassy.model.errors import EmbassyError, TransientError
from embassy.runtime.exit_codes import exit_code
from embassy.wire.enrolment import load_enrolment
from embassy.wire.keyring import load_identity
from embassy.wire.public_keys import load_public_recipient
from embassy.wire.sealing import Sealer

_PROJECT = Path(__file__).parents[1]
_SHARE = 5
_CARRY_SECONDS = 600.0
_POLL_SECONDS = 0.02
_START_SECONDS = 90.0
_VERSION = "embassy.bench-bridging/1"


class Load(NamedTuple):
    """What is carried."""

    name: str
    record_bytes: int
    records: int

    @property
    def megabytes(self) -> float:
        return self.record_bytes * self.records / 1e6


LOADS = (Load("large", 250_000, 1600), Load("small", 2_000, 40_000))


class Carried(NamedTuple):
    """One carriage, of all but the first fifth of the records."""

    seconds: float
    megabytes: float
    records: int
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.megabytes / self.seconds


class _Line:
    """The embassy's broker behind a proxy with a round trip that can be changed."""

    def __init__(self, broker: KafkaBroker) -> None:
        self.port = free_port({broker.port})
        self._broker = broker
        self._processes: list[subprocess.Popen[bytes]] = []
        self._proxy: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start the broker anew: to its clients it is at the proxy's port."""
        broker = self._broker
        broker.stop()
        settings = broker.last_argument.read_text(encoding="utf-8")
        file = broker.folder / "behind-proxy.properties"
        file.write_text(
            settings.replace(
                f"advertised.listeners=CLIENT://{broker.bootstrap}",
                f"advertised.listeners=CLIENT://localhost:{self.port}",
            ),
            encoding="utf-8",
        )
        file.chmod(0o644)
        self.round_trip(0)
        command = [*map(str, broker.command()[:-1]), str(file)]
        with (broker.folder / "behind-proxy.log").open("wb") as log:
            popen = subprocess.Popen(
                command,
                cwd=broker.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **broker.account.identity,
            )
        self._processes.append(popen)
        _until(lambda: accepts(broker.port) and _lists(broker), "the broker behind the proxy answers")

    def round_trip(self, milliseconds: float) -> None:
        """Put another proxy in the place of the one there is."""
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait()
        self._proxy = subprocess.Popen(
            [
                sys.executable, "-m", "benchmarks.delay", "--port", str(self.port),
                "--target", str(self._broker.port), "--rtt-ms", str(milliseconds),
            ],
            cwd=_PROJECT,
        )  # fmt: skip
        _until(lambda: accepts(self.port), "the proxy listens")

    def close(self) -> None:
        for popen in [*self._processes, *([self._proxy] if self._proxy is not None else [])]:
            popen.terminate()
            popen.wait(30)


def _until(reached: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            raise TransientError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)


def _lists(broker: KafkaBroker) -> bool:
    try:
        return bool(broker.admin_client().list_topics(timeout=5).brokers)
    except KafkaException:
        return False


def _fill(lab: Lab, load: Load) -> str:
    """Write a chain to a home topic of its own registry; returns the topic."""
    registry = lab.registries[load.name]
    keys = [role_configs.public(role_configs.operator(lab.layout, person)) for person in role_configs.OPERATORS]
    enrolment = load_enrolment(
        role_configs.enrolment(lab.layout, registry.stream), operators=keys, threshold=2, stream=registry.stream
    )
    recipient = load_public_recipient(role_configs.public(role_configs.recipient(lab.layout, lab.embassies[0])))
    sealer = Sealer(load_identity(role_configs.identity(lab.layout)), enrolment, [recipient])
    _make_topic(lab.home.kafka, registry.topic)
    producer = Producer(
        {**lab.home.kafka.client_config("producer"), "acks": "all", "message.max.bytes": 1_000_000}
    )
    value, head = sealer.key_record(enrolment.genesis(), system_identifier=1, timeline=1)
    producer.produce(registry.topic, value, partition=0)
    body = os.urandom(load.record_bytes)
    for _ in range(load.records):
        for sealed in sealer.data_records(head, body, head.resume_lsn, 900_000):
            head = sealed.head
            while True:
                try:
                    producer.produce(registry.topic, sealed.value, partition=0)
                    break
                except BufferError:
                    producer.poll(0.1)
    if producer.flush(120):
        raise TransientError("the home topic could not be filled")
    return registry.topic


def _make_topic(broker: KafkaBroker, topic: str) -> None:
    admin = broker.admin_client()
    if topic in admin.list_topics(timeout=30).topics:
        admin.delete_topics([topic])[topic].result(30)
        _until(lambda: topic not in admin.list_topics(timeout=30).topics, "the topic is gone")
    config = {"max.message.bytes": "1048588", "retention.ms": "-1"}
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(30)


def _carried(broker: KafkaBroker, topic: str, load: Load, popen: subprocess.Popen[bytes]) -> Carried:
    """Wait until all has come, and take the time from the first fifth on."""
    watcher = Consumer({**broker.client_config(ADMIN), "group.id": "watch", "log_level": 0})
    total = load.records + 1
    begun: tuple[float, int, float] | None = None
    end = time.monotonic() + _CARRY_SECONDS
    try:
        while True:
            if popen.poll() is not None:
                raise TransientError(f"the carrier ended with {popen.returncode}")
            try:
                _, high = watcher.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
            except KafkaException:
                high = 0  # MirrorMaker makes the topic itself
            now, cpu = time.monotonic(), cpu_seconds(popen.pid)
            if begun is None and high * _SHARE >= total:
                begun = (now, high, cpu)
            if high >= total and begun is not None:
                records = high - begun[1]
                return Carried(now - begun[0], records * load.record_bytes / 1e6, records, cpu - begun[2])
            if now > end:
                raise TransientError(f"only {high} of {total} records came within {_CARRY_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)
    finally:
        watcher.close()


class _Ours:
    """The bridge."""

    name = "bridge"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def carry(self, topic: str, load: Load) -> Carried:
        lab = self._lab
        broker = lab.site(lab.embassies[0]).kafka
        _make_topic(broker, topic)
        config = role_configs.bridge_config(lab.layout, lab.embassies[0])
        log = lab.layout.home / "bench-bridge.log"
        with _running(
            [*program(), "-c", str(config), "-r", topic.removeprefix("s-"), "bridge", "run"], log
        ) as popen:
            return _carried(broker, topic, load, popen)


class _Mirror:
    """MirrorMaker 2, tuned for throughput; a fresh name each time, so that it begins at the topic's start."""

    name = "mirrormaker"

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._runs = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._jars = _mirror_jars(lab)

    def carry(self, topic: str, load: Load) -> Carried:
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
        with _running(command, self._folder / "mm2.log") as popen:
            return _carried(broker, f"{alias}.{topic}", load, popen)


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


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield popen
    finally:
        popen.send_signal(signal.SIGTERM)
        try:
            popen.wait(20)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def _result(runs: list[Carried]) -> dict[str, float]:
    return {
        "mb_per_second": round(statistics.median(run.rate for run in runs), 1),
        "records_per_second": round(statistics.median(run.records / run.seconds for run in runs)),
        "cpu_ms_per_mb": round(statistics.median(1000 * run.cpu_seconds / run.megabytes for run in runs), 2),
        "cpu_us_per_record": round(statistics.median(1e6 * run.cpu_seconds / run.records for run in runs), 1),
    }


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rtt-ms", "round_trips", type=float, multiple=True, help="Default 0, 50 and 200.")
@click.option(
    "--load", "loads", type=click.Choice([load.name for load in LOADS]), multiple=True, help="Default all."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), envvar="BENCH_JSON", help="Where results go."
)
def main(*, rounds: int, round_trips: tuple[float, ...], loads: tuple[str, ...], json_file: Path | None) -> None:
    """Measure both carriers with each load and round trip, in turn."""
    said = Console(stderr=True, log_path=False, highlight=False)
    chosen = [load for load in LOADS if not loads or load.name in loads]
    found: list[dict[str, Any]] = []
    try:
        with ExitStack() as stack:
            lab = stack.enter_context(
                stand(
                    lambda subject, stage: said.log(f"{subject}: {stage}"), keep=False, registries="bridging.toml"
                )
            )
            broker = lab.site(lab.embassies[0]).kafka
            line = _Line(broker)
            stack.callback(line.close)
            line.open()
            carriers = (_Ours(lab), _Mirror(lab, lab.layout.home / "mirror"))
            topics = {}
            for load in chosen:
                said.log(f"{load.name}: {load.records} records of {load.record_bytes} B, {load.megabytes:.0f} MB")
                topics[load.name] = _fill(lab, load)
            for milliseconds in round_trips or (0.0, 50.0, 200.0):
                line.round_trip(milliseconds)
                for load in chosen:
                    runs: dict[str, list[Carried]] = {carrier.name: [] for carrier in carriers}
                    for _ in range(rounds):
                        for carrier in carriers:
                            run = carrier.carry(topics[load.name], load)
                            runs[carrier.name].append(run)
                            said.log(f"rtt {milliseconds:g} ms, {load.name}, {carrier.name}: {run.rate:.1f} MB/s")
                    results = {name: _result(some) for name, some in runs.items()}
                    ratio = results["bridge"]["mb_per_second"] / results["mirrormaker"]["mb_per_second"]
                    found.append({"rtt_ms": milliseconds, "load": load.name, **results, "ratio": round(ratio, 2)})
    except EmbassyError as error:
        said.print(f"error: {error}", highlight=False, markup=False)
        sys.exit(exit_code(error))
    text = json.dumps({"schema": _VERSION, "rounds": rounds, "results": found}, indent=2)
    if json_file is not None:
        json_file.write_text(text + "\n", encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
