"""What the demonstration looks like at one moment; plain values, for the screen to show."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from deploy.demo.faults import Fault
from deploy.workload.ledger import Moment, Standing

FOLLOWING_SECONDS = 2.0
_PACE_SECONDS = 3.0


class State(Enum):
    """How a replica is doing, judged by what its readers see."""

    PREPARING = "preparing"
    FOLLOWING = "following"
    CATCHING_UP = "catching up"
    WAITING = "waiting"
    """Nothing new shows, though there is more to show."""
    HALTED = "halted"
    """A role has given the stream up."""
    NO_CLIENTS = "no clients"


@dataclass(frozen=True, slots=True)
class Row:
    """One registry on one replica; None where there are no clients whose transactions could be counted."""

    registry: str
    embassy: str
    state: State
    committed: int | None = None
    on_replica: int | None = None
    in_flight: int | None = None
    lag_seconds: float | None = None
    per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment.

    Attributes:
        elapsed_seconds: since the demonstration began.
        load_seconds: since the load began; None before.
        faults_planned: how many faults there will have been.
    """

    phase: str
    elapsed_seconds: float
    load_seconds: float | None
    rows: tuple[Row, ...]
    faults: tuple[Fault, ...]
    faults_planned: int


class Pace:
    """How fast a count grows, over the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings: deque[tuple[float, int]] = deque()

    def read(self, count: int) -> float:
        """Take a reading; return the growth per second since the oldest of the last few seconds."""
        now = self._clock()
        self._readings.append((now, count))
        while len(self._readings) > 2 and self._readings[1][0] <= now - _PACE_SECONDS:
            self._readings.popleft()
        began, first = self._readings[0]
        return (count - first) / (now - began) if now > began else 0.0


def row(
    registry: str, embassy: str, standing: Standing | None, pace: Pace, now: Moment, *, halted: bool, loaded: bool
) -> Row:
    """Describe one replica.

    Args:
        registry: the registry's name.
        embassy: where the replica is.
        standing: by the ledger; None of a registry without clients.
        pace: of this replica; it takes a reading.
        now: the present.
        halted: whether a role has given the stream up.
        loaded: whether the load has begun.
    """
    if standing is None:
        idle = State.NO_CLIENTS if loaded else State.PREPARING
        return Row(registry, embassy, State.HALTED if halted else idle)
    on_replica = standing.committed - standing.unseen
    per_second = pace.read(on_replica)
    since = standing.unseen_since
    lag_seconds = 0.0 if since is None else max(0.0, (now.monotonic_ns - since.monotonic_ns) / 1e9)
    if halted:
        state = State.HALTED
    elif not loaded:
        state = State.PREPARING
    elif lag_seconds < FOLLOWING_SECONDS:
        state = State.FOLLOWING
    else:
        state = State.CATCHING_UP if per_second > 0 else State.WAITING
    return Row(registry, embassy, state, standing.committed, on_replica, standing.unseen, lag_seconds, per_second)
