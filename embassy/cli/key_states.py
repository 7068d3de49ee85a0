"""How far a key's replacement has come, by what the streams' topics say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from embassy.cli.key_report import KeyEntry
from embassy.cli.key_standing import KeyStanding, enrolment_of, key_standings
from embassy.runtime.config import Settings, Stream
from embassy.wire.key_document import KeyKind


def in_topics(
    entries: Sequence[KeyEntry], settings: Settings, streams: Mapping[str, Stream]
) -> Iterator[KeyEntry]:
    """The entries with their states, and one for each recipient that is in use and not named.

    Raises:
        ConfigurationError: the configuration has no cluster, or an enrolment does not hold.
        TransientError: the cluster is unreachable.
        IntegrityError: a topic does not exist, or its head cannot be found.
    """
    standings = {name: found for name, found in key_standings(settings, streams).items() if found is not None}
    writers = {name: _writer(settings, streams[name], found) for name, found in standings.items()}
    known = set()
    for entry in entries:
        known.add(entry.id)
        if entry.kind == KeyKind.RECIPIENT:
            count = sum(entry.id in _recipients(found) for found in standings.values())
            yield entry._replace(state=_state(count, len(standings)))
        elif entry.kind == KeyKind.IDENTITY:
            count = sum(writer == entry.id for writer in writers.values())
            yield entry._replace(state=_state(count, len(standings)))
        else:
            yield entry
    for recipient in sorted(
        {recipient for found in standings.values() for recipient in _recipients(found)} - known
    ):
        count = sum(recipient in _recipients(found) for found in standings.values())
        state = f"not named here, in use {count}/{len(standings)}"
        yield KeyEntry("-", KeyKind.RECIPIENT.value, "-", secret=False, id=recipient, state=state)


def _state(count: int, of: int) -> str:
    if not count:
        return "announced"
    return f"active {count}/{of}" if count == of else f"confirmed {count}/{of}"


def _recipients(standing: KeyStanding) -> frozenset[str]:
    return frozenset(recipient.hex() for recipient in standing.recipients)


def _writer(settings: Settings, stream: Stream, standing: KeyStanding) -> str:
    return enrolment_of(settings, stream).producers[standing.generation - 1].id.hex()
