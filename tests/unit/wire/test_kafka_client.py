"""What helps against an error of a Kafka cluster."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from embassy.model.errors import TransientError
from embassy.wire.kafka_client import as_embassy_error


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (KafkaError.KAFKA_STORAGE_ERROR, "make room"),
        (KafkaError._SSL, "expired"),
        (KafkaError._TRANSPORT, "reachable"),
    ],
)
def test_a_cluster_that_does_not_serve_is_waited_for_and_the_cause_is_named(code: int, hint: str) -> None:
    error = as_embassy_error(KafkaError(code), "s-1")
    assert isinstance(error, TransientError)
    assert hint in error.hint
