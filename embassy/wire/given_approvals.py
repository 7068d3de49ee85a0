"""What a person has approved before, kept beside their key: nobody helps to promote two embassies to one epoch.

Each of two embassies may have a plan that is valid by itself, and offline neither can know of the other's. The persons
who approve can: where the threshold is a majority of the roster, any two plans have a person in common, who is refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from embassy.model.errors import RefusedError
from embassy.wire import secret_file
from embassy.wire.key_document import damaged, load_object
from embassy.wire.promotion_plan import Plan, PlanFile
from embassy.wire.promotion_report import GivenUp
from embassy.wire.public_keys import PublicOperator

_WHAT = "record of given approvals"
_VERSION = 1
_SIZE_MOST = 16 << 20
_MODE = 0o600


class Given(NamedTuple):
    """One stream of a plan that was approved."""

    nonce: str
    site: str
    embassy: str
    """The Ed25519 key of the embassy that the plan names, hexadecimal."""
    stream: str
    name: str
    to_epoch: int
    plan: str = ""
    """The SHA-256 of the plan's payload, hexadecimal; empty: noted by a version that did not keep it."""


@dataclass(frozen=True, slots=True)
class GivenApprovals:
    """The approvals that one person has given."""

    given: tuple[Given, ...] = ()

    @classmethod
    def read(cls, path: Path) -> GivenApprovals:
        """Read the file; none means that nothing was approved.

        Raises:
            ConfigurationError: it cannot be read, is damaged, or others may change it.
        """
        if not path.exists() and not path.is_symlink():
            return cls()
        document = load_object(secret_file.read_secret(path, _WHAT, _SIZE_MOST), _WHAT, path)
        try:
            if document["version"] != _VERSION:
                raise ValueError  # noqa: TRY301 - one way out for every defect
            return cls(tuple(_given(entry) for entry in document["given"]))
        except (LookupError, ValueError, TypeError) as error:
            raise damaged(_WHAT, path) from error

    def write(self, path: Path) -> None:
        """Write the file, on disk when this returns.

        Raises:
            ConfigurationError: it cannot be written there.
        """
        text = json.dumps({"version": _VERSION, "given": [g._asdict() for g in self.given]}, indent=2) + "\n"
        if path.exists():
            secret_file.replace(path, text)
        else:
            secret_file.write_new(path, text, mode=_MODE)

    def with_plan(self, file: PlanFile, plan: Plan) -> GivenApprovals:
        """These and a plan's: the file, and what it says."""
        nonce, embassy, payload = plan.nonce.hex(), plan.identity.ed25519.hex(), file.payload_hash.hex()
        added = (
            Given(nonce, plan.site, embassy, p.stream.hex(), p.name, p.to_epoch, payload) for p in plan.streams
        )
        return replace(self, given=tuple(dict.fromkeys((*self.given, *added))))

    def refuse_second_embassy(
        self, plan: Plan, *, given_up: Collection[GivenUp], lost: Collection[str], place: Path
    ) -> None:
        """Refuse a plan that would make a second embassy the registry of an epoch.

        Args:
            plan: what is to be approved.
            given_up: the word of embassies that a plan of theirs was aborted; what they name is free again.
            lost: sites that the person declares gone: whatever was approved for them cannot be run any more.
            place: where these approvals are kept.

        Raises:
            RefusedError: the person has approved another embassy's promotion of one of the streams to the same epoch.
        """
        for earlier in self.given:
            planned = plan.stream(bytes.fromhex(earlier.stream))
            if (
                planned is None
                or planned.to_epoch != earlier.to_epoch
                or earlier.embassy == plan.identity.ed25519.hex()
                or earlier.site in lost
                or any(_gives_up(report, earlier) for report in given_up)
            ):
                continue
            raise RefusedError(
                f"you have approved that {earlier.site} becomes {earlier.name} in epoch {earlier.to_epoch} (plan "
                f"{earlier.nonce[:8]}): two sites would accept writes",
                place=str(place),
                hint=f"embassy promote abort that plan at {earlier.site} and give its proof (--given-up FILE); only if "
                f"that site is gone for good: --site-lost {earlier.site}",
            )


def is_majority(roster: Sequence[PublicOperator], threshold: int) -> bool:
    """Whether any two sets of persons that can approve have one in common."""
    return 2 * threshold > len({operator.person for operator in roster})


def _gives_up(word: GivenUp, earlier: Given) -> bool:
    """Whether it is about the very plan that was approved, which names the keys of the embassy that must say so."""
    return word.plan.hex() == earlier.plan and bytes.fromhex(earlier.stream) in word.streams


def _given(entry: Any) -> Given:
    given = Given(**entry)
    texts = (given.nonce, given.site, given.embassy, given.stream, given.name, given.plan)
    if type(given.to_epoch) is not int or not all(isinstance(text, str) for text in texts):
        raise ValueError("a member is of another kind")
    for digits in (given.nonce, given.embassy, given.stream, given.plan):
        bytes.fromhex(digits)
    return given
