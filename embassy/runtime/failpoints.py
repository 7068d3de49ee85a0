"""Crash windows, by name: places where a test ends the process between two steps.

``EMBASSY_FAILPOINT=name[:nth][:kill|raise]`` arms one: at the nth time (default 1) that the place is reached the
process kills itself, as a power failure would, or raises `FailpointReached`. Unarmed, a place costs one comparison.
Fault tests go through each list of them, so a window added here is tested from then on.
"""

from __future__ import annotations

import difflib
import os
import signal
import threading
from typing import Final

from embassy.model.errors import ConfigurationError

ENVIRONMENT: Final = "EMBASSY_FAILPOINT"

PRODUCER_AFTER_INCARNATION_NOTED: Final = "producer.after_incarnation_noted"
PRODUCER_AFTER_KEY_APPENDED: Final = "producer.after_key_appended"
PRODUCER_AFTER_KEY_COUNTED: Final = "producer.after_key_counted"
PRODUCER_AFTER_GENESIS_MARKED: Final = "producer.after_genesis_marked"
PRODUCER_BEFORE_APPEND: Final = "producer.before_append"
PRODUCER_AFTER_APPEND: Final = "producer.after_append"
PRODUCER_BETWEEN_PARTS: Final = "producer.between_parts"
PRODUCER_BETWEEN_STRETCHES: Final = "producer.between_stretches"
PRODUCER_AFTER_ACK: Final = "producer.after_ack"
PRODUCER_AFTER_CONFIRM: Final = "producer.after_confirm"
PRODUCER_AFTER_CHUNK_READ: Final = "producer.after_chunk_read"
PRODUCER_AFTER_CHUNK_SHIPPED: Final = "producer.after_chunk_shipped"
PRODUCER_BETWEEN_PIECES: Final = "producer.between_pieces"
PRODUCER_AFTER_ROW_REQUESTED: Final = "producer.after_row_requested"
PRODUCER_AFTER_COPY_NOTED: Final = "producer.after_copy_noted"
BRIDGE_BEFORE_APPEND: Final = "bridge.before_append"
BRIDGE_AFTER_APPEND: Final = "bridge.after_append"
BRIDGE_BETWEEN_PARTS: Final = "bridge.between_parts"
CONSUMER_BEFORE_APPLY: Final = "consumer.before_apply"
CONSUMER_BETWEEN_PARTS: Final = "consumer.between_parts"
CONSUMER_AFTER_CHUNK_CLEARED: Final = "consumer.after_chunk_cleared"
CONSUMER_BEFORE_DDL: Final = "consumer.before_ddl"
CONSUMER_AFTER_DDL: Final = "consumer.after_ddl"
CONSUMER_BEFORE_REPLAY: Final = "consumer.before_replay"
CONSUMER_AFTER_APPLY: Final = "consumer.after_apply"
CONSUMER_BEFORE_COMMIT: Final = "consumer.before_commit"
CONSUMER_AFTER_COMMIT: Final = "consumer.after_commit"

ALL: Final = (
    PRODUCER_AFTER_INCARNATION_NOTED,
    PRODUCER_AFTER_KEY_APPENDED,
    PRODUCER_AFTER_KEY_COUNTED,
    PRODUCER_AFTER_GENESIS_MARKED,
    PRODUCER_BEFORE_APPEND,
    PRODUCER_AFTER_APPEND,
    PRODUCER_BETWEEN_PARTS,
    PRODUCER_AFTER_ACK,
    PRODUCER_AFTER_CONFIRM,
    BRIDGE_BEFORE_APPEND,
    BRIDGE_AFTER_APPEND,
    BRIDGE_BETWEEN_PARTS,
    CONSUMER_BEFORE_APPLY,
    CONSUMER_BETWEEN_PARTS,
    CONSUMER_BEFORE_REPLAY,
    CONSUMER_AFTER_APPLY,
    CONSUMER_BEFORE_COMMIT,
    CONSUMER_AFTER_COMMIT,
)

BACKLOG: Final = (PRODUCER_BETWEEN_STRETCHES,)
"""While a backlog is read by query."""

COPYING: Final = (
    PRODUCER_AFTER_CHUNK_READ,
    PRODUCER_AFTER_CHUNK_SHIPPED,
    PRODUCER_BETWEEN_PIECES,
    PRODUCER_AFTER_ROW_REQUESTED,
    PRODUCER_AFTER_COPY_NOTED,
    CONSUMER_AFTER_CHUNK_CLEARED,
)
"""While a table is copied."""

DDL: Final = (CONSUMER_BEFORE_DDL, CONSUMER_AFTER_DDL)
"""Around a statement of the source's, in the transaction that its batch is applied in."""

PROMOTION_STEPS: Final = (
    *("lock", "gate", "drain", "seal", "verify", "epoch"),
    *("sequences", "reverse", "open", "smoke", "report"),
)
PROMOTION: Final = tuple(
    f"promotion.{moment}_{step}" for step in PROMOTION_STEPS for moment in ("before", "after")
)
"""Around each step of a promotion: after its intent is journalled, and before its result is."""

SWITCHOVER: Final = ("promotion.before_fence_home", "promotion.after_fence_home")
"""Around the step that only a switchover has."""

HOME_AFTER_ROLES: Final = "home.after_roles"
HOME_AFTER_TABLES: Final = "home.after_tables"
HOME_AFTER_SAID: Final = "home.after_said"
FENCING: Final = (HOME_AFTER_ROLES, HOME_AFTER_TABLES, HOME_AFTER_SAID)
"""While a source is shut: its roles have lost their login, each table refuses writes, the stream was told so."""
HOME_BETWEEN_RELEASES: Final = "home.between_releases"
PROMOTION_AFTER_ABORTED: Final = "promotion.after_aborted"
CALLING_OFF: Final = (PROMOTION_AFTER_ABORTED, HOME_BETWEEN_RELEASES)
"""While a switchover is called off: the plan is used up, and no proof of it is written; a table is open again, and the
fence is still noted."""

FAILBACK_STEPS: Final = ("fence", "bundle", "guard", "clear", "slot", "begin", "level")
FAILBACK: Final = tuple(f"failback.{moment}_{step}" for step in FAILBACK_STEPS for moment in ("before", "after"))
"""Around each step by which a superseded database becomes a replica."""

KNOWN: Final = (*ALL, *BACKLOG, *COPYING, *DDL, *PROMOTION, *SWITCHOVER, *FENCING, *CALLING_OFF, *FAILBACK)
"""Every window."""


class FailpointReached(Exception):  # noqa: N818 - nothing is wrong: the test asked for it
    """An armed failpoint with the action ``raise`` was reached."""


class _Armed:
    """One armed failpoint and how often it may still be passed."""

    __slots__ = ("_action", "_left", "_lock", "name")

    def __init__(self, name: str, nth: int, action: str) -> None:
        self.name = name
        self._left = nth
        self._action = action
        self._lock = threading.Lock()  # streams run in threads of their own

    def hit(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left != 0:
                return
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise FailpointReached(self.name)


def parse(text: str) -> _Armed | None:
    """Read ``name[:nth][:kill|raise]``; empty text arms nothing.

    Raises:
        ConfigurationError: the name is unknown, or what follows it is neither a count nor an action.
    """
    if not text:
        return None
    name, *rest = text.split(":")
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, n=1)
        raise ConfigurationError(
            f"unknown failpoint {name!r}" + (f", did you mean {near[0]!r}?" if near else ""),
            place=ENVIRONMENT,
            hint=f"known are {', '.join(KNOWN)}",
        )
    nth, action = 1, "kill"
    if rest and rest[0].isascii() and rest[0].isdigit():
        nth = int(rest.pop(0))
    if rest and rest[0] in ("kill", "raise"):
        action = rest.pop(0)
    if rest or nth < 1:
        raise ConfigurationError(
            f"not a failpoint: {text!r}",
            place=ENVIRONMENT,
            hint=f"write name[:nth][:kill|raise], nth from 1; names are {', '.join(KNOWN)}",
        )
    return _Armed(name, nth, action)


_armed = parse(os.environ.get(ENVIRONMENT, ""))


def failpoint(name: str) -> None:
    """Fail here if this place is armed."""
    if _armed is not None and _armed.name == name:
        _armed.hit()
