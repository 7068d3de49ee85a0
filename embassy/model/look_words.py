"""What a look says, in words that the terminal and the web page have in common."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from embassy.model.findings import Finding
from embassy.model.health import State
from embassy.model.look import Observed
from embassy.model.observation import Side, verified_seen
from embassy.model.wording import instant, span

UNKNOWN = "?"
"""What stands for a figure that is not known."""
_VERIFIED_FRESH_SECONDS = 86_400


class Shade(Enum):
    """How good a figure is; each rendering has its own colours and signs for it."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    BAD = "bad"
    UNKNOWN = "unknown"


class Verified(NamedTuple):
    """What is known of a replica's rows."""

    words: str
    shade: Shade
    """Good only while every row is proven alike, and not for long."""


def verified_of(entry: Observed) -> Verified:
    """What verifications have found of a stream's replica."""
    seen = verified_seen(entry.observation)
    if seen is None:
        return Verified(UNKNOWN, Shade.UNKNOWN)
    if seen.differing_rows:
        return Verified(f"{seen.differing_rows} DIFFER", Shade.BAD)
    if seen.ended_at is None:
        return Verified("never", Shade.DOUBTFUL)
    age = max(0.0, entry.observation.observed_at - seen.ended_at)
    if seen.outcome != "match":
        return Verified(f"{span(age)} ?", Shade.DOUBTFUL)
    return Verified(f"{span(age)} OK", Shade.GOOD if age < _VERIFIED_FRESH_SECONDS else Shade.DOUBTFUL)


def differing_of(entry: Observed) -> str:
    """What is amiss with a replica of which rows are known to differ, as long as they do; empty if none are."""
    seen = verified_seen(entry.observation)
    if seen is None or not seen.differing_rows:
        return ""
    rows = "1 row is" if seen.differing_rows == 1 else f"{seen.differing_rows} rows are"
    return f"{rows} not as at home, as last compared"


def told_of(entry: Observed, cause: Finding) -> str:
    """A stream's first finding."""
    beat = entry.health.measures.heartbeat_at
    stage = cause.stage.value
    if entry.health.state is State.STALLED and beat is not None:
        since = instant(beat, now=entry.observation.observed_at)
        return f"no heartbeat since {since} ({stage}): {cause.text}"
    if entry.health.state is State.PROVISIONING and Side.REPLICA in entry.observation.sides:
        return f"no heartbeat yet ({stage}): {cause.text}"
    return f"({stage}) {cause.text}"


def remedy_of(entry: Observed, remedy: str, config: str) -> str:
    """A command is written so that it can be run here, if what it looks at can be reached from here."""
    if not remedy.startswith("embassy "):
        return remedy
    if remedy == "embassy doctor home" and not entry.observation.sides & {Side.SOURCE, Side.HOME}:
        return f"at home: {remedy}"
    named = f" -c {config}" if config else ""
    return f"embassy{named} -r {entry.registry} {remedy.removeprefix('embassy ')}"
