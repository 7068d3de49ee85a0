"""Observations of a stream that is well, to be spoiled one at a time."""

from __future__ import annotations

from embassy.model.lsn import Lsn
from embassy.model.measures import Limits
from embassy.model.observation import (
    Beat,
    Clock,
    Observation,
    ProgressSeen,
    ReplicaSeen,
    Side,
    SlotSeen,
    SourceSeen,
    TailSeen,
    TopicSeen,
)

NOW = 1_800_000_000.0
LIMITS = Limits(fresh_seconds=15, clock_seconds=1)
ALL_SIDES = frozenset(Side)
EMBASSY = frozenset({Side.FOREIGN, Side.REPLICA})
HOME = frozenset({Side.SOURCE, Side.HOME})
BRIDGE = frozenset({Side.HOME, Side.FOREIGN})

CLOCK = Clock(NOW, 0.0, 0.001)
SLOT = SlotSeen(active=True, lost="", confirmed_lsn=Lsn(9_000), retained_bytes=2048, safe_bytes=None)
SOURCE = SourceSeen(CLOCK, Lsn(10_400), Beat(NOW - 0.4, None, None), NOW - 86_400, SLOT)
PROGRESS = ProgressSeen(1, 98, Lsn(9_800), 98, NOW - 0.3, NOW - 0.9)
REPLICA = ReplicaSeen(CLOCK, Beat(NOW - 1.2, None, None), PROGRESS, "embassy-consumer at 10.0.0.7, process 77")


def topic(sequence: int, resume_lsn: int, age: float = 0.5) -> TopicSeen:
    """A topic that ends in a record of the stream."""
    return TopicSeen(
        NOW, 0, sequence, TailSeen(sequence - 1, sequence, 1, Lsn(resume_lsn), NOW - age, proven=True)
    )


def well(sides: frozenset[Side] = ALL_SIDES) -> Observation:
    """All is fresh, and each place is a little behind the one before it."""
    return Observation(
        NOW,
        sides,
        enrolled_epoch=1,
        replica=REPLICA if Side.REPLICA in sides else None,
        foreign=topic(99, 9_900) if Side.FOREIGN in sides else None,
        source=SOURCE if Side.SOURCE in sides else None,
        home=topic(100, 10_000) if Side.HOME in sides else None,
        unsent_since=NOW - 0.5 if sides >= BRIDGE else None,
    )


STALLED = well(EMBASSY)._replace(
    foreign=topic(98, 9_800, age=1144),
    replica=REPLICA._replace(
        beat=REPLICA.beat and REPLICA.beat._replace(beat_at=NOW - 1144),
        progress=PROGRESS._replace(applied_at=NOW - 1143, committed_at=NOW - 1144),
    ),
)
"""A stream that brought its last heartbeat nineteen minutes ago."""
NOTHING = Observation(NOW, EMBASSY, 1)
"""A stream of which nothing could be seen."""
