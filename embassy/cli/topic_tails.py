"""Where streams' topics end: the newest signed record of each, by a look at its last few records.

The head proper would take reading from the last proven data key on (`embassy.wire.head_search`), which under load is
far too much for a look every second. So this is the newest record that continues what was read before it; it says itself
whether it is proven to count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

from embassy.model.observation import Absent, TailSeen, TopicSeen
from embassy.model.stretch import Stretch
from embassy.runtime.config import KafkaCluster
from embassy.wire.enrolment import Enrolment
from embassy.wire.kafka_ends import Range, TopicEnds
from embassy.wire.kafka_reader import Fetched
from embassy.wire.record_codec import record_or_none
from embassy.wire.verifying import RecordVerifier

_WINDOWS = (8, 64, 256)
"""How many records are read; more only where none of them is the enrolled producer's."""
_TIMEOUT_SECONDS = 8.0


class _Known(NamedTuple):
    bounds: Range
    tail: TailSeen | None


class TopicTails:
    """One cluster's topics, looked at again and again; a topic that has not grown is not read again."""

    def __init__(self, cluster: KafkaCluster, client: str, *, wall: Callable[[], float] = time.time) -> None:
        self._ends = TopicEnds(cluster, client, timeout_seconds=_TIMEOUT_SECONDS)
        self._wall = wall
        self._known: dict[str, _Known] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.__exit__(*exc)

    def look(self, topics: Mapping[str, Enrolment]) -> dict[str, TopicSeen | Absent]:
        """See the end of each topic.

        Raises:
            TransientError: the cluster is unreachable.
            ConfigurationError: it does not let this client look.
        """
        found: dict[str, TopicSeen | Absent] = {}
        bounds = self._ends.bounds(topics)
        read_at = self._wall()
        grown: dict[str, Range] = {}
        for topic, held in bounds.items():
            if held is None:
                found[topic] = Absent(f"topic {topic} does not exist")
            elif topic not in self._known or self._known[topic].bounds != held:
                grown[topic] = held
        tails = self._tails(grown, topics)
        self._known.update({topic: _Known(held, tails[topic]) for topic, held in grown.items()})
        for topic, held in bounds.items():
            if held is not None:
                found[topic] = TopicSeen(read_at, held.start, held.stop, self._known[topic].tail)
        return found

    def standing_at(self, places: Mapping[str, int], topics: Mapping[str, Enrolment]) -> dict[str, TailSeen]:
        """The signed record at an offset of each topic as it was looked at; only where there is one.

        Raises:
            TransientError: the cluster is unreachable.
        """
        held = {topic: self._known[topic].bounds for topic in places}
        ranges = {t: Range(at, at + 1) for t, at in places.items() if held[t].start <= at < held[t].stop}
        found = {topic: _tail(fetched, topics[topic]) for topic, fetched in self._ends.read(ranges).items()}
        return {topic: record for topic, record in found.items() if record is not None}

    def unsent_since(self, ends: Mapping[str, tuple[TailSeen, TailSeen]]) -> dict[str, float]:
        """When the oldest record that another cluster lacks was appended to this one, or one before it.

        Args:
            ends: for each topic its tail here, and the other cluster's.

        Returns:
            Only topics of which it could be told by one record: found where it stands if no strays are around.
        """
        places = {
            topic: here.offset - (here.sequence - there.sequence) + 1
            for topic, (here, there) in ends.items()
            if here.epoch == there.epoch and here.sequence > there.sequence
        }
        held = {topic: self._known[topic].bounds.start for topic in places}
        ranges = {topic: Range(at, at + 1) for topic, at in places.items() if at >= held[topic]}
        since = {}
        for topic, fetched in self._ends.read(ranges).items():
            for entry in fetched:
                record = record_or_none(entry.value)
                if record is not None and record.header.sequence <= ends[topic][1].sequence + 1:
                    since[topic] = entry.timestamp_ms / 1000
        return since

    def _tails(
        self, bounds: Mapping[str, Range], enrolments: Mapping[str, Enrolment]
    ) -> dict[str, TailSeen | None]:
        tails: dict[str, TailSeen | None] = dict.fromkeys(bounds)
        before = 0
        for window in _WINDOWS:
            ranges = {
                topic: Range(max(held.start, held.stop - window), held.stop)
                for topic, held in bounds.items()
                if tails[topic] is None and held.stop - held.start > before
            }
            before = window
            for topic, fetched in self._ends.read(ranges).items():
                tails[topic] = _tail(fetched, enrolments[topic])
        return tails


def _tail(fetched: list[Fetched], enrolment: Enrolment) -> TailSeen | None:
    stretch = Stretch(RecordVerifier(enrolment), enrolment.genesis())
    for entry in fetched:
        stretch.take(entry.offset, entry.timestamp_ms, len(entry.value), record_or_none(entry.value))
    newest = stretch.newest()
    if newest is None:
        return None
    head = newest.head
    appended_at = newest.timestamp_ms / 1000
    return TailSeen(newest.offset, head.sequence, head.epoch, head.resume_lsn, appended_at, newest.proven)
