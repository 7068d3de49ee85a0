"""All streams at about one moment, as one observer saw them: values only."""

from __future__ import annotations

from typing import NamedTuple

from embassy.model.errors import EmbassyError
from embassy.model.health import Health
from embassy.model.observation import Observation, Side


class Problem(NamedTuple):
    """A place that could not be seen."""

    side: Side | None
    """None: the stream's enrolment."""
    registry: str
    """Empty: every stream's."""
    error: EmbassyError


class Observed(NamedTuple):
    """One stream."""

    registry: str
    rpo_target_seconds: float
    observation: Observation
    health: Health


class Look(NamedTuple):
    """All streams, at about one moment."""

    observed_at: float
    site: str
    sides: frozenset[Side]
    streams: tuple[Observed, ...]
    problems: tuple[Problem, ...]
