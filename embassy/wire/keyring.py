"""Secret keys: making them, keeping them in files, using them.

A file holds 32-byte seeds, from which the keys are expanded, and the public halves, against which they are checked.
Key objects never show a secret; whoever holds one can ask it to sign or to unwrap, and that is all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.runtime.hardening import without_core_dumps
from embassy.wire import passphrase
from embassy.wire.key_document import KeyKind, PublicHalf, checked_person, damaged, parse_key, render_key, seeds
from embassy.wire.public_keys import (
    PublicIdentity,
    PublicOperator,
    PublicRecipient,
    load_public_recipient,
    public_path,
)
from embassy.wire.secret_file import read_secret, write_new
from embassy.wire.suite import SEED_BYTES

__all__ = [
    "Identity",
    "Operator",
    "PublicRecipient",
    "RecipientKey",
    "generate_identity",
    "generate_operator",
    "generate_recipient",
    "load_identity",
    "load_operator",
    "load_public_recipient",
    "load_recipient",
]

Passphrase = Callable[[], bytes]
"""Asked for a passphrase when a file needs one; by default the file that EMBASSY_PASSPHRASE_FILE names."""

_HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_XWING_MLKEM_SEED_BYTES = 64
_XWING_EXPANDED_BYTES = 96
_SEEDS: Mapping[KeyKind, tuple[str, ...]] = {
    KeyKind.IDENTITY: ("ed25519", "mldsa65"),
    KeyKind.RECIPIENT: ("xwing",),
    KeyKind.OPERATOR: ("ed25519",),
}
K = TypeVar("K", bound="Identity | RecipientKey | Operator")


@dataclass(frozen=True, slots=True)
class Identity:
    """A producer's signing keys."""

    half: PublicHalf
    _ed25519: Ed25519PrivateKey = field(repr=False)
    _mldsa65: MLDSA65PrivateKey = field(repr=False)

    @classmethod
    def from_seeds(cls, ed25519: bytes, mldsa65: bytes) -> Identity:
        """Expand the keys."""
        ed = Ed25519PrivateKey.from_private_bytes(ed25519)
        ml = MLDSA65PrivateKey.from_seed_bytes(mldsa65)
        keys = {"ed25519": ed.public_key().public_bytes_raw(), "mldsa65": ml.public_key().public_bytes_raw()}
        return cls(PublicHalf(KeyKind.IDENTITY, "", keys), ed, ml)

    @property
    def public(self) -> PublicIdentity:
        """What the signatures are verified with."""
        return PublicIdentity(**self.half.keys)

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature."""
        return self._ed25519.sign(message)

    def sign_twice(self, message: bytes) -> bytes:
        """An Ed25519 signature and behind it one of ML-DSA-65, which quantum computers do not forge either."""
        return self._ed25519.sign(message) + self._mldsa65.sign(message)


@dataclass(frozen=True, slots=True)
class RecipientKey:
    """An embassy's key to the data keys: X-Wing, expanded from one seed."""

    half: PublicHalf
    _private: MLKEM768X25519PrivateKey = field(repr=False)

    @classmethod
    def from_seeds(cls, xwing: bytes) -> RecipientKey:
        """Expand the key as X-Wing does: SHAKE256 to an ML-KEM seed and an X25519 scalar."""
        expanded = hashlib.shake_256(xwing).digest(_XWING_EXPANDED_BYTES)
        kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_XWING_MLKEM_SEED_BYTES])
        curve = X25519PrivateKey.from_private_bytes(expanded[_XWING_MLKEM_SEED_BYTES:])
        public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        half = PublicHalf(KeyKind.RECIPIENT, "", {"xwing": public})
        return cls(half, MLKEM768X25519PrivateKey(kem, curve))

    @property
    def public(self) -> PublicRecipient:
        """What data keys are wrapped with."""
        return PublicRecipient(self.half.id, self.half.keys["xwing"])

    def holds(self) -> tuple[bytes, ...]:
        """Its own id: one key alone is `RecipientKeys` too."""
        return (self.half.id,)

    def unwrap_for(self, recipient: bytes, sealed: bytes, info: bytes) -> bytes | None:
        """As `unwrap`, if the recipient is this one."""
        return self.unwrap(sealed, info) if recipient == self.half.id else None

    def unwrap(self, sealed: bytes, info: bytes) -> bytes | None:
        """What was sealed for this key under this info; None if it was not, or was altered."""
        try:
            return _HPKE.decrypt(sealed, self._private, info=info)
        except (InvalidTag, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class Operator:
    """A person's key to sign enrolments with."""

    half: PublicHalf
    _ed25519: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def from_seeds(cls, ed25519: bytes, *, person: str) -> Operator:
        """Expand the key."""
        key = Ed25519PrivateKey.from_private_bytes(ed25519)
        half = PublicHalf(KeyKind.OPERATOR, person, {"ed25519": key.public_key().public_bytes_raw()})
        return cls(half, key)

    @property
    def ed25519(self) -> bytes:
        """Its public half."""
        return self.half.keys["ed25519"]

    @property
    def public(self) -> PublicOperator:
        """What the signatures are verified with."""
        return PublicOperator(self.half.person, self.ed25519)

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature."""
        return self._ed25519.sign(message)


class KeyFiles(NamedTuple):
    """The two files of a new key."""

    id: bytes
    secret: Path
    public: Path


def load_identity(path: Path, ask: Passphrase | None = None) -> Identity:
    """Read a producer's secret file.

    Raises:
        ConfigurationError: it is missing, others may read it, it is damaged, or another kind of file, or its
            passphrase is missing or wrong.
    """
    return _load(path, KeyKind.IDENTITY, ask, lambda _, *found: Identity.from_seeds(*found))


def load_recipient(path: Path, ask: Passphrase | None = None) -> RecipientKey:
    """Read an embassy's secret file.

    Raises:
        ConfigurationError: as `load_identity`.
    """
    return _load(path, KeyKind.RECIPIENT, ask, lambda _, *found: RecipientKey.from_seeds(*found))


def load_operator(path: Path, ask: Passphrase | None = None) -> Operator:
    """Read a person's secret file.

    Raises:
        ConfigurationError: as `load_identity`.
    """
    return _load(path, KeyKind.OPERATOR, ask, lambda person, *found: Operator.from_seeds(*found, person=person))


def load_recipient_seed(path: Path, ask: Passphrase | None = None) -> tuple[bytes, bytes]:
    """An embassy's key id and its seed, for those who put it into escrow.

    Raises:
        ConfigurationError: as `load_identity`.
    """
    seed = b""

    def expand(_: str, found: bytes) -> RecipientKey:
        nonlocal seed
        seed = found
        return RecipientKey.from_seeds(found)

    return _load(path, KeyKind.RECIPIENT, ask, expand).public.id, seed


def write_recipient(path: Path, seed: bytes, *, phrase: bytes | None = None) -> KeyFiles:
    """Write the files of an embassy's key that came back from escrow.

    Raises:
        RefusedError: one of the files exists.
        ConfigurationError: they cannot be written.
    """
    return _write(path, RecipientKey.from_seeds(seed).half, (seed,), phrase)


def generate_identity(path: Path, *, phrase: bytes | None = None) -> KeyFiles:
    """Make a producer's key: the secret file, and its public one beside it.

    Raises:
        RefusedError: one of the files exists.
        ConfigurationError: they cannot be written.
    """
    found = _fresh(2)
    return _write(path, Identity.from_seeds(*found).half, found, phrase)


def generate_recipient(path: Path, *, phrase: bytes | None = None) -> KeyFiles:
    """Make an embassy's key; see `generate_identity`."""
    found = _fresh(1)
    return _write(path, RecipientKey.from_seeds(*found).half, found, phrase)


def generate_operator(path: Path, *, person: str, phrase: bytes | None = None) -> KeyFiles:
    """Make a person's key; see `generate_identity`.

    Raises:
        ConfigurationError: also if the person has no proper name.
    """
    try:
        checked_person(person)
    except ValueError as error:
        raise ConfigurationError(str(error), hint="name the person who will hold the key") from error
    found = _fresh(1)
    return _write(path, Operator.from_seeds(*found, person=person).half, found, phrase)


def write_public(secret: Path, half: PublicHalf) -> Path:
    """Write the public file beside a secret one.

    Raises:
        RefusedError: it exists.
    """
    path = public_path(secret)
    write_new(path, render_key(half), mode=0o644)
    return path


def _fresh(count: int) -> tuple[bytes, ...]:
    return tuple(os.urandom(SEED_BYTES) for _ in range(count))


def _write(path: Path, half: PublicHalf, found: tuple[bytes, ...], phrase: bytes | None) -> KeyFiles:
    public = public_path(path)
    if public.exists() or public == path:
        raise RefusedError(
            "the public file exists, and a key is never overwritten", place=str(public), hint="choose another path"
        )
    secret: Mapping[str, Any] = {name: seed.hex() for name, seed in zip(_SEEDS[half.kind], found, strict=True)}
    if phrase is not None:
        secret = passphrase.lock(secret, phrase, half.id)
    write_new(path, render_key(half, secret), mode=0o600)
    return KeyFiles(half.id, path, write_public(path, half))


def _load(path: Path, kind: KeyKind, ask: Passphrase | None, expand: Callable[..., K]) -> K:
    without_core_dumps()
    document = parse_key(read_secret(path, f"secret {kind} key file"), kind, path)
    secret = document.secret
    if secret is None:
        raise ConfigurationError(
            f"this is a public {kind} key file; the secret one belongs here",
            place=str(path),
            hint="name the file without .pub",
        )
    if passphrase.is_locked(secret):
        secret = passphrase.unlock(secret, ask or passphrase.from_file(), document.public.id, path)
    try:
        key = expand(document.public.person, *seeds(secret, _SEEDS[kind]))
    except UnsupportedAlgorithm as error:
        raise ConfigurationError(
            f"this machine's cryptography lacks an algorithm: {error}",
            place=str(path),
            hint="install the pinned cryptography wheel",
        ) from error
    except (ValueError, TypeError) as error:
        raise damaged("key file", path) from error
    if key.half != document.public:
        raise damaged("key file", path)
    return key
