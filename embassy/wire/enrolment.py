"""Enrolments: the operators' word on which producer may write a stream, and where the stream begins.

A stream has one per epoch. It stands in the chain for record 0. What is signed is the payload's exact bytes, and
they are verified before they are parsed. Signatures are counted by person, and the person is looked up by the
trusted key, never taken from the file. The same file carries the producer's successors within the epoch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.model.lsn import Lsn
from embassy.model.record import ID_BYTES, Head
from embassy.wire.key_document import damaged, load_object
from embassy.wire.public_keys import DOCUMENT_BYTES_MOST, PublicIdentity, PublicOperator, load_public_operator
from embassy.wire.roster import Roster, RosterFile, is_roster
from embassy.wire.signed_document import SignedDocument, Signer
from embassy.wire.succession import Succession, parse_producer, render_producer
from embassy.wire.suite import SUITE, enrolment_message

_VERSION = 1
_WHAT = "enrolment"
_STREAM = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A stream's beginning under one producer.

    Attributes:
        stream: the stream's opaque identity.
        epoch: the reign of one writable primary.
        suite: the algorithms; there is no negotiation.
        producer: whose records count from the beginning.
        start_lsn: where the source's log is read from; zero leaves it to the slot.
        hash: of the payload; the first record names it as the record before.
        successors: whose records count from where one of them has taken over, in order.
    """

    stream: bytes
    epoch: int
    suite: int
    producer: PublicIdentity
    start_lsn: Lsn
    hash: bytes
    successors: tuple[PublicIdentity, ...] = ()

    @property
    def producers(self) -> tuple[PublicIdentity, ...]:
        """All of them; their generations are 1, 2 and so on."""
        return (self.producer, *self.successors)

    def generation_of(self, producer: PublicIdentity) -> int:
        """The number of a producer, from 1; 0 if it is none of them."""
        return self.producers.index(producer) + 1 if producer in self.producers else 0

    def genesis(self) -> Head:
        """The head before any record."""
        return Head.genesis(self.hash, self.epoch, self.start_lsn)


@dataclass(frozen=True, slots=True)
class EnrolmentFile(SignedDocument):
    """An enrolment with its signatures, and the successions with theirs; nothing of it is proven."""

    what: ClassVar[str] = _WHAT
    size_most: ClassVar[int] = DOCUMENT_BYTES_MOST

    successions: tuple[Succession, ...] = ()

    @classmethod
    def draft(cls, *, stream: bytes, epoch: int, producer: PublicIdentity, start_lsn: Lsn) -> EnrolmentFile:
        """A new enrolment that nobody has signed."""
        payload = {
            "version": _VERSION,
            "stream": stream.hex(),
            "epoch": epoch,
            "suite": SUITE,
            "producer": render_producer(producer),
            "start_lsn": str(start_lsn),
        }
        return cls(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode("ascii"))

    def message(self) -> bytes:
        """What is signed."""
        return enrolment_message(self.payload)

    @classmethod
    def from_object(cls, document: Any, place: Path) -> EnrolmentFile:
        """Read the JSON object of an enrolment, which may have successions.

        Raises:
            ConfigurationError: it has another form.
        """
        successions = document.pop("successions", [])
        if not isinstance(successions, list):
            raise damaged(_WHAT, place)
        base = SignedDocument.from_object(document, place)
        following = tuple(Succession.from_object(succession, place) for succession in successions)
        return cls(base.payload, base.signatures, following)

    def as_object(self) -> dict[str, Any]:
        """The JSON object of the enrolment."""
        document = SignedDocument.as_object(self)
        if self.successions:
            document["successions"] = [succession.as_object() for succession in self.successions]
        return document

    def signed(self, operator: Signer) -> EnrolmentFile:
        """The same with an operator's signature added to each part that has none of this key.

        Raises:
            RefusedError: the operator has signed all of it already.
        """
        if all(part.has(operator) for part in (self, *self.successions)):
            raise RefusedError(f"this key has signed the {_WHAT} already", hint="let another person sign it")
        following = tuple(
            succession if succession.has(operator) else succession.signed(operator)
            for succession in self.successions
        )
        own = self if self.has(operator) else SignedDocument.signed(self, operator)
        return EnrolmentFile(own.payload, own.signatures, following)

    def announces(self, producer: PublicIdentity, place: Path) -> bool:
        """Whether a producer is the last of the successors, signed or not.

        Raises:
            ConfigurationError: the payloads are damaged.
        """
        return self.producers_named(place)[-1] == producer

    def producers_named(self, place: Path) -> tuple[PublicIdentity, ...]:
        """The producer and all successors, whether signed or not.

        Raises:
            ConfigurationError: the payloads are damaged.
        """
        enrolment = self.parsed(place)
        for document, succession in zip((self, *self.successions), self.successions, strict=False):
            enrolment = _followed(enrolment, document, succession, place)
        return enrolment.producers

    def succeeded_by(self, producer: PublicIdentity, place: Path) -> EnrolmentFile:
        """The same with one more producer, which nobody has signed.

        Raises:
            ConfigurationError: the payload is damaged.
            RefusedError: the producer is one of the stream's already.
        """
        enrolment = self.parsed(place)
        named = self.producers_named(place)
        if producer in named:
            raise RefusedError(
                f"producer {producer.id.hex()} is one of the stream's already",
                place=str(place),
                hint="a key that was succeeded never comes back: generate a new one",
            )
        draft = Succession.draft(
            stream=enrolment.stream,
            epoch=enrolment.epoch,
            follows=(self, *self.successions)[-1].payload_hash,
            generation=len(named) + 1,
            producer=producer,
        )
        return replace(self, successions=(*self.successions, draft))

    def proven(self, roster: Sequence[PublicOperator], threshold: int, place: Path) -> Enrolment:
        """What enough persons have signed. A succession with too few signatures does not count yet, nor what follows it.

        Raises:
            ConfigurationError: too few persons have signed the enrolment, or something that enough have signed is
                damaged.
        """
        signers = self.signers(roster)
        if len(signers) < threshold:
            by = f" ({', '.join(sorted(signers))})" if signers else ""
            raise ConfigurationError(
                f"the {_WHAT} is signed by {len(signers)} of the {threshold} persons it needs{by}",
                place=str(place),
                hint="let an operator of keys.operators sign it with embassy keys sign",
            )
        enrolment = self.parsed(place)
        for document, succession in zip((self, *self.successions), self.successions, strict=False):
            if len(succession.signers(roster)) < threshold:
                break
            enrolment = _followed(enrolment, document, succession, place)
        return enrolment

    def parsed(self, place: Path) -> Enrolment:
        """What the enrolment's payload says; successions are not looked at.

        Raises:
            ConfigurationError: it is of another version or suite, or damaged.
        """
        fields = load_object(self.payload, _WHAT, place)
        for name, known in (("version", _VERSION), ("suite", SUITE)):
            if fields.get(name) != known or isinstance(fields.get(name), bool):
                raise ConfigurationError(
                    f"the {_WHAT} has {name} {fields.get(name)!r}; this program knows {known}",
                    place=str(place),
                    hint="upgrade the program, or enrol the stream anew",
                )
        try:
            return _parsed(fields, self.payload_hash)
        except (LookupError, ValueError, TypeError) as error:
            raise damaged(_WHAT, place) from error


def load_roster(operators: Sequence[Path], threshold: int) -> tuple[PublicOperator, ...]:
    """Read the operators' public files, or the roster among them: whose signatures count now.

    Args:
        operators: public key files, and at most one roster: all the others must have signed its first version.
        threshold: how many persons have to sign what is signed; a roster's own must be the same. 0: any.

    Raises:
        ConfigurationError: one cannot be read, a key is listed for two persons, the persons are fewer than the
            threshold, or the roster does not hold.
    """
    return load_rosters(operators, threshold)[-1].operators


def load_rosters(operators: Sequence[Path], threshold: int) -> tuple[Roster, ...]:
    """Read them as `load_roster` does: whose signatures have ever counted, oldest first; the last ones' count now.

    A list of key files has no versions before it.

    Raises:
        ConfigurationError: as `load_roster`.
    """
    rosters = [path for path in operators if is_roster(path)]
    files = [path for path in operators if path not in rosters]
    listed = _listed(files, 0 if rosters else threshold)
    if not rosters:
        return (Roster(0, threshold, listed),)
    if len(rosters) > 1:
        raise ConfigurationError(
            "keys.operators names two rosters", place=str(rosters[1]), hint="there is one roster; remove the other"
        )
    anchor = Roster(0, len({found.person for found in listed}), listed) if listed else None
    versions = RosterFile.read(rosters[0]).history(anchor, rosters[0])
    present = versions[-1]
    if threshold not in (0, present.threshold):
        raise ConfigurationError(
            f"keys.threshold is {threshold}, and version {present.number} of the roster asks for {present.threshold}",
            place=str(rosters[0]),
            hint="set keys.threshold to what the operators have signed",
        )
    return versions


def _listed(operators: Sequence[Path], threshold: int) -> tuple[PublicOperator, ...]:
    roster = tuple(load_public_operator(path) for path in operators)
    persons: dict[bytes, str] = {}
    for path, operator in zip(operators, roster, strict=True):
        if persons.setdefault(operator.ed25519, operator.person) != operator.person:
            raise ConfigurationError(
                f"one key is listed for two persons: {persons[operator.ed25519]} and {operator.person}",
                place=str(path),
                hint="each person needs a key of their own",
            )
    count = len(set(persons.values()))
    if count < threshold:
        raise ConfigurationError(
            f"keys.threshold asks for {threshold} persons and keys.operators names {count}",
            place="keys.operators",
            hint="list the public key files of all operators; or set keys.threshold to what they have agreed on",
        )
    return roster


def load_enrolment(path: Path, *, operators: Sequence[Path], threshold: int, stream: str) -> Enrolment:
    """Read a stream's enrolment and prove that enough persons have signed it.

    Args:
        path: the enrolment file.
        operators: the operators' public files.
        threshold: how many distinct persons must have signed.
        stream: the stream it has to be for, in hexadecimal.

    Raises:
        ConfigurationError: a file is missing or damaged, too few persons have signed, or it is another stream's.
    """
    enrolment = EnrolmentFile.read(path).proven(load_roster(operators, threshold), threshold, path)
    if enrolment.stream.hex() != stream:
        raise ConfigurationError(
            f"the {_WHAT} is for stream {enrolment.stream.hex()}, not for {stream}",
            place=str(path),
            hint="correct stream or enrolment in the configuration",
        )
    return enrolment


def stream_id(text: str) -> bytes:
    """A stream's identity from its 32 hexadecimal digits.

    Raises:
        ValueError: the text is something else.
    """
    if not _STREAM.fullmatch(text):
        raise ValueError(f"not 32 hexadecimal digits in lower case: {text!r}")
    return bytes.fromhex(text)


def _followed(enrolment: Enrolment, document: SignedDocument, succession: Succession, place: Path) -> Enrolment:
    """The enrolment with one more producer, named by the succession that stands behind a document."""
    successor = succession.parsed(
        place,
        stream=enrolment.stream,
        epoch=enrolment.epoch,
        follows=document.payload_hash,
        generation=len(enrolment.producers) + 1,
    )
    if successor in enrolment.producers:
        raise damaged(succession.what, place)
    return replace(enrolment, successors=(*enrolment.successors, successor))


def _parsed(fields: Mapping[str, Any], payload_hash: bytes) -> Enrolment:
    if fields.keys() != {"version", "stream", "epoch", "suite", "producer", "start_lsn"}:
        raise ValueError("a member is missing or unknown")
    epoch = fields["epoch"]
    if type(epoch) is not int or not 1 <= epoch < 1 << 63:
        raise ValueError("the epoch is out of range")
    producer = parse_producer(fields["producer"])
    stream = stream_id(fields["stream"])
    assert len(stream) == ID_BYTES
    return Enrolment(stream, epoch, fields["suite"], producer, Lsn.parse(fields["start_lsn"]), payload_hash)
