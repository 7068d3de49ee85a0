"""Plans of promotions: what is to be promoted, from which state, until when; exact bytes that operators approve.

A plan is bound to the streams, their epochs and enrolments, the roster, the embassy's own identity and a *minimum*
position: exact positions are old with the next heartbeat. It expires by the clock of each replica, never by home's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from embassy.model.errors import ConfigurationError
from embassy.model.lsn import Lsn
from embassy.wire.enrolment import stream_id
from embassy.wire.key_document import damaged, load_object
from embassy.wire.public_keys import PublicIdentity, PublicOperator
from embassy.wire.signed_document import SignedDocument
from embassy.wire.suite import ED25519_KEY_BYTES, MLDSA65_KEY_BYTES, promotion_message

NONCE_BYTES = 16
_VERSION = 1
_WHAT = "promotion plan"
_ROSTER_DOMAIN = b"data-embassy roster 1\0"


class PlannedStream(NamedTuple):
    """One stream of a plan."""

    name: str
    stream: bytes
    from_epoch: int
    to_epoch: int
    enrolment: bytes
    """The hash of the enrolment that the stream follows."""
    minimum_sequence: int
    minimum_lsn: Lsn
    expires_at: int
    """Seconds since 1970 UTC, by the newest clock that the replica's server has ever shown."""


class Waivers(NamedTuple):
    """What the operators accept beside the loss."""

    undrained: bool = False
    """Records in the embassy's log that cannot be applied are left behind."""
    violations: bool = False
    """Rows that break a constraint are left as they are."""
    differences: bool = False
    """Rows that the last comparison with home found to differ are left as they are."""
    incomplete: bool = False
    """Tables whose rows have not all been copied are left as they are."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a plan says."""

    mode: str
    site: str
    nonce: bytes
    made_at: int
    """Seconds since 1970 UTC, by the planner's clock; for people."""
    accept_loss_seconds: int | None
    """How much may be lost, counted back from the sealing; None: nothing."""
    waivers: Waivers
    roster: bytes
    """The hash of the operators' keys and their threshold."""
    identity: PublicIdentity
    """The embassy's own, which signs the report."""
    streams: tuple[PlannedStream, ...]

    def stream(self, identity: bytes) -> PlannedStream | None:
        """The plan's part about a stream."""
        return next((planned for planned in self.streams if planned.stream == identity), None)


@dataclass(frozen=True, slots=True)
class PlanFile(SignedDocument):
    """A plan with its approvals; nothing of it is proven."""

    what: ClassVar[str] = _WHAT

    @classmethod
    def draft(cls, plan: Plan) -> PlanFile:
        """A new plan that nobody has approved."""
        payload = {
            "version": _VERSION,
            "mode": plan.mode,
            "site": plan.site,
            "nonce": plan.nonce.hex(),
            "made_at": plan.made_at,
            "accept_loss_seconds": plan.accept_loss_seconds,
            "accept_undrained": plan.waivers.undrained,
            "accept_violations": plan.waivers.violations,
            "accept_differences": plan.waivers.differences,
            "roster": plan.roster.hex(),
            "identity": {"ed25519": plan.identity.ed25519.hex(), "mldsa65": plan.identity.mldsa65.hex()},
            "streams": [
                {
                    "name": planned.name,
                    "stream": planned.stream.hex(),
                    "from_epoch": planned.from_epoch,
                    "to_epoch": planned.to_epoch,
                    "enrolment": planned.enrolment.hex(),
                    "minimum_sequence": planned.minimum_sequence,
                    "minimum_lsn": str(planned.minimum_lsn),
                    "expires_at": planned.expires_at,
                }
                for planned in plan.streams
            ],
        }
        if plan.waivers.incomplete:  # rarely so: plans without it stay what every version of the program reads
            payload[_INCOMPLETE] = True
        return cls(json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8"))

    def message(self) -> bytes:
        """What is signed."""
        return promotion_message(self.payload)

    def parsed(self, place: Path) -> Plan:
        """What the payload says.

        Raises:
            ConfigurationError: it is of another version, or damaged.
        """
        fields = load_object(self.payload, _WHAT, place)
        version = fields.get("version")
        if version != _VERSION or isinstance(version, bool):
            raise ConfigurationError(
                f"the {_WHAT} has version {version!r}; this program knows {_VERSION}",
                place=str(place),
                hint="use the program that made it, or make a new plan",
            )
        try:
            return _parsed(fields)
        except (LookupError, ValueError, TypeError) as error:
            raise damaged(_WHAT, place) from error


def roster_hash(roster: Sequence[PublicOperator], threshold: int) -> bytes:
    """The hash of who may approve, and how many of them it takes."""
    digest = hashlib.sha256(_ROSTER_DOMAIN + threshold.to_bytes(4, "big"))
    for operator in sorted({(o.ed25519, o.person) for o in roster}):
        digest.update(operator[0] + operator[1].encode("utf-8") + b"\0")
    return digest.digest()


_MEMBERS = {
    *("version", "mode", "site", "nonce", "made_at", "accept_loss_seconds", "accept_undrained"),
    *("accept_violations", "accept_differences", "roster", "identity", "streams"),
}
_INCOMPLETE = "accept_incomplete"
_STREAM_MEMBERS = {
    *("name", "stream", "from_epoch", "to_epoch", "enrolment", "minimum_sequence", "minimum_lsn", "expires_at"),
}


def _parsed(fields: Mapping[str, Any]) -> Plan:
    if fields.keys() - {_INCOMPLETE} != _MEMBERS:
        raise ValueError("a member is missing or unknown")
    loss = fields["accept_loss_seconds"]
    keys = fields["identity"]
    identity = PublicIdentity(bytes.fromhex(keys["ed25519"]), bytes.fromhex(keys["mldsa65"]))
    if (len(identity.ed25519), len(identity.mldsa65)) != (ED25519_KEY_BYTES, MLDSA65_KEY_BYTES):
        raise ValueError("a key has the wrong length")
    plan = Plan(
        mode=_text(fields["mode"]),
        site=_text(fields["site"]),
        nonce=bytes.fromhex(fields["nonce"]),
        made_at=_number(fields["made_at"]),
        accept_loss_seconds=None if loss is None else _number(loss),
        waivers=Waivers(
            undrained=_flag(fields["accept_undrained"]),
            violations=_flag(fields["accept_violations"]),
            differences=_flag(fields["accept_differences"]),
            incomplete=_flag(fields.get(_INCOMPLETE, False)),
        ),
        roster=bytes.fromhex(fields["roster"]),
        identity=identity,
        streams=tuple(_planned(entry) for entry in fields["streams"]),
    )
    if len(plan.nonce) != NONCE_BYTES or not plan.streams or plan.mode not in ("disaster", "switchover"):
        raise ValueError("a member is out of range")
    if len({planned.stream for planned in plan.streams}) != len(plan.streams):
        raise ValueError("a stream stands twice")
    return plan


def _planned(entry: Any) -> PlannedStream:
    if not isinstance(entry, dict) or entry.keys() != _STREAM_MEMBERS:
        raise ValueError("a member of a stream is missing or unknown")
    return PlannedStream(
        _text(entry["name"]),
        stream_id(entry["stream"]),
        _number(entry["from_epoch"]),
        _number(entry["to_epoch"]),
        bytes.fromhex(entry["enrolment"]),
        _number(entry["minimum_sequence"]),
        Lsn.parse(entry["minimum_lsn"]),
        _number(entry["expires_at"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("not a text")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("not a number")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("not a truth value")
    return value
