"""The topics of streams: made with what a stream needs, and examined."""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined] # its package re-exports them without saying so
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from embassy.model.errors import TransientError
from embassy.runtime.config import KafkaCluster
from embassy.wire.kafka_client import as_embassy_error, client_config

_ANSWER_SECONDS = 30

SETTINGS = {
    "cleanup.policy": "delete",
    "compression.type": "producer",  # what is sealed does not compress, and must stay as it is
    "message.timestamp.type": "CreateTime",
    "unclean.leader.election.enable": "false",
    "min.insync.replicas": "2",
}
_RECORD_OVERHEAD_BYTES = 512
"""What Kafka adds to a value, generously."""


class TopicState(NamedTuple):
    """A topic as the cluster describes it."""

    partitions: int
    replication_factor: int
    settings: dict[str, str]


class Topics:
    """A cluster's topics, through a client that may describe and create them."""

    def __init__(self, cluster: KafkaCluster, client: str) -> None:
        self._place = cluster.bootstrap
        config: dict[str, Any] = {**client_config(cluster, client)}
        self._admin = AdminClient(config)

    def brokers(self) -> int:
        """How many brokers the cluster has.

        Raises:
            TransientError: it is unreachable.
        """
        try:
            return len(self._admin.list_topics(timeout=10).brokers)
        except KafkaException as error:
            raise as_embassy_error(error.args[0], self._place) from error

    def describe(self, names: list[str]) -> dict[str, TopicState]:
        """Those of the topics that exist.

        Raises:
            EmbassyError: the cluster is unreachable, or refuses.
        """
        try:
            known = self._admin.list_topics(timeout=10).topics
            present = [name for name in names if name in known and known[name].error is None]
            if not present:
                return {}
            resources = [ConfigResource(ResourceType.TOPIC, name) for name in present]
            answers = self._admin.describe_configs(resources, request_timeout=_ANSWER_SECONDS)
            settings = {
                resource.name: {entry.name: entry.value for entry in answer.result(_ANSWER_SECONDS).values()}
                for resource, answer in answers.items()
            }
        except KafkaException as error:
            raise as_embassy_error(error.args[0], self._place) from error
        except FutureTimeoutError as error:
            raise TransientError("the cluster does not answer", place=self._place) from error
        found = {}
        for name in present:
            partitions = known[name].partitions
            replicas = min((len(partition.replicas) for partition in partitions.values()), default=0)
            found[name] = TopicState(len(partitions), replicas, settings[name])
        return found

    def create(self, name: str, *, record_bytes: int, retention_ms: int) -> None:
        """Make a stream's topic: one partition, on as many as three brokers; one that is there already stays.

        Raises:
            EmbassyError: the cluster is unreachable, or refuses.
        """
        replicas = min(3, self.brokers())
        settings = {
            **SETTINGS,
            "min.insync.replicas": str(min(2, replicas)),
            "retention.ms": str(retention_ms),
            "max.message.bytes": str(max(1_048_588, record_bytes + _RECORD_OVERHEAD_BYTES)),
        }
        made = self._admin.create_topics(
            [NewTopic(name, num_partitions=1, replication_factor=replicas, config=settings)],
            operation_timeout=_ANSWER_SECONDS,
        )
        try:
            made[name].result(_ANSWER_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise as_embassy_error(error.args[0], name) from error
        except FutureTimeoutError as error:
            raise TransientError("the cluster does not answer", place=self._place) from error
