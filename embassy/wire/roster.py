"""The roster as a document: who the operators are, version by version, each approved by those of the one before.

As in The Update Framework: a version's number is exactly one more, it names the version before by its hash, and it is
signed by the old version's threshold of the old version's persons, and by its own threshold of its own, who so prove
that they have their keys. The first version is signed by its own persons, and where key files stand beside it, by all of
theirs too. The file holds all versions, so that any reader can go the whole way from the first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.wire.key_document import checked_person, damaged, load_object, parse_object
from embassy.wire.public_keys import DOCUMENT_BYTES_MOST, PublicOperator, read_text
from embassy.wire.signed_document import SignedDocument, Signer
from embassy.wire.suite import ED25519_KEY_BYTES, roster_message

FORMAT = "data-embassy roster 1"
_WHAT = "roster"
_VERSION = 1
_NO_VERSION = bytes(32)
_MEMBERS = {"version", "number", "threshold", "operators", "previous"}


class Roster(NamedTuple):
    """Whose signatures count, and how many persons'."""

    number: int
    """Of the version, from 1; 0 for a list of key files."""
    threshold: int
    operators: tuple[PublicOperator, ...]

    @property
    def persons(self) -> tuple[str, ...]:
        """Each person once, by name."""
        return tuple(sorted({operator.person for operator in self.operators}))


@dataclass(frozen=True, slots=True)
class RosterVersion(SignedDocument):
    """One version with its signatures; nothing of it is proven."""

    what: ClassVar[str] = "version of the roster"

    @classmethod
    def draft(cls, roster: Roster, previous: bytes) -> RosterVersion:
        """A version that nobody has signed; ``previous`` is the SHA-256 of the payload before, or zeros."""
        operators = [{"person": found.person, "ed25519": found.ed25519.hex()} for found in roster.operators]
        payload = {
            "version": _VERSION,
            "number": roster.number,
            "threshold": roster.threshold,
            "operators": operators,
            "previous": previous.hex(),
        }
        return cls(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode("ascii"))

    def message(self) -> bytes:
        """What is signed."""
        return roster_message(self.payload)

    def parsed(self, place: Path, *, number: int, previous: bytes) -> Roster:
        """What it says, if it is the version of this number behind the one of this hash.

        Raises:
            ConfigurationError: it is another one, or damaged.
        """
        fields = load_object(self.payload, self.what, place)
        try:
            return _parsed(fields, number, previous)
        except (LookupError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"version {number} of the roster cannot be used: {error}",
                place=str(place),
                hint="take the roster's file from the operators again",
            ) from error


@dataclass(frozen=True, slots=True)
class RosterFile:
    """All versions, the last ones perhaps not signed by enough; nothing of it is proven."""

    versions: tuple[RosterVersion, ...]

    @classmethod
    def begin(cls, operators: Sequence[PublicOperator], threshold: int) -> RosterFile:
        """A file whose first version nobody has signed.

        Raises:
            ConfigurationError: the persons are fewer than the threshold, or a key stands twice.
        """
        return cls((RosterVersion.draft(_checked(Roster(1, threshold, tuple(operators))), _NO_VERSION),))

    @classmethod
    def read(cls, path: Path) -> RosterFile:
        """Read a file.

        Raises:
            ConfigurationError: it cannot be read, or has another form.
        """
        document = load_object(read_text(path, _WHAT, DOCUMENT_BYTES_MOST), _WHAT, path)
        versions = document.get("versions")
        if document.keys() != {"format", "versions"} or document["format"] != FORMAT or not versions:
            raise damaged(_WHAT, path)
        if not isinstance(versions, list):
            raise damaged(_WHAT, path)
        return cls(tuple(RosterVersion.from_object(version, path) for version in versions))

    def render(self) -> str:
        """The file's content."""
        document = {"format": FORMAT, "versions": [version.as_object() for version in self.versions]}
        return json.dumps(document, indent=2) + "\n"

    def signed(self, operator: Signer) -> RosterFile:
        """The same with an operator's signature on the last version.

        Raises:
            RefusedError: the operator has signed it already.
        """
        return RosterFile((*self.versions[:-1], self.versions[-1].signed(operator)))

    def changed(self, operators: Sequence[PublicOperator], threshold: int, place: Path) -> RosterFile:
        """The same with one more version, which nobody has signed.

        Raises:
            ConfigurationError: a version is damaged, or the persons are fewer than the threshold.
        """
        number = len(self.stated(place)) + 1
        roster = _checked(Roster(number, threshold, tuple(operators)))
        return RosterFile((*self.versions, RosterVersion.draft(roster, self.versions[-1].payload_hash)))

    def stated(self, place: Path) -> tuple[Roster, ...]:
        """What each version says, signed or not.

        Raises:
            ConfigurationError: one does not follow the one before, or is damaged.
        """
        found: list[Roster] = []
        previous = _NO_VERSION
        for number, version in enumerate(self.versions, 1):
            found.append(version.parsed(place, number=number, previous=previous))
            previous = version.payload_hash
        return tuple(found)

    def proven(self, anchor: Roster | None, place: Path) -> Roster:
        """The last version that enough persons have signed; those behind it do not count yet.

        Args and Raises: as `history`.
        """
        return self.history(anchor, place)[-1]

    def history(self, anchor: Roster | None, place: Path) -> tuple[Roster, ...]:
        """The versions that enough persons have signed, oldest first: the last one counts now, the others once did.

        Args:
            anchor: the list of key files that the first version has to be approved by as well; None if there is none.
            place: the file, for messages.

        Raises:
            ConfigurationError: already the first version lacks signatures, or one is damaged.
        """
        before, proven = anchor, list[Roster]()
        for version, roster in zip(self.versions, self.stated(place), strict=True):
            judges = (roster,) if before is None else (before, roster)
            if any(len(version.signers(judge.operators)) < judge.threshold for judge in judges):
                break
            before = roster
            proven.append(roster)
        if not proven:
            raise ConfigurationError(
                "the first version of the roster is not signed by enough of the persons it needs",
                place=str(place),
                hint="let them sign it with embassy keys roster sign",
            )
        return tuple(proven)


def is_roster(path: Path) -> bool:
    """Whether a file is a roster's, and not a person's key.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return parse_object(read_text(path, "file of operators", DOCUMENT_BYTES_MOST)).get("format") == FORMAT
    except ValueError:
        return False


def without(roster: Roster, persons: Sequence[str]) -> tuple[PublicOperator, ...]:
    """The operators but for some persons'.

    Raises:
        RefusedError: one of them is not in the roster.
    """
    for person in persons:
        if person not in roster.persons:
            raise RefusedError(
                f"{person} is not in the roster", place=_WHAT, hint=f"in it are {', '.join(roster.persons)}"
            )
    return tuple(operator for operator in roster.operators if operator.person not in persons)


def _checked(roster: Roster) -> Roster:
    try:
        _check(roster)
    except ValueError as error:
        raise ConfigurationError(
            str(error), place=_WHAT, hint="name other persons, or another threshold"
        ) from error
    return roster


def _check(roster: Roster) -> None:
    if len({operator.ed25519 for operator in roster.operators}) != len(roster.operators):
        raise ValueError("a key stands twice in it")
    if not 1 <= roster.threshold <= len(roster.persons):
        raise ValueError(f"its threshold is {roster.threshold}, and its persons are {len(roster.persons)}")


def _parsed(fields: Mapping[str, Any], number: int, previous: bytes) -> Roster:
    if fields.keys() != _MEMBERS:
        raise ValueError("a member is missing or unknown")
    expected = {"version": _VERSION, "number": number, "previous": previous.hex()}
    for name, value in expected.items():
        if fields[name] != value or type(fields[name]) is not type(value):
            raise ValueError(f"its {name} is {fields[name]!r}, and {value!r} is due")
    if type(fields["threshold"]) is not int:
        raise ValueError("its threshold is no number")
    operators = []
    for entry in fields["operators"]:
        if entry.keys() != {"person", "ed25519"}:
            raise ValueError("an operator has other members")
        key = bytes.fromhex(entry["ed25519"])
        if len(key) != ED25519_KEY_BYTES:
            raise ValueError("a key has the wrong length")
        operators.append(PublicOperator(checked_person(entry["person"]), key))
    roster = Roster(number, fields["threshold"], tuple(operators))
    _check(roster)
    return roster
