"""Topics of the lab's clusters, and clients that write and read them without the product."""

from __future__ import annotations

import time
import uuid
from typing import Any, Protocol

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined] # re-exported without saying so

from deploy.lab.lab import Lab


class MakeTopic(Protocol):
    """Called with a site's name; returns the name of a topic of one partition there, new unless one is given."""

    def __call__(self, site: str, name: str | None = None, **config: str) -> str:
        """Make the topic; ``config`` has its settings, with underscores for dots."""


@pytest.fixture
def make_topic(lab: Lab) -> MakeTopic:
    """A maker of topics."""

    def make(site: str, name: str | None = None, **config: str) -> str:
        name = name or f"s-{uuid.uuid4().hex}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        admin = lab.admin_client(site)  # a future is void once its client is gone
        created = admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1, config=settings)])
        try:
            created[name].result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        return name

    return make


def deliver(config: dict[str, Any], topic: str, value: bytes, limit_seconds: float = 90) -> KafkaError | None:
    """Append one record; returns the error that it ended with, if any."""
    ended: list[KafkaError | None] = []
    producer = Producer({**config, "log_level": 0, "enable.idempotence": True, "message.timeout.ms": 30_000})
    producer.produce(topic, value, on_delivery=lambda error, _: ended.append(error))
    producer.flush(limit_seconds)
    assert ended, "the record was neither delivered nor refused in time"
    return ended[0]


def first_record(config: dict[str, Any], topic: str, limit_seconds: float = 90) -> Message:
    """The first record of a topic, or the error that a reader gets instead."""
    consumer = Consumer({**config, "log_level": 0, "group.id": f"embassy-{uuid.uuid4().hex}"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        end = time.monotonic() + limit_seconds
        while time.monotonic() < end:
            message = consumer.poll(1)
            if message is not None:
                return message
    finally:
        consumer.close()
    pytest.fail("neither a record nor an error in time")


def read_values(config: dict[str, Any], topic: str, limit_seconds: float = 90) -> list[bytes]:
    """Every record of a topic, from its first to the end that it has now."""
    consumer = Consumer({**config, "log_level": 0, "group.id": f"embassy-{uuid.uuid4().hex}"})
    values: list[bytes] = []
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=limit_seconds)
        consumer.assign([TopicPartition(topic, 0, low)])
        end = time.monotonic() + limit_seconds
        while low + len(values) < high:
            message = consumer.poll(1)
            if message is not None:
                assert message.error() is None, message.error()
                values.append(bytes(message.value() or b""))
            assert time.monotonic() < end, f"only {len(values)} of {high - low} records in time"
    finally:
        consumer.close()
    return values


def append_values(config: dict[str, Any], topic: str, values: list[bytes], limit_seconds: float = 90) -> None:
    """Append records in order, as any carrier with the right to write could."""
    failures: list[KafkaError] = []
    producer = Producer({**config, "log_level": 0, "enable.idempotence": True, "message.timeout.ms": 30_000})
    for value in values:
        producer.produce(
            topic, value, partition=0, on_delivery=lambda error, _: failures.append(error) if error else None
        )
    assert producer.flush(limit_seconds) == 0
    assert not failures, failures
