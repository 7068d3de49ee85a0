"""Public key files: whose signature counts, and for whom data keys are wrapped. Nothing here is secret."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from embassy.model.errors import ConfigurationError
from embassy.wire.key_document import KeyKind, PublicHalf, parse_key

SIZE_MOST = 64 << 10
"""No key file is larger."""
DOCUMENT_BYTES_MOST = 1 << 20
"""Nor is a document that operators sign."""


class PublicIdentity(NamedTuple):
    """What a producer's signatures are verified with."""

    ed25519: bytes
    mldsa65: bytes

    @property
    def id(self) -> bytes:
        """The key's id."""
        return PublicHalf(KeyKind.IDENTITY, "", self._asdict()).id


class PublicRecipient(NamedTuple):
    """What data keys are wrapped with for one embassy."""

    id: bytes
    xwing: bytes
    """ML-KEM-768 encapsulation key (1,184 bytes), then X25519 public key (32)."""


class PublicOperator(NamedTuple):
    """What a person's signatures are verified with."""

    person: str
    ed25519: bytes

    @property
    def id(self) -> bytes:
        """The key's id."""
        return PublicHalf(KeyKind.OPERATOR, self.person, {"ed25519": self.ed25519}).id


def public_path(secret: Path) -> Path:
    """The public file beside a secret one: ``home.json`` → ``home.pub.json``."""
    return secret.with_suffix(".pub.json")


def load_public_identity(path: Path) -> PublicIdentity:
    """Read a producer's public file.

    Raises:
        ConfigurationError: it cannot be read, or is no such file.
    """
    return PublicIdentity(**read_public(path, KeyKind.IDENTITY).keys)


def load_public_recipient(path: Path) -> PublicRecipient:
    """Read an embassy's public file.

    Raises:
        ConfigurationError: it cannot be read, or is no such file.
    """
    public = read_public(path, KeyKind.RECIPIENT)
    return PublicRecipient(public.id, public.keys["xwing"])


def load_public_operator(path: Path) -> PublicOperator:
    """Read a person's public file.

    Raises:
        ConfigurationError: it cannot be read, or is no such file.
    """
    public = read_public(path, KeyKind.OPERATOR)
    return PublicOperator(public.person, public.keys["ed25519"])


def read_public(path: Path, kind: KeyKind) -> PublicHalf:
    """Read a public file of a kind.

    Raises:
        ConfigurationError: it cannot be read, or is no such file.
    """
    document = parse_key(read_text(path, f"public {kind} key file"), kind, path)
    if document.secret is not None:
        raise ConfigurationError(
            f"this is a secret {kind} key file; a public one belongs here",
            place=str(path),
            hint=f"name {public_path(path).name}, and if others could read the secret, make a new key",
        )
    return document.public


def read_text(path: Path, what: str, most: int = SIZE_MOST) -> bytes:
    """The content of a small file.

    Args:
        path: the file.
        what: it is, for messages.
        most: how many bytes it may have.

    Raises:
        ConfigurationError: it cannot be read, or is too large to be one of ours.
    """
    try:
        with path.open("rb") as file:
            text = file.read(most + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the {what}: {error.strerror}", place=str(path), hint="correct the path, or make the file"
        ) from error
    if len(text) > most:
        raise ConfigurationError(f"too large for a {what}", place=str(path), hint="correct the path")
    return text
