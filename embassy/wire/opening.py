"""Reading records that count: only a consumer does, with its embassy's recipient key.

Signature and link must have been judged before: what is opened here comes from the enrolled producer.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import zstandard

from embassy.model.errors import IntegrityError
from embassy.model.record import SealedRecord
from embassy.wire.data_key import DataKey, wrap_info
from embassy.wire.enrolment import Enrolment
from embassy.wire.key_record import decode_key_body
from embassy.wire.recipient_keys import RecipientKeys

BATCH_BYTES_MOST = 2 << 30
"""No batch is larger when decompressed: a value is at most 1 GB, and a batch is little more than one."""
_WINDOW_BYTES_MOST = 8 << 20


class Opener:
    """Opens one stream's records, in the order in which they count; used by one loop."""

    def __init__(self, keys: RecipientKeys, enrolment: Enrolment) -> None:
        self._keys = keys
        self._enrolment = enrolment
        self._incarnation = b""
        self._key: DataKey | None = None

    def take_key(self, record: SealedRecord) -> None:
        """Take the data key of a KEY record that counts; DATA records under it can be opened from now on.

        Raises:
            IntegrityError: it is not wrapped for a recipient that is held, the wrap was altered, or it is another
                key than the one the record commits to. The key held before stays.
            TransientError: the holder of the recipients' keys does not answer.
        """
        body = decode_key_body(record.body)
        place = self._place(record)
        if body.suite != self._enrolment.suite:
            raise IntegrityError(
                f"a KEY record names suite {body.suite}; the operators enrolled suite {self._enrolment.suite}",
                place=place,
                hint="find out who changed the producer; the enrolment pins the suite",
            )
        held = self._keys.holds()
        wrap = next((wrap for wrap in body.wraps if wrap.recipient in held), None)
        if wrap is None:
            found = ", ".join(wrap.recipient.hex() for wrap in body.wraps) or "nobody"
            own = ", ".join(recipient.hex() for recipient in held) or "nobody"
            raise IntegrityError(
                f"the data key is not wrapped for this recipient, {own}, but for {found}",
                place=place,
                hint="add this embassy's public key file to the producer's keys.recipients, or correct keys.recipient",
            )
        info = wrap_info(record.header_bytes, self._enrolment.hash, wrap.recipient)
        secret = self._keys.unwrap_for(wrap.recipient, wrap.sealed, info)
        key = DataKey(secret, record.header.incarnation) if secret is not None else None
        if key is None or not hmac.compare_digest(key.commitment, body.commitment):
            what = "cannot be unwrapped" if key is None else "is another one than the record commits to"
            raise IntegrityError(
                f"the data key for this recipient {what}",
                place=place,
                hint="the producer is at fault or in other hands: freeze the stream and examine it",
            )
        self._incarnation = record.header.incarnation
        self._key = key

    def open(self, record: SealedRecord) -> bytes:
        """The content of a DATA record that counts: a part of a compressed batch.

        Raises:
            IntegrityError: the data key is not that of the record's incarnation, or the body was altered.
        """
        header = record.header
        if self._key is None or header.incarnation != self._incarnation:
            raise IntegrityError(
                f"the data key of incarnation {header.incarnation.hex()} is not known",
                place=self._place(record),
                hint="the KEY record of the head's incarnation has to be taken first",
            )
        content = self._key.open(record.body, header.sequence, record.header_bytes)
        if content is None:
            raise IntegrityError(
                "the body of a signed record does not open",
                place=self._place(record),
                hint="the producer is at fault or its identity is in other hands: freeze the stream and examine it",
            )
        return content

    def _place(self, record: SealedRecord) -> str:
        return f"stream {self._enrolment.stream.hex()}, record {record.header.sequence}"


class _Bounded(BytesIO):
    """Takes what is decompressed, up to a size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def write(self, piece: Any, /) -> int:
        written = super().write(piece)
        if self.tell() > self._size:
            raise ValueError("it is longer than it says")
        return written


class Decompressor:
    """Puts a batch together from its parts as they come; holds what is decompressed, not what was."""

    def __init__(self, limit: int = BATCH_BYTES_MOST) -> None:
        self._limit = limit
        self._encoded: _Bounded | None = None
        self._frame: zstandard.ZstdDecompressionWriter | None = None
        self._size = 0

    def add(self, part: bytes) -> None:
        """Take the next part.

        Raises:
            IntegrityError: it does not continue a batch, or the batch would be larger than the limit.
        """
        try:
            if self._frame is None:
                self._size = _content_size(part, self._limit)
                self._encoded = _Bounded(self._size)
                decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MOST)
                self._frame = decompressor.stream_writer(self._encoded, closefd=False)
            self._frame.write(part)
        except (ValueError, zstandard.ZstdError) as error:
            raise _unreadable(str(error)) from error

    def finish(self) -> bytes:
        """The encoded batch.

        Raises:
            IntegrityError: a part is missing.
        """
        encoded = b"" if self._encoded is None else self._encoded.getvalue()
        if self._frame is None or len(encoded) != self._size:
            raise _unreadable("it is shorter than it says")
        return encoded


def decompress(parts: Sequence[bytes], limit: int = BATCH_BYTES_MOST) -> bytes:
    """The encoded batch from all its parts.

    Raises:
        IntegrityError: the parts are not one batch, or it would be larger than the limit.
    """
    if len(parts) == 1:
        return _decompress_whole(parts[0], limit)
    whole = Decompressor(limit)
    for part in parts:
        whole.add(part)
    return whole.finish()


def _decompress_whole(part: bytes, limit: int) -> bytes:
    try:
        _content_size(part, limit)
        return zstandard.ZstdDecompressor().decompress(part, allow_extra_data=False)
    except (ValueError, zstandard.ZstdError) as error:
        raise _unreadable(str(error)) from error


def _content_size(part: bytes, limit: int) -> int:
    size: int = zstandard.get_frame_parameters(part).content_size
    if size == zstandard.CONTENTSIZE_UNKNOWN:
        raise ValueError("it does not say its size")
    if size > limit:
        raise ValueError(f"its {size} bytes are more than the limit of {limit}")
    return size


def _unreadable(why: str) -> IntegrityError:
    return IntegrityError(
        f"a batch cannot be decompressed: {why}",
        hint="the producer is at fault or of another version: upgrade the reader, or examine the producer",
    )
