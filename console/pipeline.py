"""How far each hop of a stream is, from what databases and topics show. Pure.

What a consumer has fetched and not applied is in no database, so it is not here: its metric has it.
"""

from __future__ import annotations

from typing import NamedTuple

from embassy.model.findings import Condition, Stage
from embassy.model.look import Observed
from embassy.model.measures import replica_seen, source_seen, tail_of

HOPS = ("written", "captured", "published", "bridged", "applied")
_STAGE_BEGINS = {Stage.PRODUCER: "captured", Stage.BRIDGE: "bridged", Stage.CONSUMER: "applied"}


class Hop(NamedTuple):
    """The newest that has passed one hop."""

    name: str
    at: float | None
    """Seconds since 1970 UTC; None: not known from here."""
    suspect: bool
    """Whether it is the first hop of the stage to look at."""


def hops_of(entry: Observed) -> tuple[Hop, ...]:
    """A stream's hops, in the direction of the current.

    Written, captured and applied are heartbeats, by the source's clock; published and bridged are the newest signed
    record of home's and of the embassy's topic, by the clock of who appended it. Where home's topic is not seen,
    published is a heartbeat too: the newest of which the replica says so.
    """
    source, replica = source_seen(entry.observation), replica_seen(entry.observation)
    beats = [seen.beat for seen in (source, replica) if seen is not None and seen.beat is not None]
    applied = entry.health.measures.heartbeat_at
    home, foreign = tail_of(entry.observation.home), tail_of(entry.observation.foreign)
    at = {
        "written": source.beat.beat_at if source is not None and source.beat is not None else None,
        # what was applied was captured and published before, whatever an older beat could tell
        "captured": _newest(applied, *(beat.captured_at for beat in beats)),
        "published": home.appended_at if home is not None else _newest(applied, *(b.published_at for b in beats)),
        "bridged": foreign.appended_at if foreign is not None else None,
        "applied": applied,
    }
    cause = entry.health.cause
    amiss = cause is not None and cause.condition is not Condition.UNKNOWN
    first = _STAGE_BEGINS[cause.stage] if cause is not None and amiss else None
    return tuple(Hop(name, at[name], name == first) for name in HOPS)


def _newest(*instants: float | None) -> float | None:
    return max((at for at in instants if at is not None), default=None)
