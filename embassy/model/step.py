"""One thing that provisioning finds or makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Step(NamedTuple):
    """A thing that a stream needs; a plan lists them, and applying it makes those that are missing, in order."""

    place: str
    what: str
    make: Callable[[], object] | None
    """None: it is there."""
    refresh: Callable[[], object] | None = None
    """Brings what is there up to date; changes nothing that counts."""
    warning: str = ""
    """Why it cannot be made by this role, and what that means."""

    def take(self) -> None:
        """Make it, or bring it up to date."""
        action = self.make or self.refresh
        if action is not None:
            action()
