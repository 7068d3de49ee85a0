"""The records of one topic, one after the other, with what can be said of each without a secret key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from embassy.model.record import SealedRecord
from embassy.model.stretch import Entry, Stretch
from embassy.model.wording import iso
from embassy.runtime.config import KafkaCluster
from embassy.wire.enrolment import Enrolment
from embassy.wire.kafka_reader import Fetched, TopicReader
from embassy.wire.record_codec import record_or_none
from embassy.wire.verifying import RecordVerifier

_LOOKBACKS = (64, 512, 4096)
_LOOKBACK_BYTES = 64 << 20
_INSPECT_AHEAD = 256


class Event(NamedTuple):
    """A record of a topic, and what it is to the stream."""

    registry: str
    topic: str
    entry: Entry
    counts: bool | None
    """None: what was read does not tell."""

    def as_json(self) -> dict[str, Any]:
        """Metadata only; instants are ISO 8601, UTC."""
        entry, record = self.entry, self.entry.record
        base: dict[str, Any] = {
            "schema": "embassy.event/1",
            "registry": self.registry,
            "topic": self.topic,
            "offset": entry.offset,
            "appended_at": iso(entry.timestamp_ms / 1000),
            "bytes": entry.value_bytes,
            "signed": entry.signed,
            "mark": entry.mark.value,
            "counts": self.counts,
        }
        if record is None:
            return base
        header = record.header
        return base | {
            "kind": header.kind.name,
            "stream": header.stream.hex(),
            "epoch": header.epoch,
            "incarnation": header.incarnation.hex(),
            "sequence": header.sequence,
            "part": header.part,
            "last": header.last,
            "resume_lsn": str(header.resume_lsn),
            "hash": record.hash.hex(),
            "previous": header.previous.hex(),
        }


class TopicView:
    """One stream's topic."""

    def __init__(self, registry: str, topic: str, cluster: KafkaCluster, enrolment: Enrolment) -> None:
        self.registry = registry
        self.topic = topic
        self._verified = RecordVerifier(enrolment)
        self._genesis = enrolment.genesis()
        self._reader = TopicReader(cluster, topic, "events")
        self._stretch = Stretch(self._verified, self._genesis)
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._reader.__exit__(*exc)

    def bounds(self) -> tuple[int, int]:
        """The first offset held, and the next to be given.

        Raises:
            TransientError: the cluster is unreachable.
            IntegrityError: the topic does not exist.
        """
        return self._reader.bounds()

    def first(self) -> Iterator[Event]:
        """All that the topic holds, from its start."""
        low, high = self.bounds()
        self._next = low
        yield from self._read(high)

    def last(self, count: int) -> list[Event]:
        """The last few records; reads back as far as it takes, and is reasonable, to prove which of them count."""
        low, high = self.bounds()
        first = max(low, high - count)
        entries = self._proving(low, first, high)
        self._next = high
        return [self._event(entry) for entry in entries if entry.offset >= first]

    def more(self) -> Iterator[Event]:
        """What has come since the last reading."""
        _, high = self.bounds()
        yield from self._read(high)

    def at(self, offset: int) -> tuple[Event, SealedRecord | None]:
        """One record, judged among its neighbours; and the record with its body."""
        low, high = self.bounds()
        stop = min(high, offset + 1 + _INSPECT_AHEAD)
        entry = next(entry for entry in self._proving(low, offset, stop) if entry.offset == offset)
        fetched = next(self._reader.read(offset, offset + 1))
        return self._event(entry), record_or_none(fetched.value)

    def _proving(self, low: int, first: int, high: int) -> list[Entry]:
        """The entries from a bit before ``first`` on, of a stretch that proves its chain if that can be had."""
        entries: list[Entry] = []
        for lookback in _LOOKBACKS:
            start = max(low, first - lookback)
            self._stretch = Stretch(self._verified, self._genesis)
            entries = [self._take(fetched) for fetched in self._reader.read(start, high)]
            newest = self._stretch.newest()
            read_bytes = sum(entry.value_bytes for entry in entries)
            if start == low or (newest is not None and newest.proven) or read_bytes > _LOOKBACK_BYTES:
                break
        return entries

    def _read(self, stop: int) -> Iterator[Event]:
        for fetched in self._reader.read(self._next, stop):
            self._next = fetched.offset + 1
            yield self._event(self._take(fetched))

    def _take(self, fetched: Fetched) -> Entry:
        record = record_or_none(fetched.value)
        return self._stretch.take(fetched.offset, fetched.timestamp_ms, len(fetched.value), record)

    def _event(self, entry: Entry) -> Event:
        return Event(self.registry, self.topic, entry, self._stretch.counts(entry))
