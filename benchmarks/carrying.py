"""What is carried between two clusters in a benchmark, and how a carrier's rate is taken."""

from __future__ import annotations

import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.cimpl import NewTopic

from benchmarks.machine import cpu_seconds
from deploy.lab.kafka_broker import ADMIN, KafkaBroker
from embassy.model.errors import TransientError

_SHARE = 5
_CARRY_SECONDS = 600.0
_POLL_SECONDS = 0.02
_START_SECONDS = 300.0


class Load(NamedTuple):
    """What is carried."""

    name: str
    record_bytes: int
    records: int

    @property
    def megabytes(self) -> float:
        """Of all records."""
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
        """MB a second."""
        return self.megabytes / self.seconds


def until(reached: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
    """Wait for something.

    Raises:
        TransientError: it did not come about in time.
    """
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            raise TransientError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)


def make_topic(broker: KafkaBroker, topic: str) -> None:
    """Make an empty topic of one partition, in the place of the one there is."""
    admin = broker.admin_client()
    if topic in admin.list_topics(timeout=30).topics:
        admin.delete_topics([topic])[topic].result(30)
        until(lambda: topic not in admin.list_topics(timeout=30).topics, "the topic is gone")
    config = {"max.message.bytes": "1048588", "retention.ms": "-1"}
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(30)


def carried(broker: KafkaBroker, topic: str, load: Load, popen: subprocess.Popen[bytes]) -> Carried:
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


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process, while the context is entered."""
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


def result(runs: list[Carried]) -> dict[str, float]:
    """The medians of some carriages."""
    return {
        "mb_per_second": round(statistics.median(run.rate for run in runs), 1),
        "records_per_second": round(statistics.median(run.records / run.seconds for run in runs)),
        "cpu_ms_per_mb": round(statistics.median(1000 * run.cpu_seconds / run.megabytes for run in runs), 2),
        "cpu_us_per_record": round(statistics.median(1e6 * run.cpu_seconds / run.records for run in runs), 1),
    }
