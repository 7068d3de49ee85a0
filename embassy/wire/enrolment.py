"""Enrolments: the operators' word on which producer may write a stream, and where the stream begins.

A stream has one per epoch. It stands in the chain for record 0. What is signed is the payload's exact bytes, and
they are verified before they are parsed. Signatures are counted by person, and the person is looked up by the
trusted key, never taken from the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from embassy.model.errors import ConfigurationError
from embassy.model.lsn import Lsn
from embassy.model.record import ID_BYTES, Head
from embassy.wire.key_document import damaged, load_object
from embassy.wire.public_keys import PublicIdentity, PublicOperator, load_public_operator
from embassy.wire.signed_document import SignedDocument
from embassy.wire.suite import ED25519_KEY_BYTES, MLDSA65_KEY_BYTES, SUITE, enrolment_message

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
        producer: whose records count.
        start_lsn: where the source's log is read from; zero leaves it to the slot.
        hash: of the payload; the first record names it as the record before.
    """

    stream: bytes
    epoch: int
    suite: int
    producer: PublicIdentity
    start_lsn: Lsn
    hash: bytes

    def genesis(self) -> Head:
        """The head before any record."""
        return Head.genesis(self.hash, self.epoch, self.start_lsn)


@dataclass(frozen=True, slots=True)
class EnrolmentFile(SignedDocument):
    """An enrolment with its signatures; nothing of it is proven."""

    what: ClassVar[str] = _WHAT

    @classmethod
    def draft(cls, *, stream: bytes, epoch: int, producer: PublicIdentity, start_lsn: Lsn) -> EnrolmentFile:
        """A new enrolment that nobody has signed."""
        payload = {
            "version": _VERSION,
            "stream": stream.hex(),
            "epoch": epoch,
            "suite": SUITE,
            "producer": {"ed25519": producer.ed25519.hex(), "mldsa65": producer.mldsa65.hex()},
            "start_lsn": str(start_lsn),
        }
        return cls(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode("ascii"))

    def message(self) -> bytes:
        """What is signed."""
        return enrolment_message(self.payload)

    def parsed(self, place: Path) -> Enrolment:
        """What the payload says.

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
    """Read the operators' public files.

    Raises:
        ConfigurationError: one cannot be read, a key is listed for two persons, or the persons are fewer than the
            threshold.
    """
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
            hint="list the public key files of all operators",
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
    roster = load_roster(operators, threshold)
    file = EnrolmentFile.read(path)
    signers = file.signers(roster)
    if len(signers) < threshold:
        by = f" ({', '.join(sorted(signers))})" if signers else ""
        raise ConfigurationError(
            f"the {_WHAT} is signed by {len(signers)} of the {threshold} persons it needs{by}",
            place=str(path),
            hint="let an operator of keys.operators sign it with embassy keys sign",
        )
    enrolment = file.parsed(path)
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


def _parsed(fields: Mapping[str, Any], payload_hash: bytes) -> Enrolment:
    if fields.keys() != {"version", "stream", "epoch", "suite", "producer", "start_lsn"}:
        raise ValueError("a member is missing or unknown")
    epoch, keys = fields["epoch"], fields["producer"]
    if type(epoch) is not int or not 1 <= epoch < 1 << 63:
        raise ValueError("the epoch is out of range")
    if not isinstance(keys, dict) or keys.keys() != {"ed25519", "mldsa65"}:
        raise ValueError("the producer has other keys")
    producer = PublicIdentity(bytes.fromhex(keys["ed25519"]), bytes.fromhex(keys["mldsa65"]))
    if (len(producer.ed25519), len(producer.mldsa65)) != (ED25519_KEY_BYTES, MLDSA65_KEY_BYTES):
        raise ValueError("a key has the wrong length")
    stream = stream_id(fields["stream"])
    assert len(stream) == ID_BYTES
    return Enrolment(stream, epoch, fields["suite"], producer, Lsn.parse(fields["start_lsn"]), payload_hash)
