"""What one turn of the collection has brought: values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from embassy.model.look import Look
from embassy.runtime.audit_line import AuditEntry


class Operation(NamedTuple):
    """Something that operators have begun and not brought to its end."""

    registry: str
    kind: str
    """``promotion``, ``freeze``, ``stop at`` or ``failback``."""
    since: float | None
    """Seconds since 1970 UTC, by the replica's clock; None: not known."""
    standing: str
    """How far it is, or why it was begun."""
    persons: tuple[str, ...]
    """Who has signed it, by the roster."""
    command: str
    """What goes on with it, or tells more."""


class Desk(NamedTuple):
    """What a replica holds of its operators' doings."""

    obstacles: tuple[str, ...]
    """Why a plan would not promote it now; empty: it could."""
    operations: tuple[Operation, ...]


class AuditSeen(NamedTuple):
    """The end of the audit log."""

    place: str
    entries: tuple[AuditEntry, ...] = ()
    """Newest first."""
    problem: str = ""
    """Why there are none to show, or why they are not to be trusted."""


class Seen(NamedTuple):
    """One look, and what was read beside it."""

    look: Look
    document: Mapping[str, Any]
    """What `embassy status --json` prints of the look."""
    desks: Mapping[str, Desk | str]
    """By registry; a string says why it is not known. A registry without a replica is missing."""
    audit: AuditSeen
    config: str
    """The configuration file, to be named in commands."""
