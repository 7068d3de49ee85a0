"""Records to bytes and back: schemas/sealed_record.avsc and schemas/header.avsc, written out by hand.

Every record passes here several times on its way, so the two schemas are spelled out; the tests prove that the
bytes are those of an Avro library. Reading is strict: bytes that another writer of the same values would not have
written are no record. So whoever can parse a record agrees on what it says.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

from fastavro.schema import fingerprint, to_parsing_canonical_form

from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.record import HASH_BYTES, ID_BYTES, VERSION, Header, RecordKind, SealedRecord
from embassy.wire.avro_long import LONGEST, encode_long, read_long
from embassy.wire.suite import ED25519_SIGNATURE_BYTES, RECORD_DOMAIN

_MARKER = b"\xc3\x01"
_HINT = "a newer version may have written it: upgrade the readers first; otherwise it is not a record"


def _prefix() -> bytes:
    schema = json.loads((files("schemas") / "sealed_record.avsc").read_text(encoding="utf-8"))
    return _MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


_PREFIX = _prefix()
_VERSION_BYTES = encode_long(VERSION)
_KIND_BYTES = {kind: encode_long(index) for index, kind in enumerate(RecordKind)}
_KINDS = {encoded[0]: kind for kind, encoded in _KIND_BYTES.items()}
_FALSE, _TRUE = _BOOLEANS = (b"\x00", b"\x01")
_HEADER_BYTES_MOST = 2 + 2 * ID_BYTES + HASH_BYTES + 1 + 4 * LONGEST
DATA_OVERHEAD_BYTES = len(_PREFIX) + 3 * LONGEST + _HEADER_BYTES_MOST + ED25519_SIGNATURE_BYTES
"""The most that a DATA record is longer than its body."""


def encode_header(header: Header) -> bytes:
    """The header's Avro bytes, which are signed with the body and are its associated data.

    Raises:
        ValueError: a number does not fit.
    """
    return b"".join(
        (
            _VERSION_BYTES,
            _KIND_BYTES[header.kind],
            header.stream,
            encode_long(header.epoch),
            header.incarnation,
            encode_long(header.sequence),
            header.previous,
            encode_long(header.part),
            _TRUE if header.last else _FALSE,
            encode_long(header.resume_lsn),
        )
    )


def record_hash(header_bytes: bytes, body: bytes) -> bytes:
    """What the signature covers and the next record names."""
    digest = hashlib.sha256(RECORD_DOMAIN + len(header_bytes).to_bytes(4, "big") + header_bytes)
    digest.update(body)
    return digest.digest()


def encode_record(header_bytes: bytes, body: bytes, signature: bytes) -> bytes:
    """A Kafka value; copies the body once."""
    return b"".join(
        (
            _PREFIX,
            encode_long(len(header_bytes)),
            header_bytes,
            encode_long(len(body)),
            body,
            encode_long(len(signature)),
            signature,
        )
    )


def record_or_none(value: bytes) -> SealedRecord | None:
    """As `decode_record`; None if it is no record."""
    try:
        return decode_record(value)
    except IntegrityError:
        return None


def decode_record(value: bytes) -> SealedRecord:
    """Read a Kafka value.

    Nothing is proven of who wrote it.

    Raises:
        IntegrityError: it is not, byte for byte, a record of a known version.
    """
    if not value.startswith(_PREFIX):
        known = "a record of another schema" if value.startswith(_MARKER) else "not a record"
        raise IntegrityError(f"the value is {known}: it begins with {value[:10].hex() or 'nothing'}", hint=_HINT)
    try:
        header_bytes, at = _read_bytes(value, len(_PREFIX))
        body, at = _read_bytes(value, at)
        signature, at = _read_bytes(value, at)
        _must_end(value, at)
        header = _decode_header(header_bytes)
    except ValueError as error:
        raise IntegrityError(f"the record is malformed: {error}", hint=_HINT) from error
    return SealedRecord(header, header_bytes, body, signature, record_hash(header_bytes, body))


def _decode_header(source: bytes) -> Header:
    if len(source) < 2 or source[:1] != _VERSION_BYTES:
        raise ValueError(f"its header is of an unknown version: it begins with {source[:1].hex() or 'nothing'}")
    kind = _KINDS.get(source[1])
    if kind is None:
        raise ValueError(f"it is of an unknown kind: {source[1]}")
    stream, at = _read_fixed(source, 2, ID_BYTES)
    epoch, at = _read_natural(source, at)
    incarnation, at = _read_fixed(source, at, ID_BYTES)
    sequence, at = _read_natural(source, at)
    previous, at = _read_fixed(source, at, HASH_BYTES)
    part, at = _read_natural(source, at)
    last, at = _read_fixed(source, at, 1)
    resume_lsn, at = _read_natural(source, at)
    _must_end(source, at)
    if last not in _BOOLEANS:
        raise ValueError(f"not a boolean: {last.hex()}")
    return Header(
        VERSION,
        kind,
        stream,
        epoch,
        incarnation,
        sequence,
        previous,
        part,
        last == _TRUE,
        Lsn(resume_lsn),
    )


def _read_natural(source: bytes, at: int) -> tuple[int, int]:
    number, after = read_long(source, at)
    if number < 0:
        raise ValueError(f"a negative number at byte {at}")
    return number, after


def _read_bytes(source: bytes, at: int) -> tuple[bytes, int]:
    length, start = _read_natural(source, at)
    return _read_fixed(source, start, length)


def _read_fixed(source: bytes, at: int, length: int) -> tuple[bytes, int]:
    end = at + length
    if end > len(source):
        raise ValueError(f"{end - len(source)} bytes are missing")
    return source[at:end], end


def _must_end(source: bytes, at: int) -> None:
    if at != len(source):
        raise ValueError(f"{len(source) - at} bytes too many")
