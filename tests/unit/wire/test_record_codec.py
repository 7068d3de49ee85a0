from __future__ import annotations

import io

import fastavro
import pytest

from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.record import VERSION, Header, RecordKind
from embassy.wire.avro_long import encode_long, read_long
from embassy.wire.record_codec import (
    DATA_OVERHEAD_BYTES,
    decode_record,
    encode_header,
    encode_record,
    record_hash,
)
from tests.harness.independent_reader import crc64_avro, schema

HEADER = Header(
    VERSION, RecordKind.DATA, b"s" * 16, 3, b"i" * 16, 77, b"p" * 32, 2, last=True, resume_lsn=Lsn(0x16B374D848)
)
PREFIX = bytes.fromhex("c301ead46a0c9505e714")


def avro(name: str, fields: dict[str, object]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema(name), fields)
    return out.getvalue()


def refused(value: bytes, complaint: str) -> None:
    with pytest.raises(IntegrityError, match=complaint) as error:
        decode_record(value)
    assert error.value.hint


def test_a_record_reads_back() -> None:
    header_bytes = encode_header(HEADER)
    record = decode_record(encode_record(header_bytes, b"body", b"signature"))
    assert record == (HEADER, header_bytes, b"body", b"signature", record_hash(header_bytes, b"body"))
    assert isinstance(record.header.resume_lsn, Lsn)


def test_the_fingerprint_is_that_of_the_schema_and_never_changes() -> None:
    canonical = fastavro.schema.to_parsing_canonical_form(schema("sealed_record"))
    assert b"\xc3\x01" + crc64_avro(canonical.encode()) == PREFIX
    assert encode_record(b"", b"", b"") == PREFIX + bytes(3)


def test_the_bytes_are_those_of_an_avro_library() -> None:
    header_bytes = encode_header(HEADER)
    assert header_bytes == avro("header", {**HEADER._asdict(), "kind": HEADER.kind.name})
    value = encode_record(header_bytes, b"b" * 1000, b"x" * 64)
    assert value == PREFIX + avro(
        "sealed_record", {"header": header_bytes, "body": b"b" * 1000, "signature": b"x" * 64}
    )


def test_a_record_is_never_longer_than_its_body_and_the_stated_overhead() -> None:
    most = (1 << 63) - 1
    header = HEADER._replace(epoch=most, sequence=most, part=(1 << 31) - 1, resume_lsn=Lsn(most))
    value = encode_record(encode_header(header), bytes(1 << 20), bytes(64))
    assert len(value) <= (1 << 20) + DATA_OVERHEAD_BYTES


def test_the_hash_tells_where_the_header_ends() -> None:
    assert record_hash(b"ab", b"c") != record_hash(b"a", b"bc")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b"", "not a record: it begins with nothing"),
        (b'{"op": "d"}', "not a record"),
        (b"\xc3\x01" + bytes(8), "record of another schema"),
        (PREFIX, "malformed"),
        (PREFIX + b"\x04", "bytes are missing"),
        (PREFIX + b"\x03", "negative number"),
        (PREFIX + b"\xff" * 11, "no number"),
        (PREFIX + b"\x80\x00", "no number"),
        (PREFIX + encode_long(1 << 62) + b"x", "bytes are missing"),
    ],
)
def test_what_is_no_record_is_refused(value: bytes, complaint: str) -> None:
    refused(value, complaint)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda h: b"\x04" + h[1:], "unknown version: it begins with 04"),
        (lambda h: b"\x00" + h[1:], "unknown version"),
        (lambda _: b"", "unknown version: it begins with nothing"),
        (lambda h: h[:1] + b"\x04" + h[2:], "unknown kind: 4"),
        (lambda h: h[:-1], "no number"),
        (lambda h: h + b"\x00", "1 bytes too many"),
        (lambda h: h[:18] + b"\x01" + h[19:], "negative number"),
        (lambda h: h[:18] + b"\x86\x00" + h[19:], "no number"),
        (lambda h: h.replace(b"\x04\x01", b"\x04\x02", 1), "not a boolean"),
    ],
)
def test_a_header_that_nobody_would_have_written_is_refused(change: object, complaint: str) -> None:
    assert callable(change)
    refused(encode_record(change(encode_header(HEADER)), b"", b""), complaint)


def test_a_header_that_does_not_fit_is_not_written() -> None:
    with pytest.raises(ValueError, match="not a 64-bit number"):
        encode_header(HEADER._replace(sequence=1 << 63))


def test_bytes_behind_a_record_are_refused() -> None:
    refused(encode_record(encode_header(HEADER), b"", b"") + b"\x00", "1 bytes too many")


@pytest.mark.parametrize("number", [0, -1, 1, 63, 64, -64, -65, 1 << 62, (1 << 63) - 1, -(1 << 63)])
def test_numbers_are_avros(number: int) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema({"type": "long"}), number)
    assert encode_long(number) == out.getvalue()
    assert read_long(b"x" + out.getvalue() + b"y", 1) == (number, 1 + len(out.getvalue()))
