r"""One line of the audit log: how an entry is written, and what a line is.

The layout: ``{"action":…,"actor":…,"at":…,"details":{…},"outcome":…,"previous":…,"sequence":…,"hash":…}``,
the members before ``hash`` sorted and without spaces. The hash is the SHA-256 of ``data-embassy audit 1\0`` and
the line's bytes up to ``,"hash"``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from embassy.model.errors import ConfigurationError, IntegrityError

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"

TORN = "audit.torn-line"
"""The action of an entry that accounts for the torn line before it."""
LINE_BYTES_MOST = 64 << 10
"""No entry is longer."""
GENESIS = bytes(32)
"""What the first entry names as the hash before it."""
WHOLE = re.compile(rb',"hash":"[0-9a-f]{64}"\}\n\Z')
"""How an entry ends; a torn line does not."""

_DOMAIN = b"data-embassy audit 1\0"
_HASH_MARK = b',"hash":"'
_TAIL_BYTES = len(_HASH_MARK) + 64 + len(b'"}')
_MEMBERS = {"action", "actor", "at", "details", "outcome", "previous", "sequence", "hash"}


class AuditEntry(NamedTuple):
    """One entry as the file has it."""

    sequence: int
    """From 1, without gaps."""
    at: str
    """When, by this machine's clock: RFC 3339 in UTC."""
    action: str
    actor: str
    outcome: str
    details: Mapping[str, Any]
    hash: bytes


class Head(NamedTuple):
    """The entry that the next one is to name."""

    sequence: int
    hash: bytes


def render(
    head: Head, *, at: str, action: str, actor: str, outcome: str, details: Mapping[str, JSON]
) -> tuple[bytes, AuditEntry]:
    """The line of the entry that follows a head.

    Raises:
        ValueError: the entry is too long, or its details are not JSON.
    """
    fields = {
        "action": action,
        "actor": actor,
        "at": at,
        "details": dict(details),
        "outcome": outcome,
        "previous": head.hash.hex(),
        "sequence": head.sequence + 1,
    }
    try:
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"details are not JSON: {error}") from error
    signed = text.encode("utf-8")[:-1]
    digest = _hash(signed)
    line = signed + _HASH_MARK + digest.hex().encode("ascii") + b'"}\n'
    if len(line) > LINE_BYTES_MOST:
        raise ValueError(f"an entry of {len(line)} bytes is too long for the audit log")
    return line, AuditEntry(head.sequence + 1, at, action, actor, outcome, dict(details), digest)


def parsed(line: bytes) -> AuditEntry | None:
    """The entry of a line; None if it is not, byte for byte, one whose hash holds."""
    if not line.endswith(b'"}\n'):
        return None
    body = line[:-1]
    signed, tail = body[:-_TAIL_BYTES], body[-_TAIL_BYTES:]
    digest = _hash(signed)
    if tail != _HASH_MARK + digest.hex().encode("ascii") + b'"}':
        return None
    try:
        fields: Any = json.loads(body)
        if fields.keys() != _MEMBERS:
            return None
        return AuditEntry(
            fields["sequence"],
            fields["at"],
            fields["action"],
            fields["actor"],
            fields["outcome"],
            fields["details"],
            digest,
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def previous_of(line: bytes) -> bytes:
    """The hash that an entry names; empty where it names none."""
    try:
        return bytes.fromhex(json.loads(line)["previous"])
    except (ValueError, LookupError, TypeError):
        return b""


def account_of(torn: bytes) -> dict[str, JSON]:
    """The details of the entry that accounts for a torn line."""
    return {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}


def broken(path: Path, number: int | None, why: str) -> IntegrityError:
    """The error of a chain that does not hold, at a line or near the end."""
    where = f"{path}:{number}" if number is not None else str(path)
    return IntegrityError(
        f"the audit log's chain is broken: {why}",
        place=where,
        hint="keep the file as evidence; move it away, and the next entry begins a new log",
    )


def unopened(error: OSError, path: Path) -> ConfigurationError:
    """The error of a file that cannot be used."""
    return ConfigurationError(
        f"cannot use the audit log: {error.strerror}",
        place=str(path),
        hint="name a file that this user may write in audit.file; what cannot be recorded is not done",
    )


def _hash(signed: bytes) -> bytes:
    return hashlib.sha256(_DOMAIN + signed).digest()
