"""Documents that operators sign: exact bytes, and the signatures of persons beside them.

The bytes are verified before they are parsed. Signatures are counted by person, and the person is looked up by the
trusted key, never taken from the file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.wire.key_document import damaged, load_object
from embassy.wire.public_keys import SIZE_MOST, PublicOperator, read_text


class Signer(Protocol):
    """An operator's secret key."""

    @property
    def ed25519(self) -> bytes:
        """Its public half."""

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature."""


class Signature(NamedTuple):
    """One operator's signature, as the file names it."""

    key: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A payload with its signatures; nothing of it is proven."""

    what: ClassVar[str] = "document"
    """For messages."""
    size_most: ClassVar[int] = SIZE_MOST
    """No file is larger."""

    payload: bytes
    signatures: tuple[Signature, ...] = ()

    @property
    def payload_hash(self) -> bytes:
        """The SHA-256 of the payload."""
        return hashlib.sha256(self.payload).digest()

    def message(self) -> bytes:
        """What is signed: the payload, and of which kind it is."""
        raise NotImplementedError

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            ConfigurationError: it cannot be read, or has another form.
        """
        return cls.parse(read_text(path, cls.what, cls.size_most), path)

    @classmethod
    def parse(cls, text: bytes, place: Path) -> Self:
        """Read a file's content.

        Raises:
            ConfigurationError: it has another form.
        """
        return cls.from_object(load_object(text, cls.what, place), place)

    @classmethod
    def from_object(cls, document: Any, place: Path) -> Self:
        """Read the JSON object of a document.

        Raises:
            ConfigurationError: it has another form.
        """
        if isinstance(document, dict) and document.keys() == {"payload", "signature"}:
            raise ConfigurationError(
                f"the file is what an embassy has signed, a report or a proof, and no {cls.what}",
                place=str(place),
                hint=f"name the {cls.what}; promote run and promote abort write such files beside their plan",
            )
        try:
            if document.keys() != {"payload", "signatures"}:
                raise ValueError  # noqa: TRY301 - one way out for every defect
            payload = base64.b64decode(document["payload"], validate=True)
            signatures = tuple(
                Signature(bytes.fromhex(entry["key"]), bytes.fromhex(entry["signature"]))
                for entry in document["signatures"]
            )
        except (AttributeError, LookupError, ValueError, TypeError, binascii.Error) as error:
            raise damaged(cls.what, place) from error
        return cls(payload, signatures)

    def render(self) -> str:
        """The file's content."""
        return json.dumps(self.as_object(), indent=2) + "\n"

    def as_object(self) -> dict[str, Any]:
        """The JSON object of the document."""
        return {
            "payload": base64.b64encode(self.payload).decode("ascii"),
            "signatures": [{"key": s.key.hex(), "signature": s.signature.hex()} for s in self.signatures],
        }

    def has(self, operator: Signer) -> bool:
        """Whether it carries a signature of this key, valid or not."""
        return any(known.key == operator.ed25519 for known in self.signatures)

    def signed(self, operator: Signer) -> Self:
        """The same with an operator's signature added.

        Raises:
            RefusedError: the operator has signed it already.
        """
        if self.has(operator):
            raise RefusedError(f"this key has signed the {self.what} already", hint="let another person sign it")
        made = Signature(operator.ed25519, operator.sign(self.message()))
        return replace(self, signatures=(*self.signatures, made))

    def signers(self, roster: Sequence[PublicOperator]) -> frozenset[str]:
        """The persons of the roster whose valid signatures the file carries."""
        persons = {operator.ed25519: operator.person for operator in roster}
        message = self.message()
        return frozenset(
            persons[entry.key]
            for entry in self.signatures
            if entry.key in persons and is_signed(entry.key, entry.signature, message)
        )


def is_signed(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature holds; one that is malformed does not."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True
