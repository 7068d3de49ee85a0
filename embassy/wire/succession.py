"""Successions: the operators' word that another producer writes a stream from now on, within the same epoch.

A succession stands in the enrolment's file and names what it follows: the enrolment, or the succession before it. So the
producers of a stream are numbered, from 1 for the enrolled one, and this number is their *generation*. A KEY record of a
later generation that links takes the stream over; nothing of an earlier one counts behind it (`Head.link`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from embassy.model.errors import ConfigurationError
from embassy.wire.key_document import load_object
from embassy.wire.public_keys import DOCUMENT_BYTES_MOST, PublicIdentity
from embassy.wire.signed_document import SignedDocument
from embassy.wire.suite import ED25519_KEY_BYTES, MLDSA65_KEY_BYTES, SUITE, succession_message

_VERSION = 1
_MEMBERS = {"version", "stream", "epoch", "suite", "follows", "generation", "producer"}


@dataclass(frozen=True, slots=True)
class Succession(SignedDocument):
    """A succession with its signatures; nothing of it is proven."""

    what: ClassVar[str] = "succession"
    size_most: ClassVar[int] = DOCUMENT_BYTES_MOST

    @classmethod
    def draft(
        cls, *, stream: bytes, epoch: int, follows: bytes, generation: int, producer: PublicIdentity
    ) -> Succession:
        """A succession that nobody has signed.

        Args:
            stream: the stream.
            epoch: the enrolment's.
            follows: the SHA-256 of the payload of the enrolment, or of the succession before.
            generation: of the new producer; the first one to succeed is 2.
            producer: who is to write from now on.
        """
        payload = {
            "version": _VERSION,
            "stream": stream.hex(),
            "epoch": epoch,
            "suite": SUITE,
            "follows": follows.hex(),
            "generation": generation,
            "producer": render_producer(producer),
        }
        return cls(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode("ascii"))

    def message(self) -> bytes:
        """What is signed."""
        return succession_message(self.payload)

    def parsed(self, place: Path, *, stream: bytes, epoch: int, follows: bytes, generation: int) -> PublicIdentity:
        """The producer that it names, if it is the very next one of this stream.

        Raises:
            ConfigurationError: it is damaged, of another stream, epoch or version, or does not follow what it should.
        """
        expected: dict[str, Any] = {
            "version": _VERSION,
            "stream": stream.hex(),
            "epoch": epoch,
            "suite": SUITE,
            "follows": follows.hex(),
            "generation": generation,
        }
        fields = load_object(self.payload, self.what, place)
        try:
            if fields.keys() != _MEMBERS:
                raise ValueError("a member is missing or unknown")  # noqa: TRY301 - one way out for every defect
            for name, value in expected.items():
                if fields[name] != value or type(fields[name]) is not type(value):
                    raise ValueError(f"its {name} is {fields[name]!r}, and {value!r} is due")  # noqa: TRY301
            return parse_producer(fields["producer"])
        except (LookupError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"a succession in the enrolment cannot be used: {error}",
                place=str(place),
                hint="take the enrolment's file from the operators again",
            ) from error


def render_producer(producer: PublicIdentity) -> dict[str, str]:
    """A producer's public keys as a payload has them."""
    return {"ed25519": producer.ed25519.hex(), "mldsa65": producer.mldsa65.hex()}


def parse_producer(keys: Any) -> PublicIdentity:
    """A producer's public keys.

    Raises:
        ValueError: they are missing, others, or of another length.
    """
    if not isinstance(keys, Mapping) or keys.keys() != {"ed25519", "mldsa65"}:
        raise ValueError("the producer has other keys")
    producer = PublicIdentity(bytes.fromhex(keys["ed25519"]), bytes.fromhex(keys["mldsa65"]))
    if (len(producer.ed25519), len(producer.mldsa65)) != (ED25519_KEY_BYTES, MLDSA65_KEY_BYTES):
        raise ValueError("a key has the wrong length")
    return producer
