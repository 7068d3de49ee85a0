"""The key of one incarnation: what is derived from it, and how it seals bodies.

It is random, lives in memory only, and is never used under another incarnation. So a nonce, which is the record's
sequence number, could repeat only if a running producer was cloned; even then GCM-SIV gives no more away than
whether two bodies are equal.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from embassy.wire.padding import pad, unpad
from embassy.wire.suite import BODY_KEY_DOMAIN, COMMITMENT_DOMAIN, DATA_KEY_BYTES, WRAP_DOMAIN

_NONCE_BYTES = 12


class DataKey:
    """A data key in use."""

    __slots__ = ("_aead", "commitment")

    def __init__(self, secret: bytes, incarnation: bytes) -> None:
        if len(secret) != DATA_KEY_BYTES:
            raise ValueError(f"a data key has {DATA_KEY_BYTES} bytes, not {len(secret)}")
        self._aead = AESGCMSIV(_derive(secret, BODY_KEY_DOMAIN + incarnation))
        self.commitment = _derive(secret, COMMITMENT_DOMAIN + incarnation)

    def seal(self, content: bytes, sequence: int, header_bytes: bytes) -> bytes:
        """A DATA record's body."""
        return self._aead.encrypt(_nonce(sequence), pad(content), header_bytes)

    def open(self, body: bytes, sequence: int, header_bytes: bytes) -> bytes | None:
        """What was sealed under this header; None if it was not, or was altered."""
        try:
            return unpad(self._aead.decrypt(_nonce(sequence), body, header_bytes))
        except (InvalidTag, ValueError):
            return None


def wrap_info(header_bytes: bytes, enrolment_hash: bytes, recipient_id: bytes) -> bytes:
    """What a wrapped data key is bound to: its KEY record's place in the chain, the enrolment, the recipient."""
    return WRAP_DOMAIN + header_bytes + enrolment_hash + recipient_id


def _nonce(sequence: int) -> bytes:
    return sequence.to_bytes(_NONCE_BYTES, "big")


def _derive(secret: bytes, info: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), DATA_KEY_BYTES, info).derive(secret)
