"""``python -m benchmarks.bridging``: the bridge and MirrorMaker 2 on the same records of the same topic, in turn.

A signed chain is written to the home topic once. Then each carries it to the embassy's cluster, whose broker is reached
through a proxy that adds a round trip. What is timed lies between the first fifth of the records and the last one, as the
broker shows them, so that neither pays for its start; CPU time is the carrier's own process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import click
from confluent_kafka import KafkaException, Producer
from rich.console import Console

from benchmarks.carrying import LOADS, Carried, Load, carried, make_topic, result, running, until
from benchmarks.mirror import Mirror
from benchmarks.results import give_up, tell
from benchmarks.stand import stand
from deploy.lab import role_configs
from deploy.lab.kafka_broker import KafkaBroker
from deploy.lab.lab import Lab
from deploy.lab.ports import accepts, free_port
from deploy.lab.roles import program
from embassy.model.errors import EmbassyError, TransientError
from embassy.wire.enrolment import load_enrolment
from embassy.wire.keyring import load_identity
from embassy.wire.public_keys import load_public_recipient
from embassy.wire.sealing import Sealer

_PROJECT = Path(__file__).parents[1]
_VERSION = "embassy.bench-bridging/1"


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
        self.becomes(0, 0)
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
        until(lambda: accepts(broker.port) and _lists(broker), "the broker behind the proxy answers")

    def becomes(self, milliseconds: float, loss: float) -> None:
        """Put another proxy in the place of the one there is: its round trip, and the share of packets that it drops."""
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait()
        self._proxy = subprocess.Popen(
            [
                sys.executable, "-m", "benchmarks.delay", "--port", str(self.port),
                "--target", str(self._broker.port), "--rtt-ms", str(milliseconds), "--loss", str(loss),
            ],
            cwd=_PROJECT,
        )  # fmt: skip
        until(lambda: accepts(self.port), "the proxy listens")

    def close(self) -> None:
        for popen in [*self._processes, *([self._proxy] if self._proxy is not None else [])]:
            popen.terminate()
            popen.wait(30)


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
    make_topic(lab.home.kafka, registry.topic)
    producer = Producer(
        {**lab.home.kafka.client_config("producer"), "acks": "all", "message.max.bytes": 1_000_000}
    )
    value, head = sealer.key_record(enrolment.genesis(), bytes(16), system_identifier=1, timeline=1)
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


class _Ours:
    """The bridge."""

    name = "bridge"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def carry(self, topic: str, load: Load) -> Carried:
        lab = self._lab
        broker = lab.site(lab.embassies[0]).kafka
        make_topic(broker, topic)
        config = role_configs.bridge_config(lab.layout, lab.embassies[0])
        log = lab.layout.home / "bench-bridge.log"
        with running(
            [*program(), "-c", str(config), "-r", topic.removeprefix("s-"), "bridge", "run"], log
        ) as popen:
            return carried(broker, topic, load, popen)


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rtt-ms", "round_trips", type=float, multiple=True, help="Default 0, 50 and 200.")
@click.option(
    "--loss",
    "losses",
    type=click.FloatRange(0, 0.5),
    multiple=True,
    help="Share of packets lost each way, 0.01 for 1 %; repeatable, default 0. More than that needs root.",
)
@click.option(
    "--load", "loads", type=click.Choice([load.name for load in LOADS]), multiple=True, help="Default all."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), envvar="BENCH_JSON", help="Where results go."
)
def main(
    *,
    rounds: int,
    round_trips: tuple[float, ...],
    losses: tuple[float, ...],
    loads: tuple[str, ...],
    json_file: Path | None,
) -> None:
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
            carriers = (_Ours(lab), Mirror(lab, lab.layout.roles / "mirror"))
            topics = {}
            for load in chosen:
                said.log(f"{load.name}: {load.records} records of {load.record_bytes} B, {load.megabytes:.0f} MB")
                topics[load.name] = _fill(lab, load)
            for milliseconds, loss in product(round_trips or (0.0, 50.0, 200.0), losses or (0.0,)):
                line.becomes(milliseconds, loss)
                for load in chosen:
                    runs: dict[str, list[Carried]] = {carrier.name: [] for carrier in carriers}
                    for _ in range(rounds):
                        for carrier in carriers:
                            run = carrier.carry(topics[load.name], load)
                            runs[carrier.name].append(run)
                            said.log(
                                f"rtt {milliseconds:g} ms, loss {loss:g}, {load.name}, {carrier.name}: "
                                f"{run.rate:.1f} MB/s"
                            )
                    results = {name: result(some) for name, some in runs.items()}
                    ratio = results["bridge"]["mb_per_second"] / results["mirrormaker"]["mb_per_second"]
                    found.append(
                        {
                            "rtt_ms": milliseconds,
                            "loss": loss,
                            "load": load.name,
                            **results,
                            "ratio": round(ratio, 2),
                        }
                    )
    except EmbassyError as error:
        give_up(said, error)
    tell({"schema": _VERSION, "rounds": rounds, "results": found}, json_file)


if __name__ == "__main__":
    main()
