"""Escrow: a recipient's seed on paper, with five custodians of whom any three can bring it back.

No secret sharing over fields: the seed is locked once for each subset of as many custodians as are needed (three of five:
ten times), with a key that is derived from the secrets of just these custodians. A share is one custodian's secret, which
opens nothing alone; the document with the locked copies is no secret, and useless without enough shares.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.wire.key_document import damaged, load_object
from embassy.wire.public_keys import DOCUMENT_BYTES_MOST, read_text
from embassy.wire.secret_file import read_secret
from embassy.wire.suite import ESCROW_DOMAIN, KEY_ID_BYTES, SEED_BYTES

FORMAT = "data-embassy escrow 1"
SHARE_FORMAT = "data-embassy escrow share 1"
CUSTODIANS_MOST = 12
_WHAT, _SHARE = "escrow document", "escrow share"
_SET_BYTES = 16
_CHECK_BYTES = 8
_NONCE = bytes(12)  # each derived key locks once


class Share(NamedTuple):
    """What one custodian keeps."""

    escrow: bytes
    """Names the document."""
    custodian: int
    """From 1."""
    secret: bytes

    def render(self) -> str:
        """The file's content; short enough to be written down by hand."""
        document = {
            "format": SHARE_FORMAT,
            "escrow": self.escrow.hex(),
            "custodian": self.custodian,
            "secret": self.secret.hex(),
            "check": _check(self.escrow, self.custodian, self.secret).hex(),
        }
        return json.dumps(document, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class Escrow:
    """The document: the locked copies.

    Attributes:
        id: 16 random bytes, by which shares name it.
        recipient: the id of the key.
        custodians: how many there are.
        threshold: how many are needed.
        checks: of each custodian's secret a hash, so that a wrong one is told from a wrong document.
        locked: for each subset of ``threshold`` custodians, in the order of `itertools.combinations`, the locked seed.
    """

    id: bytes
    recipient: bytes
    custodians: int
    threshold: int
    checks: tuple[bytes, ...]
    locked: tuple[bytes, ...]

    def render(self) -> str:
        """The file's content."""
        document = {
            "format": FORMAT,
            "escrow": self.id.hex(),
            "recipient": self.recipient.hex(),
            "custodians": self.custodians,
            "threshold": self.threshold,
            "checks": [check.hex() for check in self.checks],
            "locked": [locked.hex() for locked in self.locked],
        }
        return json.dumps(document, indent=2) + "\n"


class Split(NamedTuple):
    """An escrow just made."""

    escrow: Escrow
    shares: tuple[Share, ...]


def split(seed: bytes, recipient: bytes, *, custodians: int, threshold: int) -> Split:
    """Lock a seed for every subset of custodians that is large enough to bring it back.

    Raises:
        ConfigurationError: the threshold is not between 2 and the number of custodians, or these are too many.
    """
    if not 2 <= threshold <= custodians <= CUSTODIANS_MOST:
        raise ConfigurationError(
            f"{threshold} of {custodians} custodians is no escrow",
            place=_WHAT,
            hint=f"at least 2 of them must be needed, and they are at most {CUSTODIANS_MOST}; 3 of 5 is usual",
        )
    id_ = os.urandom(_SET_BYTES)
    secrets = tuple(os.urandom(SEED_BYTES) for _ in range(custodians))
    shares = tuple(Share(id_, number, secret) for number, secret in enumerate(secrets, 1))
    locked = tuple(
        _aead(id_, chosen, threshold).encrypt(_NONCE, seed, _bound(id_, recipient))
        for chosen in itertools.combinations(shares, threshold)
    )
    checks = tuple(_check(*share) for share in shares)
    return Split(Escrow(id_, recipient, custodians, threshold, checks, locked), shares)


def recover(escrow: Escrow, shares: Sequence[Share]) -> bytes:
    """The seed, from enough custodians' shares.

    Raises:
        RefusedError: the shares are too few, of another escrow, or one was altered.
        ConfigurationError: the document was altered.
    """
    known = {share.custodian: share for share in shares}
    for share in shares:
        if share.escrow != escrow.id:
            raise RefusedError(
                f"the share of custodian {share.custodian} is of another escrow",
                place=_SHARE,
                hint=f"this document is escrow {escrow.id.hex()}",
            )
        in_range = 1 <= share.custodian <= escrow.custodians
        if not in_range or _check(*share) != escrow.checks[share.custodian - 1] or known[share.custodian] != share:
            raise RefusedError(
                f"the share of custodian {share.custodian} is not the one that was made",
                place=_SHARE,
                hint="compare it with what the custodian keeps, digit by digit",
            )
    if len(known) < escrow.threshold:
        raise RefusedError(
            f"{len(known)} custodians' shares are there, and {escrow.threshold} are needed",
            place=_SHARE,
            hint="bring another custodian's",
        )
    chosen = tuple(known[number] for number in sorted(known)[: escrow.threshold])
    numbers = tuple(share.custodian for share in chosen)
    subsets = itertools.combinations(range(1, escrow.custodians + 1), escrow.threshold)
    index = next(at for at, subset in enumerate(subsets) if subset == numbers)
    try:
        return _aead(escrow.id, chosen, escrow.threshold).decrypt(
            _NONCE, escrow.locked[index], _bound(escrow.id, escrow.recipient)
        )
    except (InvalidTag, ValueError) as error:
        raise damaged(_WHAT, Path(_WHAT)) from error


def load_escrow(path: Path) -> Escrow:
    """Read a document.

    Raises:
        ConfigurationError: it cannot be read, or is none.
    """
    fields = load_object(read_text(path, _WHAT, DOCUMENT_BYTES_MOST), _WHAT, path)
    try:
        return _escrow(fields)
    except (LookupError, ValueError, TypeError) as error:
        raise damaged(_WHAT, path) from error


def load_share(path: Path) -> Share:
    """Read a custodian's share, which only its owner may read.

    Raises:
        ConfigurationError: others may read it, it cannot be read, or a digit of it is wrong.
    """
    fields = load_object(read_secret(path, _SHARE), _SHARE, path)
    try:
        if fields.keys() != {"format", "escrow", "custodian", "secret", "check"}:
            raise ValueError  # noqa: TRY301 - one way out for every defect
        share = Share(
            _sized(fields["escrow"], _SET_BYTES), fields["custodian"], _sized(fields["secret"], SEED_BYTES)
        )
        intact = fields["format"] == SHARE_FORMAT and type(share.custodian) is int
        if not intact or _sized(fields["check"], _CHECK_BYTES) != _check(*share):
            raise ValueError  # noqa: TRY301
    except (LookupError, ValueError, TypeError, OverflowError) as error:
        raise damaged(_SHARE, path) from error
    return share


def _escrow(fields: Mapping[str, Any]) -> Escrow:
    members = {"format", "escrow", "recipient", "custodians", "threshold", "checks", "locked"}
    if fields.keys() != members or fields["format"] != FORMAT:
        raise ValueError("a member is missing or unknown")
    custodians, threshold = fields["custodians"], fields["threshold"]
    if type(custodians) is not int or type(threshold) is not int:
        raise ValueError("not a number")
    if not 2 <= threshold <= custodians <= CUSTODIANS_MOST:
        raise ValueError("not so many custodians")
    checks = tuple(_sized(check, _CHECK_BYTES) for check in fields["checks"])
    locked = tuple(bytes.fromhex(found) for found in fields["locked"])
    if len(checks) != custodians or len(locked) != comb(custodians, threshold):
        raise ValueError("copies are missing")
    return Escrow(
        _sized(fields["escrow"], _SET_BYTES),
        _sized(fields["recipient"], KEY_ID_BYTES),
        custodians,
        threshold,
        checks,
        locked,
    )


def _aead(escrow: bytes, chosen: Sequence[Share], threshold: int) -> AESGCMSIV:
    """The key of a subset: it takes every one of its secrets."""
    numbers = bytes(share.custodian for share in chosen)
    info = ESCROW_DOMAIN + bytes([threshold]) + numbers
    secret = b"".join(share.secret for share in chosen)
    return AESGCMSIV(HKDF(hashes.SHA256(), SEED_BYTES, salt=escrow, info=info).derive(secret))


def _bound(escrow: bytes, recipient: bytes) -> bytes:
    return escrow + recipient


def _check(escrow: bytes, custodian: int, secret: bytes) -> bytes:
    """Tells a mistyped share; of 32 random bytes it gives nothing away."""
    return hashlib.sha256(ESCROW_DOMAIN + b"check" + escrow + custodian.to_bytes(1, "big") + secret).digest()[
        :_CHECK_BYTES
    ]


def _sized(text: str, length: int) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != length:
        raise ValueError("of another length")
    return found
