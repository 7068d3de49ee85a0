"""Whose record is it? Answered with public keys only, so that whoever carries records can ask."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from embassy.model.errors import ConfigurationError
from embassy.model.record import RecordKind, SealedRecord
from embassy.wire.enrolment import Enrolment
from embassy.wire.public_keys import PublicIdentity
from embassy.wire.suite import ED25519_SIGNATURE_BYTES, MLDSA65_SIGNATURE_BYTES, record_message

__all__ = ["PublicIdentity", "RecordVerifier", "selftest"]

# RFC 8032, section 7.1, test 2.
_KNOWN_KEY = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
_KNOWN_MESSAGE = "72"
_KNOWN_SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


class RecordVerifier:
    """Tells the records of an enrolled producer from all others."""

    __slots__ = ("_ed25519", "_epoch", "_mldsa65", "_stream")

    def __init__(self, enrolment: Enrolment) -> None:
        self._stream = enrolment.stream
        self._epoch = enrolment.epoch
        try:
            self._ed25519 = Ed25519PublicKey.from_public_bytes(enrolment.producer.ed25519)
            self._mldsa65 = MLDSA65PublicKey.from_public_bytes(enrolment.producer.mldsa65)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(
                f"the enrolled producer's keys cannot be used: {error}",
                place=f"enrolment of stream {enrolment.stream.hex()}",
                hint="enrol the stream anew; if the message names ML-DSA, install the pinned cryptography wheel",
            ) from error

    def verified(self, record: SealedRecord) -> bool:
        """Whether the enrolled producer signed it, for this stream and epoch.

        A KEY record must bear both signatures, never either. Bad input is simply not verified.
        """
        header, signature = record.header, record.signature
        if header.stream != self._stream or header.epoch != self._epoch:
            return False
        is_key = header.kind is RecordKind.KEY
        if len(signature) != ED25519_SIGNATURE_BYTES + (MLDSA65_SIGNATURE_BYTES if is_key else 0):
            return False
        message = record_message(record.hash)
        try:
            self._ed25519.verify(signature[:ED25519_SIGNATURE_BYTES], message)
            if is_key:
                self._mldsa65.verify(signature[ED25519_SIGNATURE_BYTES:], message)
        except InvalidSignature:
            return False
        return True


def selftest() -> None:
    """Prove at start-up that signatures can be verified on this machine, and that wrong ones are refused.

    Raises:
        ConfigurationError: an algorithm is missing or does not work.
    """
    try:
        ed25519 = Ed25519PublicKey.from_public_bytes(bytes.fromhex(_KNOWN_KEY))
        ed25519.verify(bytes.fromhex(_KNOWN_SIGNATURE), bytes.fromhex(_KNOWN_MESSAGE))
        throwaway = MLDSA65PrivateKey.generate()
        mldsa65, signature = throwaway.public_key(), throwaway.sign(b"a")
        mldsa65.verify(signature, b"a")
    except (UnsupportedAlgorithm, InvalidSignature, ValueError) as error:
        raise broken_cryptography(error) from error
    for key, known in ((ed25519, bytes.fromhex(_KNOWN_SIGNATURE)), (mldsa65, signature)):
        try:
            key.verify(known, b"b")
        except InvalidSignature:
            continue
        raise broken_cryptography("a wrong signature was accepted")


def broken_cryptography(why: object) -> ConfigurationError:
    """The error for a machine on which nothing may be sealed, opened or trusted."""
    return ConfigurationError(
        f"this machine's cryptography does not work: {why or 'a known answer differs'}",
        place="self-test",
        hint="install the pinned cryptography wheel; nothing is read or written until it works",
    )
