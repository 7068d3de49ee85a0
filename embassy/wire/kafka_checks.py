"""What ``embassy doctor kafka`` examines of a cluster and the streams' topics. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from embassy.model.diagnosis import Level, Remark
from embassy.model.errors import RefusedError
from embassy.runtime.config import KafkaCluster
from embassy.wire.kafka_topics import RECORD_OVERHEAD_BYTES, Topics, TopicState

_APPLY = "embassy provision apply"
_MS_PER_HOUR = 3_600_000
_REPLICAS, _INSYNC = 3, 2


class ClusterSubject(NamedTuple):
    """Which cluster is examined, and for what."""

    site: str
    cluster: KafkaCluster
    topics: tuple[str, ...]
    record_bytes: int
    outage_hours: float


def cluster_remarks(subject: ClusterSubject) -> Iterator[Remark]:
    """Everything that is found.

    Raises:
        EmbassyError: the cluster is unreachable, or lets nobody in.
    """
    topics = Topics(subject.cluster, "embassy-doctor")
    place = f"{subject.site} Kafka"
    brokers = topics.brokers()
    found = topics.describe(subject.topics)
    yield Remark(
        "KA01", Level.OK, place, f"{len(brokers)} broker{'s' if len(brokers) != 1 else ''} at {topics.place}"
    )
    yield from _broker(topics, place, brokers[0])
    yield _access(topics, place)
    for name in subject.topics:
        state = found.get(name)
        if state is None:
            yield Remark(
                "KA02",
                Level.FAIL,
                f"{place}, {name}",
                "no such topic, or this certificate may not see it",
                f"{_APPLY}, or grant DESCRIBE",
            )
        else:
            yield from _topic(subject, f"{place}, {name}", state)


def _broker(topics: Topics, place: str, broker: int) -> Iterator[Remark]:
    settings = topics.broker_settings(broker)
    if settings is None:
        yield Remark("KA10", Level.UNSEEN, place, "this certificate may not see the brokers' settings")
    elif settings.get("auto.create.topics.enable") == "true":
        yield Remark(
            "KA10",
            Level.WARN,
            place,
            "a client that asks for a topic creates it, with the wrong settings",
            "set auto.create.topics.enable=false",
        )
    else:
        yield Remark("KA10", Level.OK, place, "brokers create no topics by themselves")
    if settings is not None and settings.get("allow.everyone.if.no.acl.found") == "true":
        yield Remark(
            "KA11",
            Level.FAIL,
            place,
            "who has a certificate may do anything that no access entry speaks of",
            "set allow.everyone.if.no.acl.found=false",
        )


def _access(topics: Topics, place: str) -> Remark:
    try:
        entries = topics.open_to_all()
    except RefusedError as error:
        return Remark(
            "KA11", Level.FAIL, place, str(error.args[0]), "set authorizer.class.name and write access entries"
        )
    if entries is None:
        return Remark(
            "KA11", Level.UNSEEN, place, "no access entry can be seen: there is none, or not for this certificate"
        )
    if entries:
        return Remark(
            "KA11",
            Level.FAIL,
            place,
            f"every certificate may: {'; '.join(entries[:5])}",
            "remove the entries for User:*",
        )
    return Remark("KA11", Level.OK, place, "no access entry is for everyone")


def _topic(subject: ClusterSubject, place: str, state: TopicState) -> Iterator[Remark]:
    if state.partitions == 1:
        yield Remark("KA03", Level.OK, place, "one partition")
    else:
        yield Remark(
            "KA03",
            Level.FAIL,
            place,
            f"{state.partitions} partitions: commit order is lost",
            "partitions cannot be taken away: enrol the stream anew with a new topic",
        )
    if state.settings is None:
        yield Remark("KA04", Level.UNSEEN, place, "this certificate may not see the topic's settings")
        return
    yield from _settings(subject, place, state.replication_factor, state.settings)


def _settings(subject: ClusterSubject, place: str, replicas: int, settings: Mapping[str, str]) -> Iterator[Remark]:
    def told(code: str, level: Level, text: str, fix: str = "") -> Remark:
        return Remark(code, level, place, text, fix if level is not Level.OK else "")

    def judged(wrong: object, level: Level) -> Level:
        return level if wrong else Level.OK

    policy = settings.get("cleanup.policy")
    yield told(
        "KA04", judged(policy != "delete", Level.FAIL), f"cleanup.policy is {policy}", "set cleanup.policy=delete"
    )
    retention_ms, wanted_ms = int(settings.get("retention.ms", -1)), 2 * subject.outage_hours * _MS_PER_HOUR
    by_size = int(settings.get("retention.bytes", -1)) >= 0
    yield told(
        "KA05",
        judged(by_size or 0 <= retention_ms < wanted_ms, Level.WARN),
        f"retention is {retention_ms / _MS_PER_HOUR:g} h" if retention_ms >= 0 else "retention is for ever",
        f"set retention.ms={wanted_ms:.0f} and retention.bytes=-1: what goes before it is carried is lost abroad",
    )
    most, largest = int(settings.get("max.message.bytes", 0)), subject.record_bytes + RECORD_OVERHEAD_BYTES
    yield told(
        "KA06",
        judged(most < largest, Level.FAIL),
        f"max.message.bytes is {most}, the largest record {largest}",
        "raise max.message.bytes, or lower producer.record_bytes",
    )
    compression = settings.get("compression.type")
    yield told(
        "KA07",
        judged(compression not in ("producer", "uncompressed"), Level.WARN),
        f"compression.type is {compression}",
        "set compression.type=producer: brokers would compress what does not compress",
    )
    insync = int(settings.get("min.insync.replicas", 1))
    yield told(
        "KA08",
        judged(replicas < _REPLICAS or insync < _INSYNC, Level.WARN),
        f"{replicas} replicas, {insync} in sync before an acknowledgement",
        "run three brokers; replication factor 3, min.insync.replicas=2",
    )
    unclean = settings.get("unclean.leader.election.enable") == "true"
    yield told(
        "KA09",
        judged(unclean, Level.FAIL),
        "a broker that misses records may become leader" if unclean else "only a broker with all records may lead",
        "set unclean.leader.election.enable=false",
    )
