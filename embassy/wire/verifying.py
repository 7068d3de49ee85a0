"""Whose record is it? Answered with public keys only, so that whoever carries records can ask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from embassy.model.chain import proven
from embassy.model.errors import ConfigurationError, RefusedError, TransientError
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


class _Keys(NamedTuple):
    generation: int
    producer: PublicIdentity
    ed25519: Ed25519PublicKey
    mldsa65: MLDSA65PublicKey


@lru_cache(maxsize=32)
def _usable(producer: PublicIdentity) -> tuple[Ed25519PublicKey, MLDSA65PublicKey]:
    """A producer's keys, once for all streams that it writes: they take nine kilobytes."""
    return (
        Ed25519PublicKey.from_public_bytes(producer.ed25519),
        MLDSA65PublicKey.from_public_bytes(producer.mldsa65),
    )


class RecordVerifier:
    """Tells the records of a stream's producers from all others."""

    __slots__ = ("_again", "_epoch", "_hash", "_keys", "_latest", "_passed_over", "_stream")

    def __init__(self, enrolment: Enrolment) -> None:
        self._stream = enrolment.stream
        self._epoch = enrolment.epoch
        self._hash = enrolment.hash
        self._keys = self._keys_of(enrolment)
        self._latest = 1
        self._passed_over = self._again = False

    def adopt(self, enrolment: Enrolment, *, read_again: bool = False) -> int:
        """Take successors that the operators have signed meanwhile; may be called from any thread.

        Args:
            enrolment: as its file is now.
            read_again: whether a reader that has passed over records of nobody it knew must go back: they may have been a
                successor's. The next record that is looked at then says so.

        Returns:
            How many there are now more.

        Raises:
            RefusedError: it is another enrolment, or one with other producers than those known: nothing has changed.
        """
        keys = self._keys_of(enrolment)
        known = [key.producer for key in self._keys]
        if enrolment.hash != self._hash or list(enrolment.producers[: len(known)]) != known:
            raise RefusedError(
                "the enrolment's file is of another enrolment now, or takes back a successor",
                place=f"stream {enrolment.stream.hex()}",
                hint="if that is meant, restart the service; else take the file from the operators again",
            )
        more = len(keys) - len(known)
        self._keys = keys
        self._again = read_again and more > 0 and self._passed_over
        return more

    @staticmethod
    def _keys_of(enrolment: Enrolment) -> tuple[_Keys, ...]:
        try:
            return tuple(
                _Keys(
                    generation,
                    producer,
                    *_usable(producer),
                )
                for generation, producer in enumerate(enrolment.producers, 1)
            )
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(
                f"the enrolled producer's keys cannot be used: {error}",
                place=f"enrolment of stream {enrolment.stream.hex()}",
                hint="enrol the stream anew; if the message names ML-DSA, install the pinned cryptography wheel",
            ) from error

    def of_run(self, records: Sequence[SealedRecord]) -> list[int]:
        """Whose each of some records is that were read one after another: see `embassy.model.chain.proven`.

        Raises:
            TransientError: as for a single one.
        """
        return proven(records, self, len(self._keys))

    def __call__(self, record: SealedRecord) -> int:
        """Which of the producers signed it, for this stream and epoch: its generation, from 1; 0 if none did.

        A KEY record must bear both signatures of one producer, never either. Bad input is simply not verified.

        Raises:
            TransientError: once, after `adopt` was told to: the stream is to be read again from its last record.
        """
        if self._again:
            self._again = self._passed_over = False
            raise TransientError(
                "a successor of the stream's producer is known now, and records that may be its were passed over",
                place=f"stream {self._stream.hex()}",
                hint="nothing to do: the stream is read again from the last record that counts",
            )
        header, signature = record.header, record.signature
        if header.stream != self._stream or header.epoch != self._epoch:
            return 0
        is_key = header.kind is RecordKind.KEY
        if len(signature) != ED25519_SIGNATURE_BYTES + (MLDSA65_SIGNATURE_BYTES if is_key else 0):
            return 0
        message = record_message(record.hash)
        keys = self._keys
        likely = keys[self._latest - 1]  # whose the last one was
        for key in (likely, *(other for other in keys if other is not likely)):
            try:
                key.ed25519.verify(signature[:ED25519_SIGNATURE_BYTES], message)
            except InvalidSignature:
                continue
            try:
                if is_key:
                    key.mldsa65.verify(signature[ED25519_SIGNATURE_BYTES:], message)
            except InvalidSignature:
                return 0
            self._latest = key.generation
            return key.generation
        self._passed_over = True
        return 0


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
