"""The topics of streams: made with what a stream needs, and described."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined] # its package re-exports them without saying so
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from embassy.model.errors import EmbassyError, RefusedError, TransientError
from embassy.model.step import Step
from embassy.runtime.config import KafkaCluster
from embassy.wire.kafka_client import as_embassy_error, client_config, unreachable

_ANSWER_SECONDS = 30
_METADATA_SECONDS = 10

RECORD_OVERHEAD_BYTES = 512
"""What Kafka adds to a value, generously."""
_REPLICAS_MOST = 3
_SETTINGS = {
    "cleanup.policy": "delete",
    "compression.type": "producer",  # what is sealed does not compress, and must stay as it is
    "message.timestamp.type": "CreateTime",
    "unclean.leader.election.enable": "false",
}
_NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)

T = TypeVar("T")


class TopicState(NamedTuple):
    """A topic as the cluster describes it."""

    partitions: int
    replication_factor: int
    settings: dict[str, str] | None
    """None: this client may not see them."""


class TopicWish(NamedTuple):
    """What a stream's topic must be able to hold."""

    record_bytes: int
    retention_hours: int


class Topics:
    """A cluster's topics, through a client that may describe and, for some calls, create them."""

    def __init__(self, cluster: KafkaCluster, client: str) -> None:
        self.place = cluster.bootstrap
        # librdkafka names the reason why it cannot connect here, and only "timed out" in the answer to a request
        self._last_error: KafkaError | None = None
        config: dict[str, Any] = {**client_config(cluster, client), "error_cb": self._on_error, "log_level": 0}
        self._admin = AdminClient(config)

    def brokers(self) -> list[int]:
        """The ids of the cluster's brokers.

        Raises:
            TransientError: it is unreachable.
        """
        return sorted(self._metadata().brokers)

    def describe(self, names: Sequence[str]) -> dict[str, TopicState]:
        """Those of the topics that exist.

        Raises:
            EmbassyError: the cluster is unreachable, or refuses.
        """
        known = self._metadata().topics
        present = [name for name in names if name in known and known[name].error is None]
        settings = self._settings(ResourceType.TOPIC, present)
        found = {}
        for name in present:
            partitions = known[name].partitions
            replicas = min((len(partition.replicas) for partition in partitions.values()), default=0)
            found[name] = TopicState(len(partitions), replicas, settings.get(name))
        return found

    def broker_settings(self, broker: int) -> dict[str, str] | None:
        """A broker's settings; None if this client may not see them."""
        return self._settings(ResourceType.BROKER, [str(broker)]).get(str(broker))

    def open_to_all(self) -> list[str] | None:
        """What anyone with any certificate may do, by access entries for User:*; None if no entry can be seen.

        Raises:
            RefusedError: the cluster has no authorizer, so anyone may do anything.
        """
        anything: Any = None
        every = AclBindingFilter(
            ResourceType.ANY,
            anything,
            ResourcePatternType.ANY,
            anything,
            anything,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        try:
            entries: list[Any] = self._answer(self._admin.describe_acls(every), self.place)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.SECURITY_DISABLED:
                raise RefusedError("the cluster has no authorizer", place=self.place) from error
            if error.args[0].code() in _NOT_ALLOWED:
                return None
            raise self._explained(error) from error
        if not entries:  # what a client gets that may not see them
            return None
        return [
            f"{entry.operation.name} {entry.restype.name} {entry.name}"
            for entry in entries
            if entry.principal == "User:*" and entry.permission_type == AclPermissionType.ALLOW
        ]

    def create(self, name: str, wish: TopicWish) -> None:
        """Make a stream's topic: one partition, on as many as three brokers; one that is there already stays.

        Raises:
            EmbassyError: the cluster is unreachable, or refuses.
        """
        replicas = min(_REPLICAS_MOST, len(self.brokers()))
        settings = {
            **_SETTINGS,
            "min.insync.replicas": str(min(2, replicas)),
            "retention.ms": str(wish.retention_hours * 3_600_000),
            "retention.bytes": "-1",  # a busy stream must not lose records sooner than a quiet one
            "max.message.bytes": str(max(1_048_588, wish.record_bytes + RECORD_OVERHEAD_BYTES)),
        }
        topic = NewTopic(name, num_partitions=1, replication_factor=replicas, config=settings)
        made = self._admin.create_topics([topic], operation_timeout=_ANSWER_SECONDS)
        try:
            self._answer(made[name], name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise self._explained(error, name) from error

    def _metadata(self) -> Any:
        try:
            return self._admin.list_topics(timeout=_METADATA_SECONDS)
        except KafkaException as error:
            raise self._explained(error) from error

    def _settings(self, kind: ResourceType, names: Sequence[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        answers = self._admin.describe_configs([ConfigResource(kind, name) for name in names]) if names else {}
        for resource, answer in answers.items():
            try:
                found[resource.name] = {
                    entry.name: entry.value for entry in self._answer(answer, self.place).values()
                }
            except KafkaException as error:
                if error.args[0].code() not in _NOT_ALLOWED:
                    raise self._explained(error, resource.name) from error
        return found

    def _answer(self, future: Future[T], place: str) -> T:
        try:
            return future.result(_ANSWER_SECONDS)
        except FutureTimeoutError as error:
            raise TransientError("the cluster does not answer", place=place) from error

    def _explained(self, error: KafkaException, place: str = "") -> EmbassyError:
        self._admin.poll(0)  # lets it tell of errors
        code = error.args[0].code()
        if code in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT) and self._last_error is not None:
            return unreachable(self._last_error, place or self.place)
        return as_embassy_error(error.args[0], place or self.place)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last_error = error


def topic_steps(site: str, cluster: KafkaCluster, names: Sequence[str], wish: TopicWish) -> Iterator[Step]:
    """The topics that streams need in a cluster.

    Raises:
        RefusedError: a topic is there, and a stream cannot live in it.
        EmbassyError: the cluster is unreachable, or refuses.
    """
    topics = Topics(cluster, "embassy-provision")
    place = f"{site} Kafka"
    present = topics.describe(names)
    for name in names:
        found = present.get(name)
        if found is not None:
            _check(found, f"{place}, topic {name}")
        yield Step(place, f"topic {name}", partial(topics.create, name, wish) if found is None else None)


def _check(found: TopicState, place: str) -> None:
    policy = (found.settings or {}).get("cleanup.policy", _SETTINGS["cleanup.policy"])
    if found.partitions != 1 or policy != _SETTINGS["cleanup.policy"]:
        raise RefusedError(
            f"the topic has {found.partitions} partitions and cleanup.policy={policy}",
            place=place,
            hint="a stream's topic has one partition and cleanup.policy=delete: something else made it",
        )
