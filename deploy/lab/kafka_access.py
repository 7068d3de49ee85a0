"""Who may do what on the brokers; whatever is not here is denied.

The producer appends to its streams at home and reads them back, to find the head. The bridge reads streams at
home and appends them abroad, and carries the positions the other way. The consumer reads streams abroad and writes
positions. After a promotion each of them stands at the other end. Nobody but the administrator makes or drops topics.
The group entries are there because librdkafka asks for a group even where it only assigns partitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import wait

from confluent_kafka.admin import (  # type: ignore[attr-defined] # its package re-exports them without saying so
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from embassy.model.errors import TransientError

HOME_ROLES = ("producer", "bridge", "consumer", "admin")
EMBASSY_ROLES = ("producer", "bridge", "consumer", "admin")

_READ = (AclOperation.READ, AclOperation.DESCRIBE)
_WRITE = (AclOperation.WRITE, AclOperation.DESCRIBE)
_READ_WRITE = (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE)

_Topics = Mapping[str, tuple[AclOperation, ...]]
_HOME: Mapping[str, _Topics] = {
    "producer": {"s-*": _READ_WRITE},
    "bridge": {"s-*": _READ_WRITE, "positions": _WRITE},
    "consumer": {"s-*": _READ},
}
_EMBASSY: Mapping[str, _Topics] = {
    "producer": {"s-*": _READ_WRITE},
    "bridge": {"s-*": _READ_WRITE, "positions": _READ},
    "consumer": {"s-*": _READ, "positions": _WRITE},
}
_ANSWER_SECONDS = 30


def grant_access(client: AdminClient, *, home: bool) -> None:
    """Write a cluster's access lists; entries that are there already stay.

    Raises:
        TransientError: the cluster did not take them.
    """
    bindings = [
        binding for role, topics in (_HOME if home else _EMBASSY).items() for binding in _bindings(role, topics)
    ]
    answers = client.create_acls(bindings, request_timeout=_ANSWER_SECONDS)
    wait(answers.values(), timeout=_ANSWER_SECONDS)
    for binding, answer in answers.items():
        if not answer.done() or answer.exception() is not None:
            why = answer.exception() if answer.done() else "no answer"
            raise TransientError(f"the broker did not take an access entry for {binding.principal}: {why}")


def _bindings(role: str, topics: _Topics) -> list[AclBinding]:
    entries = [
        _allow(role, ResourceType.GROUP, "embassy-*", AclOperation.READ),
        _allow(role, ResourceType.BROKER, "kafka-cluster", AclOperation.IDEMPOTENT_WRITE),
    ]
    for topic, operations in topics.items():
        entries += [_allow(role, ResourceType.TOPIC, topic, operation) for operation in operations]
    return entries


def _allow(role: str, kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
    prefixed = name.endswith("*")
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    return AclBinding(kind, name.rstrip("*"), pattern, f"User:{role}", "*", operation, AclPermissionType.ALLOW)
