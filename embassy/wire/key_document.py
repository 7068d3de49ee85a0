"""What a key file says: JSON, the same for secret and public files but for the member ``secret``.

Nothing here reads a file or does cryptography; the layout is in docs/wire-format.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from embassy.model.errors import ConfigurationError
from embassy.wire.suite import (
    ED25519_KEY_BYTES,
    KEY_ID_BYTES,
    KEY_ID_DOMAIN,
    MLDSA65_KEY_BYTES,
    SEED_BYTES,
    XWING_KEY_BYTES,
)

FORMAT = "data-embassy key 1"
_PERSON_MOST = 100


class KeyKind(StrEnum):
    """What a key is for."""

    IDENTITY = "identity"
    """Signs a producer's records."""
    RECIPIENT = "recipient"
    """Unwraps data keys in an embassy."""
    OPERATOR = "operator"
    """Signs enrolments, for one person."""


_PUBLIC_BYTES: Mapping[KeyKind, Mapping[str, int]] = {
    KeyKind.IDENTITY: {"ed25519": ED25519_KEY_BYTES, "mldsa65": MLDSA65_KEY_BYTES},
    KeyKind.RECIPIENT: {"xwing": XWING_KEY_BYTES},
    KeyKind.OPERATOR: {"ed25519": ED25519_KEY_BYTES},
}


class PublicHalf(NamedTuple):
    """A key as anyone may know it."""

    kind: KeyKind
    person: str
    """Whose it is, if it is an operator's; else empty."""
    keys: Mapping[str, bytes]
    """The public key of each algorithm."""

    @property
    def id(self) -> bytes:
        """Eight bytes by which files, logs and KEY records name the key."""
        digest = hashlib.sha256(KEY_ID_DOMAIN + self.kind.encode("ascii") + b"\0")
        for name in _PUBLIC_BYTES[self.kind]:
            digest.update(self.keys[name])
        return digest.digest()[:KEY_ID_BYTES]


class KeyDocument(NamedTuple):
    """A key file's content."""

    public: PublicHalf
    secret: Mapping[str, Any] | None
    """The member ``secret`` as it stands; None in a public file."""


def kind_of(text: bytes) -> KeyKind | None:
    """The kind that a key file names, if it is one."""
    try:
        return KeyKind(json.loads(text)["kind"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def parse_key(text: bytes, kind: KeyKind, place: Path) -> KeyDocument:
    """Read the content of a key file.

    Raises:
        ConfigurationError: it is not a key file of this kind.
    """
    document = load_object(text, "key file", place)
    if document.get("format") != FORMAT:
        raise ConfigurationError(
            f"not a key file: its format is not {FORMAT!r}",
            place=str(place),
            hint=f"name a key file that embassy keys generate {kind} has made",
        )
    if document.get("kind") != kind:
        raise ConfigurationError(
            f"this is a key file of another kind: {document.get('kind')!r}, not {kind.value!r}",
            place=str(place),
            hint=f"name a key file that embassy keys generate {kind} has made",
        )
    try:
        public = PublicHalf(kind, _person(document, kind), _keys(document["public"], _PUBLIC_BYTES[kind]))
        secret = document.get("secret")
        if document.keys() - {"format", "kind", "id", "person", "public", "secret"} or (
            secret is not None and not isinstance(secret, dict)
        ):
            raise ValueError  # noqa: TRY301 - one way out for every defect
        intact = bytes.fromhex(document["id"]) == public.id
    except (LookupError, ValueError, TypeError):
        intact = False
    if not intact:
        raise damaged("key file", place)
    return KeyDocument(public, secret)


def render_key(public: PublicHalf, secret: Mapping[str, Any] | None = None) -> str:
    """A key file's content."""
    document: dict[str, Any] = {"format": FORMAT, "kind": public.kind.value, "id": public.id.hex()}
    if public.person:
        document["person"] = public.person
    document["public"] = {name: key.hex() for name, key in public.keys.items()}
    if secret is not None:
        document["secret"] = dict(secret)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def checked_person(name: str) -> str:
    """A person's name as it may stand in an operator's key.

    Raises:
        ValueError: it is empty, too long or not printable.
    """
    if (
        not isinstance(name, str)
        or not name
        or name != name.strip()
        or not name.isprintable()
        or len(name) > _PERSON_MOST
    ):
        raise ValueError(f"not a person's name: {name!r}")
    return name


def seeds(secret: Any, names: tuple[str, ...]) -> tuple[bytes, ...]:
    """The 32-byte seeds in the member ``secret``.

    Raises:
        ValueError: one is missing or has another length, or there are others.
    """
    found = _keys(secret, dict.fromkeys(names, SEED_BYTES))
    return tuple(found[name] for name in names)


def load_object(text: bytes, what: str, place: Path) -> dict[str, Any]:
    """Parse a JSON object in which no name stands twice: two readers might take different ones.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        return parse_object(text)
    except ValueError as error:
        raise ConfigurationError(
            f"the {what} is {error}", place=str(place), hint=f"restore the {what} from its backup"
        ) from error


def parse_object(text: bytes) -> dict[str, Any]:
    """Parse a JSON object in which no name stands twice.

    Raises:
        ValueError: it is none.
    """
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the bytes are wrong, not a caller's type
    return value


def damaged(what: str, place: Path) -> ConfigurationError:
    """The error for a file that has the right form and the wrong content."""
    return ConfigurationError(
        f"the {what} is damaged: a member is missing, unknown or altered",
        place=str(place),
        hint=f"restore the {what} from its backup, or make a new one",
    )


def _person(document: Mapping[str, Any], kind: KeyKind) -> str:
    if kind is not KeyKind.OPERATOR:
        if "person" in document:
            raise ValueError("only an operator's key is a person's")
        return ""
    return checked_person(document["person"])


def _keys(found: Any, wanted: Mapping[str, int]) -> dict[str, bytes]:
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        raise ValueError(f"not an object of {sorted(wanted)}")
    keys = {name: bytes.fromhex(found[name]) for name in wanted}
    if any(len(keys[name]) != length for name, length in wanted.items()):
        raise ValueError("a key has the wrong length")
    return keys


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found
