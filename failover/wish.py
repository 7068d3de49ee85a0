"""What is asked of the promotion of one stream, and what it reaches out to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import psycopg

from embassy.model.chain import Signers
from embassy.wire.head_search import Log
from embassy.wire.promotion_plan import PlannedStream, Waivers
from failover.drain import Applying
from failover.promotion import Step, Terms


class Reverse(NamedTuple):
    """What the stream the other way needs in a promoted replica."""

    producer_role: str
    slot: str
    publication: str


class Wish(NamedTuple):
    """What is to be promoted, and on whose word."""

    planned: PlannedStream
    nonce: bytes
    document: str
    """The plan with its approvals, for the journal."""
    terms: Terms
    persons: frozenset[str]
    accept_loss_seconds: int | None
    waivers: Waivers
    application_roles: tuple[str, ...]
    sequence_headroom: int
    drain_seconds: float
    reverse: Reverse | None
    """None: no reverse stream is configured, and none is prepared."""


class Ports(NamedTuple):
    """What a promotion reaches out to."""

    dsn: str
    log: Callable[[], AbstractContextManager[Log]]
    """Opens the stream's topic in the embassy's cluster."""
    signers: Signers
    applying: Callable[[], AbstractContextManager[Applying]]
    let_in: Callable[[psycopg.Connection[Any]], None]
    """Lets the application's roles log in; ten registries of one server share them."""
    tell: Callable[[Step, str], None]
    """Told of each step as it begins, and of what it found."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    pause: Callable[[float], None]
