"""What was seen of one stream at its four places, at about one moment: values only, nothing concluded.

The places are read against the current: the replica first, then the embassy's topic, then the source, then the home
topic. So each is seen later than what it feeds, and a difference that comes out negative is no accident of timing: the
place above has lost something. (Only the source stands before the home topic: whatever its slot has confirmed by then,
the topic must hold.)

What is not known is None, never 0. Instants are seconds since 1970 UTC, by the clock that the field names.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from embassy.model.lsn import Lsn


class Side(Enum):
    """The places of a stream, in the direction of the current; the value is how messages name them."""

    SOURCE = "source"
    HOME = "home Kafka"
    FOREIGN = "foreign Kafka"
    REPLICA = "replica"


class Clock(NamedTuple):
    """A server's clock as the observer read it."""

    read_at: float
    """The observer's clock, half way through the reading."""
    ahead_seconds: float
    """The server's clock less the observer's."""
    error_seconds: float
    """How far off that may be: half the round trip."""

    @property
    def now(self) -> float:
        """The server's time at the reading."""
        return self.read_at + self.ahead_seconds


class Beat(NamedTuple):
    """A heartbeat row, by the source's clock."""

    beat_at: float
    captured_at: float | None
    """The newest beat that the producer had read by then; None if it does not say."""
    published_at: float | None
    """The newest beat that the home cluster had acknowledged by then; None if it is not said."""


class Absent(NamedTuple):
    """The place answered, and what the stream needs there does not exist."""

    what: str


class SlotSeen(NamedTuple):
    """The stream's replication slot."""

    active: bool
    """Whether a session holds it."""
    lost: str
    """Why the server will send nothing from it any more; empty if it will."""
    confirmed_lsn: Lsn | None
    retained_bytes: int | None
    safe_bytes: int | None
    """How much more may be written before the server drops it; None: without limit, or not known."""


class FenceSeen(NamedTuple):
    """Who has shut a registry's database, and for which epoch."""

    to_epoch: int
    by: str
    fenced_at: float
    """By the source's clock."""
    proven: bool
    """Whether a report proves that the registry was promoted elsewhere."""


class SourceSeen(NamedTuple):
    """The registry's database at home."""

    clock: Clock
    flushed_lsn: Lsn
    beat: Beat | None
    began_at: float | None
    """When the stream began; None if it never did."""
    slot: SlotSeen | None
    """None: there is no slot of that name."""
    fence: FenceSeen | None = None
    """The fence for the highest epoch above the one that was enrolled; None: none is noted."""
    half_shut: bool = False
    """Whether writes are refused although none is noted."""
    follows: int = 0
    """The epoch of which the database is a replica now; 0: it is none."""


class TailSeen(NamedTuple):
    """The newest signed record of a topic that continues what came before it."""

    offset: int
    sequence: int
    epoch: int
    resume_lsn: Lsn
    appended_at: float
    """By the clock of the client that appended it."""
    proven: bool
    """Whether it is certain that it counts; else it only links to what was read before it."""


class TopicSeen(NamedTuple):
    """A stream's topic in one cluster."""

    read_at: float
    """The observer's clock."""
    first_offset: int
    next_offset: int
    tail: TailSeen | None
    """None: among the last records there was none of the enrolled producer."""

    @property
    def empty(self) -> bool:
        """Whether it holds nothing at all."""
        return self.first_offset == self.next_offset


class ProgressSeen(NamedTuple):
    """The replica's progress row."""

    epoch: int
    sequence: int
    resume_lsn: Lsn
    next_offset: int
    applied_at: float | None
    """When the row last moved, by the replica's clock."""
    committed_at: float | None
    """Source time of the newest transaction applied."""
    opening: bool = False
    """Whether a promotion has raised the epoch and has not come to its end."""


class ControlSeen(NamedTuple):
    """What was said about applying the stream."""

    frozen_at: float | None
    """By the replica's clock; None: it is not frozen."""
    frozen_by: str
    reason: str
    delay_seconds: float
    """How far the consumer keeps the replica behind on purpose."""


class VerifiedSeen(NamedTuple):
    """What verifications have found of a replica."""

    ended_at: float | None
    """When the newest verification of everything ended, by the replica's clock; None: there was none."""
    outcome: str | None
    """How it ended: match, differs, or undecided."""
    differing_rows: int
    """Of all tables, each as it was compared last."""


class CopySeen(NamedTuple):
    """Tables' rows that are still being copied: a table's copies that are not done, together."""

    table: str
    rows_copied: int
    rows_expected: int | None
    """By the planner's estimate when it began; None: it has not."""
    lacks_key: bool = False
    """Whether home keeps the table out of the stream until it has a key."""


class ReplicaSeen(NamedTuple):
    """The stream's replica in the embassy."""

    clock: Clock
    beat: Beat | None
    progress: ProgressSeen | None
    holder: str
    """Who holds the lease on the stream; empty: nobody."""
    blocked_by: str = ""
    """Processes of the replica's server for whose locks the holder waits; empty: none."""
    control: ControlSeen | None = None
    """None: nothing was ever said."""
    verified: VerifiedSeen | None = None
    """None: the replica cannot tell."""
    copies: tuple[CopySeen, ...] = ()
    """Tables that are not whole, at the place that the replica has come to."""


class Observation(NamedTuple):
    """One stream, as seen from one place with one configuration."""

    observed_at: float
    """The observer's clock."""
    sides: frozenset[Side]
    """Where it was looked; a side that is here and None below did not answer."""
    enrolled_epoch: int | None = None
    replica: ReplicaSeen | Absent | None = None
    foreign: TopicSeen | Absent | None = None
    source: SourceSeen | Absent | None = None
    home: TopicSeen | Absent | None = None
    unsent_since: float | None = None
    """When home appended the oldest record that the embassy's topic lacks (or one before it); None: not known."""


def verified_seen(observation: Observation) -> VerifiedSeen | None:
    """What verifications have found of the replica; None: not known from here."""
    return observation.replica.verified if isinstance(observation.replica, ReplicaSeen) else None
