"""Whether a database that was shut for a plan is opened again once that plan was given up. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum, auto
from typing import TypeVar

Nonce = TypeVar("Nonce")


class Opening(Enum):
    """What the word that a plan was given up does to a database."""

    OPEN = auto()
    """Nothing else keeps it shut."""
    SHUT_FOR_OTHERS = auto()
    """That plan's fence is taken back, and the database stays shut for other plans until they are given up, too."""
    SUPERSEDED = auto()
    """A report proves that the registry was promoted elsewhere: nothing of the database counts any more."""


def decide_opening(promoted: Mapping[Nonce, bool], given_up: Nonce) -> Opening:
    """Conclude what to do.

    Args:
        promoted: for each plan for which the database is shut, above its own epoch: whether a report proves that it was
            run. Empty where shutting it never came to an end.
        given_up: the plan that its replica has used up.
    """
    if any(promoted.values()):
        return Opening.SUPERSEDED
    return Opening.SHUT_FOR_OTHERS if others(promoted, given_up) else Opening.OPEN


def others(fences: Collection[Nonce], given_up: Nonce) -> list[Nonce]:
    """The plans that keep a database shut beside the one that was given up."""
    return [nonce for nonce in fences if nonce != given_up]
