"""Waiting with a deadline, and giving up at once when the whole start is abandoned."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from embassy.model.errors import RefusedError

Announce = Callable[[str, str], None]
"""Told what happens: (subject, stage), for example ("home kafka", "starting")."""


def silent(subject: str, stage: str) -> None:
    """Announce to nobody."""


_INTERRUPTED = "the start of the lab was interrupted"


class AbandonedError(RefusedError):
    """The start was interrupted; the servers it began are being stopped."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How the lab waits: a step's limit is given per step, an interrupt ends every wait.

    Attributes:
        abandoned: set when the start is interrupted; every wait then raises.
        pause_seconds: time between two looks.
    """

    abandoned: threading.Event = field(default_factory=threading.Event)
    pause_seconds: float = 0.04

    def looks(self, limit_seconds: float) -> Iterator[float]:
        """Yield the seconds left before each look, the first at once, until the limit has passed.

        Raises:
            AbandonedError: the start was interrupted.
        """
        end = time.monotonic() + limit_seconds
        if self.abandoned.is_set():
            raise AbandonedError(_INTERRUPTED)
        while (left := end - time.monotonic()) > 0:
            yield left
            if self.abandoned.wait(min(self.pause_seconds, left)):
                raise AbandonedError(_INTERRUPTED)
