"""What every Kafka client of the product is configured with."""

from __future__ import annotations

import logging

from confluent_kafka import KafkaError

from embassy.model.errors import ConfigurationError, EmbassyError, TransientError
from embassy.runtime.config import KafkaCluster

_FIX = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant this client's certificate access to the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant this client's certificate READ on groups embassy-*",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant this client's certificate IDEMPOTENT_WRITE on the cluster",
    KafkaError.MSG_SIZE_TOO_LARGE: "raise the topic's max.message.bytes or lower producer.record_bytes",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "embassy provision apply creates the stream's topic",
    KafkaError._UNKNOWN_TOPIC: "embassy provision apply creates the stream's topic",
    KafkaError._UNKNOWN_PARTITION: "a stream's topic has one partition; was it recreated?",
}

_CERTIFICATES = (
    "ca in the [kafka.*] section must be the authority that issued the broker's certificate, and certificate and key "
    "one that the broker trusts; and none may have expired"
)

_DISK = "the broker cannot write to its disk: its log tells why; make room, and start it again if it has ended"

_LOG = logging.getLogger("embassy.kafka")


def client_config(cluster: KafkaCluster, client: str) -> dict[str, str | int | float | bool | logging.Logger]:
    """Mutual TLS with host names checked. ``client`` appears in the brokers' logs.

    What librdkafka has to say goes to the logger ``embassy.kafka`` instead of straight to stderr.

    Raises:
        ConfigurationError: a certificate or key file does not exist.
    """
    for path in (cluster.ca, cluster.certificate, cluster.key):
        if not path.is_file():
            raise ConfigurationError("no such file", place=str(path), hint="check the [kafka.*] section")
    return {
        "bootstrap.servers": cluster.bootstrap,
        "client.id": client,
        "security.protocol": "ssl",
        "ssl.ca.location": str(cluster.ca),
        "ssl.certificate.location": str(cluster.certificate),
        "ssl.key.location": str(cluster.key),
        "ssl.endpoint.identification.algorithm": "https",
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2000,
        "log.connection.close": False,
        "logger": _LOG,
    }


def as_embassy_error(error: KafkaError, place: str) -> EmbassyError:
    """The family of a Kafka error, by what helps against it."""
    fix = _FIX.get(error.code())
    text = f"{error.name()}: {error.str()}"
    if fix is not None:
        return ConfigurationError(text, place=place, hint=fix)
    return unreachable(error, place)


def unreachable(error: KafkaError, place: str) -> TransientError:
    """A cluster that does not serve just now, and where to look: at its disk, its certificates, or on the way to it."""
    where = {KafkaError._SSL: _CERTIFICATES, KafkaError.KAFKA_STORAGE_ERROR: _DISK}
    hint = where.get(error.code(), "is the broker up, and reachable from here?")
    return TransientError(f"{error.name()}: {error.str()}", place=place, hint=hint)
