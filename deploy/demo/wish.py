"""What to demonstrate."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deploy.workload.registry import Scale


@dataclass(frozen=True, slots=True)
class Wish:
    """What to demonstrate.

    Attributes:
        seconds: length of the load.
        faults: how many times something is killed; None for every target once a minute.
        pauses: how many times a role is paused.
        rate: transactions a second of each registry.
        clients: of each registry.
    """

    seconds: float
    seed: int
    faults: int | None = None
    pauses: int = 0
    rate: float = 10.0
    clients: int = 2
    registries: Path | None = None
    embassies: int | None = None
    postgres: str | None = None
    scale: Scale = field(default_factory=Scale)
