"""Reports of promotions: what was promoted and what may be lost, signed by the embassy that the approved plan names.

A report carries the plan with its approvals. So whoever has the operators' public keys can check the whole: it is the
certificate by which a home that returns learns that it was superseded.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from embassy.model.errors import ConfigurationError
from embassy.wire.key_document import damaged, load_object
from embassy.wire.promotion_plan import Plan, PlanFile, roster_hash
from embassy.wire.public_keys import PublicIdentity, read_text
from embassy.wire.roster import Roster
from embassy.wire.suite import ED25519_SIGNATURE_BYTES, report_message

_VERSION = 1
_WHAT = "promotion report"
_PERSONS_LEAST = 2
_SIZE_MOST = 16 << 20


class Signer(Protocol):
    """An embassy's secret identity."""

    def sign_twice(self, message: bytes) -> bytes:
        """An Ed25519 signature and behind it one of ML-DSA-65."""


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A report with its signature; nothing of it is proven."""

    payload: bytes
    signature: bytes

    @classmethod
    def made(cls, plan: PlanFile, streams: Sequence[Mapping[str, Any]], signer: Signer) -> ReportFile:
        """A new report.

        Args:
            plan: as it was run, with its approvals.
            streams: what became of each stream; ``stream`` (hexadecimal) is needed, and ``aborted`` where the plan was
                given up.
            signer: the identity that the plan names.
        """
        fields = {
            "version": _VERSION,
            "plan": base64.b64encode(plan.render().encode("utf-8")).decode("ascii"),
            "streams": list(streams),
        }
        payload = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
        return cls(payload, signer.sign_twice(report_message(payload)))

    @classmethod
    def read(cls, path: Path) -> ReportFile:
        """Read a file.

        Raises:
            ConfigurationError: it cannot be read, or has another form.
        """
        document = load_object(read_text(path, _WHAT, _SIZE_MOST), _WHAT, path)
        if document.keys() == {"payload", "signatures"}:
            raise ConfigurationError(
                "the file is what operators sign, a plan for one, and no promotion report",
                place=str(path),
                hint="the report is what promote run has written, by default as PLAN with .report.json",
            )
        try:
            if document.keys() != {"payload", "signature"}:
                raise ValueError  # noqa: TRY301 - one way out for every defect
            return cls(base64.b64decode(document["payload"], validate=True), bytes.fromhex(document["signature"]))
        except (LookupError, ValueError, TypeError, binascii.Error) as error:
            raise damaged(_WHAT, path) from error

    def render(self) -> str:
        """The file's content."""
        document = {
            "payload": base64.b64encode(self.payload).decode("ascii"),
            "signature": self.signature.hex(),
        }
        return json.dumps(document, indent=2) + "\n"

    def proven(self, rosters: Sequence[Roster], place: Path) -> Report:
        """What the report says, once its approvals and its signature hold.

        Persons come and go, and what they approved stays approved: those count who were operators by the version of the
        roster that the plan names, and those who are operators now.

        Args:
            rosters: the versions of the roster that have ever counted, oldest first; the last one counts now.
            place: the file, for messages.

        Raises:
            ConfigurationError: too few persons approved its plan, it is not signed by the embassy that the plan names,
                or it is damaged.
        """
        plan_file, streams = self._stated(place)
        signers = [(roster, plan_file.signers(roster.operators)) for roster in rosters]
        enough = [(r, persons) for r, persons in signers if len(persons) >= max(_PERSONS_LEAST, r.threshold)]
        (present, now) = signers[-1]
        if enough:  # else nothing of the plan is parsed
            plan = plan_file.parsed(place)
            for roster, persons in enough:
                if roster is present or roster_hash(roster.operators, roster.threshold) == plan.roster:
                    self._must_be_signed_by(plan.identity, place)
                    return Report(plan, persons, persons & now, streams)
        raise ConfigurationError(
            f"the plan of this {_WHAT} is approved by {len(now)} of the operators",
            place=str(place),
            hint="if one of them has left since: name the roster in keys.operators, which keeps its earlier versions, or "
            "their key files once more; else this is no proof of a promotion: find out who placed it here",
        )

    def given_up(self, place: Path) -> GivenUp:
        """What an embassy says of a plan of its own, once its signature holds; who approved the plan is not asked.

        Raises:
            ConfigurationError: it is not signed by the embassy that the plan names, or it is damaged.
        """
        plan_file, streams = self._stated(place)
        plan = plan_file.parsed(place)
        self._must_be_signed_by(plan.identity, place)
        streams_of = frozenset(p.stream for p in plan.streams if _was_given_up(streams, p.stream))
        return GivenUp(plan_file.payload_hash, streams_of)

    def said_of(self, plan: PlanFile, place: Path) -> tuple[Mapping[str, Any], ...]:
        """What it says of the streams of a plan that is at hand, once the embassy's signature holds.

        Raises:
            ConfigurationError: it is about another plan, it is not signed by the embassy that the plan names, or it is
                damaged.
        """
        plan_file, streams = self._stated(place)
        if plan_file.payload != plan.payload:
            raise ConfigurationError(
                f"the {_WHAT} is about another plan", place=str(place), hint="name the one that is about this plan"
            )
        self._must_be_signed_by(plan.parsed(place).identity, place)
        return streams

    def claimed_epoch(self, stream: bytes, place: Path) -> int | None:
        """The epoch to which the report claims that a stream was promoted; nothing of it is proven.

        Raises:
            ConfigurationError: it is damaged.
        """
        plan_file, streams = self._stated(place)
        return _epoch_of(plan_file.parsed(place), streams, stream)

    def _stated(self, place: Path) -> tuple[PlanFile, tuple[Mapping[str, Any], ...]]:
        fields = load_object(self.payload, _WHAT, place)
        try:
            if fields.keys() != {"version", "plan", "streams"} or fields["version"] != _VERSION:
                raise ValueError  # noqa: TRY301 - one way out for every defect
            plan_file = PlanFile.parse(base64.b64decode(fields["plan"], validate=True), place)
            return plan_file, tuple(dict(entry) for entry in fields["streams"])
        except (LookupError, ValueError, TypeError, binascii.Error) as error:
            raise damaged(_WHAT, place) from error

    def _must_be_signed_by(self, identity: PublicIdentity, place: Path) -> None:
        if not _holds(identity, self.signature, report_message(self.payload)):
            raise ConfigurationError(
                f"the {_WHAT} is not signed by the embassy that its plan names",
                place=str(place),
                hint="this is no proof of a promotion; find out who placed it here",
            )


class GivenUp(NamedTuple):
    """An embassy's signed word that a plan of its own can never be run."""

    plan: bytes
    """The SHA-256 of the plan's payload, which names the embassy's keys."""
    streams: frozenset[bytes]
    """In whose replicas the plan is used up."""


@dataclass(frozen=True, slots=True)
class Report:
    """A proven report."""

    plan: Plan
    persons: frozenset[str]
    """Who approved it."""
    still_operators: frozenset[str]
    """Which of them are operators now."""
    streams: tuple[Mapping[str, Any], ...]

    def was_given_up(self, stream: bytes) -> bool:
        """Whether the plan was used up in the stream's replica without raising its epoch."""
        return _was_given_up(self.streams, stream)

    def epoch_of(self, stream: bytes) -> int | None:
        """The epoch to which a stream was promoted; None if it was not."""
        return _epoch_of(self.plan, self.streams, stream)


def _was_given_up(streams: Sequence[Mapping[str, Any]], stream: bytes) -> bool:
    return any(entry.get("stream") == stream.hex() and entry.get("aborted") is True for entry in streams)


def _epoch_of(plan: Plan, streams: Sequence[Mapping[str, Any]], stream: bytes) -> int | None:
    planned = plan.stream(stream)
    promoted = any(entry.get("stream") == stream.hex() and not entry.get("aborted") for entry in streams)
    return planned.to_epoch if planned is not None and promoted else None


def _holds(identity: PublicIdentity, signature: bytes, message: bytes) -> bool:
    """Whether both signatures hold, never either."""
    cut = ED25519_SIGNATURE_BYTES
    try:
        Ed25519PublicKey.from_public_bytes(identity.ed25519).verify(signature[:cut], message)
        MLDSA65PublicKey.from_public_bytes(identity.mldsa65).verify(signature[cut:], message)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True
