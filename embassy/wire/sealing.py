"""Making records: only the producer does, with its identity, for the recipients it was configured with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import zstandard
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite

from embassy.model.errors import ConfigurationError, IntegrityError, RefusedError
from embassy.model.lsn import Lsn
from embassy.model.record import VERSION, Head, Header, RecordKind
from embassy.wire.data_key import DataKey, wrap_info
from embassy.wire.enrolment import Enrolment
from embassy.wire.key_record import KeyBody, Wrap, encode_key_body
from embassy.wire.keyring import Identity
from embassy.wire.padding import FLOOR, longest_content
from embassy.wire.public_keys import PublicRecipient
from embassy.wire.record_codec import DATA_OVERHEAD_BYTES, encode_header, encode_record, record_hash
from embassy.wire.suite import DATA_KEY_BYTES, TAG_BYTES, record_message

_HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_KEY_BYTES = 1184
_ZSTD_LEVEL = 1


class Sealed(NamedTuple):
    """A record ready to append."""

    value: bytes
    """The Kafka value."""
    head: Head
    """The head once it counts."""


class _Incarnation(NamedTuple):
    id: bytes
    key: DataKey


class _KeysInUse(NamedTuple):
    identity: Identity
    generation: int
    recipients: tuple[tuple[bytes, MLKEM768X25519PublicKey], ...]


class Sealer:
    """Seals one stream's batches; used by one loop."""

    def __init__(self, identity: Identity, enrolment: Enrolment, recipients: Sequence[PublicRecipient]) -> None:
        """Take the keys.

        Raises:
            ConfigurationError: the identity is not the enrolled one, there is no recipient, one stands twice, or
                a key cannot be used.
        """
        self._enrolment = enrolment
        self._incarnation: _Incarnation | None = None
        self._sequence = 0
        self._next = self._use = self._checked(identity, enrolment, recipients)

    @property
    def generation(self) -> int:
        """The number of the producer that the next KEY record will be signed by."""
        return self._next.generation

    def adopt(self, identity: Identity, enrolment: Enrolment, recipients: Sequence[PublicRecipient]) -> None:
        """Take other keys, from the next KEY record on; may be called from any thread.

        Raises:
            ConfigurationError: as the constructor; the keys so far stay.
            RefusedError: the enrolment is another one, or the identity one that has been succeeded.
        """
        found = self._checked(identity, enrolment, recipients)
        if enrolment.hash != self._enrolment.hash or found.generation < self._use.generation:
            raise RefusedError(
                "the keys are of another enrolment, or of a producer that was succeeded",
                place=f"stream {enrolment.stream.hex()}",
                hint="restart the producer if another enrolment is meant; a succeeded identity never comes back",
            )
        self._next = found

    def _checked(
        self, identity: Identity, enrolment: Enrolment, recipients: Sequence[PublicRecipient]
    ) -> _KeysInUse:
        place = f"stream {enrolment.stream.hex()}"
        generation = enrolment.generation_of(identity.public)
        if not generation:
            raise ConfigurationError(
                "the enrolment is for another producer than keys.identity",
                place=place,
                hint="correct keys.identity, or let the operators enrol this one",
            )
        if not recipients:
            raise ConfigurationError(
                "there is no recipient, so nobody could read the stream",
                place=place,
                hint="list the embassies' public key files in keys.recipients",
            )
        if len({recipient.id for recipient in recipients}) != len(recipients):
            raise ConfigurationError(
                "a recipient is listed twice", place=place, hint="keys.recipients names each embassy once"
            )
        return _KeysInUse(
            identity, generation, tuple((recipient.id, _public_key(recipient)) for recipient in recipients)
        )

    def key_record(self, head: Head, incarnation: bytes, *, system_identifier: int, timeline: int) -> Sealed:
        """Begin an incarnation with a fresh data key; `data_records` uses it from now on.

        Args:
            head: what the KEY links to.
            incarnation: its name, of `ID_BYTES` bytes: never one that another KEY has had.
            system_identifier: the source's.
            timeline: the source's.
        """
        self._use = self._next
        secret = os.urandom(DATA_KEY_BYTES)
        key = DataKey(secret, incarnation)
        header = self._header(RecordKind.KEY, head, incarnation, 0, head.resume_lsn, last=True)
        header_bytes = encode_header(header)
        wraps = tuple(
            Wrap(id_, _HPKE.encrypt(secret, public, info=wrap_info(header_bytes, self._enrolment.hash, id_)))
            for id_, public in self._use.recipients
        )
        body = KeyBody(system_identifier, timeline, self._enrolment.suite, key.commitment, wraps)
        self._incarnation = _Incarnation(incarnation, key)
        self._sequence = header.sequence
        return self._signed(header, header_bytes, encode_key_body(body))

    def data_records(self, head: Head, encoded: bytes, resume_lsn: Lsn, record_bytes: int) -> Iterator[Sealed]:
        """Compress and seal an encoded batch, in as many parts as the limit asks for.

        Parts are made as they are taken, so that a large batch is never held compressed as a whole. Only the last
        one carries the resume LSN.

        Args:
            head: what the first part links to.
            encoded: the batch.
            resume_lsn: the end of the last whole transaction, this batch included.
            record_bytes: no Kafka value will be larger.

        Raises:
            ConfigurationError: no part fits the limit.
            IntegrityError: the head is not this sealer's own.
        """
        room = record_bytes - DATA_OVERHEAD_BYTES - TAG_BYTES
        if room < FLOOR:
            raise ConfigurationError(
                f"a record limit of {record_bytes} bytes leaves no room for a body",
                place="producer.record_bytes",
                hint=f"set it to {DATA_OVERHEAD_BYTES + TAG_BYTES + FLOOR} or more",
            )
        for part, (content, last) in enumerate(self._compressed(encoded, longest_content(room))):
            sealed = self._data_record(head, content, part, resume_lsn if last else head.resume_lsn, last=last)
            head = sealed.head
            yield sealed

    @staticmethod
    def _compressed(encoded: bytes, part_bytes: int) -> Iterator[tuple[bytes, bool]]:
        """One zstd frame, with its content's size, cut into parts; each with whether it is the last."""
        # A compressor keeps what it needed for the largest batch, half a megabyte or more. Making one takes 10 µs.
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        chunker = compressor.chunker(size=len(encoded), chunk_size=min(part_bytes, _compressed_most(len(encoded))))
        held = b""
        for content in _drained(chunker, encoded):
            if held:
                yield held, False
            held = content
        yield held, True

    def _data_record(self, head: Head, content: bytes, part: int, resume_lsn: Lsn, *, last: bool) -> Sealed:
        incarnation = self._incarnation
        if incarnation is None or head.incarnation != incarnation.id or head.sequence != self._sequence:
            raise IntegrityError(
                "a record was to be sealed behind one that is not this producer's last",
                place=f"stream {self._enrolment.stream.hex()}",
                hint="this is a defect of the producer; restarting it begins a new incarnation",
            )
        header = self._header(RecordKind.DATA, head, incarnation.id, part, resume_lsn, last=last)
        header_bytes = encode_header(header)
        self._sequence = header.sequence  # before the nonce is used: it is never used twice
        return self._signed(header, header_bytes, incarnation.key.seal(content, header.sequence, header_bytes))

    def _header(
        self, kind: RecordKind, head: Head, incarnation: bytes, part: int, resume_lsn: Lsn, *, last: bool
    ) -> Header:
        return Header(
            VERSION,
            kind,
            self._enrolment.stream,
            self._enrolment.epoch,
            incarnation,
            head.sequence + 1,
            head.hash,
            part,
            last,
            resume_lsn,
        )

    def _signed(self, header: Header, header_bytes: bytes, body: bytes) -> Sealed:
        digest = record_hash(header_bytes, body)
        identity = self._use.identity
        sign = identity.sign_twice if header.kind is RecordKind.KEY else identity.sign
        value = encode_record(header_bytes, body, sign(record_message(digest)))
        head = Head(
            digest, header.sequence, header.epoch, header.incarnation, header.resume_lsn, self._use.generation
        )
        return Sealed(value, head)


def _compressed_most(size: int) -> int:
    """So many bytes a zstd frame has at most (ZSTD_COMPRESSBOUND in zstd.h, and room for its header)."""
    return size + (size >> 8) + 256


def _drained(chunker: zstandard.ZstdCompressionChunker, encoded: bytes) -> Iterator[bytes]:
    yield from chunker.compress(encoded)
    yield from chunker.finish()  # type: ignore[no-untyped-call]


@lru_cache(maxsize=32)
def _public_key(recipient: PublicRecipient) -> MLKEM768X25519PublicKey:
    """A recipient's key, once for all streams that are sealed for it: it takes seven kilobytes."""
    kem, curve = recipient.xwing[:_MLKEM_KEY_BYTES], recipient.xwing[_MLKEM_KEY_BYTES:]
    try:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(kem), X25519PublicKey.from_public_bytes(curve)
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            f"a recipient's key cannot be used: {error}",
            place=f"recipient {recipient.id.hex()}",
            hint="take its public file from the embassy again; if the message names ML-KEM, install the pinned "
            "cryptography wheel",
        ) from error
