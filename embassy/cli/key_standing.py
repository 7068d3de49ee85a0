"""For whom streams' newest data keys are wrapped, and who signs: what the topics themselves say of a rotation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from embassy.model.errors import ConfigurationError
from embassy.runtime.config import Settings, Stream
from embassy.wire.enrolment import Enrolment, load_enrolment
from embassy.wire.head_search import find_head
from embassy.wire.kafka_reader import TopicReader
from embassy.wire.key_record import decode_key_body
from embassy.wire.verifying import RecordVerifier


class KeyStanding(NamedTuple):
    """One stream's newest KEY record that counts."""

    incarnation: bytes
    sequence: int
    generation: int
    """Which of the enrolled producers signed it, from 1."""
    recipients: tuple[bytes, ...]
    """The ids for which the data key is wrapped."""


def enrolment_of(settings: Settings, stream: Stream) -> Enrolment:
    """A stream's enrolment, proven.

    Raises:
        ConfigurationError: it does not hold.
    """
    keys = settings.keys
    return load_enrolment(
        stream.enrolment, operators=keys.operators, threshold=keys.threshold, stream=stream.stream
    )


def key_standings(settings: Settings, streams: Mapping[str, Stream]) -> dict[str, KeyStanding | None]:
    """Each stream's, from the home cluster if the configuration has it, else from the foreign one; None before any.

    Raises:
        ConfigurationError: the configuration has no cluster, or an enrolment does not hold.
        TransientError: the cluster is unreachable.
        IntegrityError: a topic does not exist, or its head cannot be found.
    """
    return {name: key_standing(settings, stream) for name, stream in streams.items()}


def key_standing(settings: Settings, stream: Stream) -> KeyStanding | None:
    """One stream's; see `key_standings`."""
    cluster = settings.kafka.home or settings.kafka.foreign
    if cluster is None:
        raise ConfigurationError(
            "the configuration names no Kafka cluster, and only a topic tells for whom data keys are wrapped",
            place="kafka",
            hint="use the producer's or the consumer's configuration",
        )
    enrolment = enrolment_of(settings, stream)
    with TopicReader(cluster, stream.topic, "keys") as log:
        carried = settings.kafka.home is None  # there may be a gap that the bridge is yet to mend
        found = find_head(log, RecordVerifier(enrolment), enrolment.genesis(), repeats=carried)
    if found is None or found.key_record is None:
        return None
    record = found.key_record
    wraps = decode_key_body(record.body).wraps
    return KeyStanding(
        record.header.incarnation,
        record.header.sequence,
        found.head.generation,
        tuple(wrap.recipient for wrap in wraps),
    )
