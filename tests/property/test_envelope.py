"""Any batch reads back; any record that differs in any way from what was written never counts or does not open."""

from __future__ import annotations

import io
import os
import random

import fastavro
from hypothesis import given, settings
from hypothesis import strategies as st

from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.record import VERSION, Header, RecordKind
from embassy.wire.key_record import decode_key_body
from embassy.wire.record_codec import decode_record, encode_header, encode_record
from tests.harness.envelope import OSLO, RIGA, SMALLEST_RECORD, Reader, Writer
from tests.harness.independent_reader import datum, schema

naturals = st.integers(0, (1 << 63) - 1)
headers = st.builds(
    Header,
    version=st.just(VERSION),
    kind=st.sampled_from(RecordKind),
    stream=st.binary(min_size=16, max_size=16),
    epoch=naturals,
    incarnation=st.binary(min_size=16, max_size=16),
    sequence=naturals,
    previous=st.binary(min_size=32, max_size=32),
    part=st.integers(0, (1 << 31) - 1),
    last=st.booleans(),
    resume_lsn=naturals.map(Lsn),
)


def accepted(reader: Reader, value: bytes) -> bool:
    """Whether a record counted and opened."""
    try:
        return reader.take(value)
    except IntegrityError:
        return False


def content(rng: random.Random, size: int) -> bytes:
    """Half of it compresses."""
    return rng.randbytes(size // 2) + bytes(size - size // 2)


@settings(max_examples=300, deadline=None)
@given(header=headers, body=st.binary(max_size=300), signature=st.binary(max_size=80))
def test_the_record_codec_writes_and_reads_what_an_avro_library_does(
    header: Header, body: bytes, signature: bytes
) -> None:
    header_bytes = encode_header(header)
    value = encode_record(header_bytes, body, signature)
    fields = datum("sealed_record", value[10:])
    assert fields == {"header": header_bytes, "body": body, "signature": signature}
    assert datum("header", header_bytes) == {**header._asdict(), "kind": header.kind.name}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema("sealed_record"), fields)
    assert value[10:] == out.getvalue()
    record = decode_record(value)
    assert record[:4] == (header, header_bytes, body, signature)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(0, 60_000), min_size=1, max_size=4),
    record_bytes=st.integers(SMALLEST_RECORD, 20_000),
)
def test_any_batches_read_back_in_records_within_the_limit(seed: int, sizes: list[int], record_bytes: int) -> None:
    rng = random.Random(seed)
    batches = [content(rng, size) for size in sizes]
    writer = Writer()
    readers = [Reader(RIGA), Reader(OSLO)]
    values = [writer.key()]
    for batch in batches:
        parts = writer.data(batch, record_bytes)
        assert all(len(part) <= record_bytes for part in parts)
        values += parts
        if rng.random() < 0.3:
            values.append(writer.key())
    for reader in readers:
        assert all(reader.take(value) for value in values)
        assert reader.batches == batches
        assert reader.head == writer.head


_WRITER = Writer()
_CHAIN = [_WRITER.key(), *_WRITER.data(b"one"), *_WRITER.data(os.urandom(1500), SMALLEST_RECORD), _WRITER.key()]


def test_any_flipped_bit_anywhere_in_a_data_record_is_refused() -> None:
    before = Reader()
    assert before.take(_CHAIN[0])
    value = _CHAIN[1]
    for at in range(len(value)):
        for bit in range(8):
            altered = value[:at] + bytes([value[at] ^ 1 << bit]) + value[at + 1 :]
            assert not accepted(before, altered), f"bit {bit} of byte {at}"
    assert before.take(value)


@settings(max_examples=400, deadline=None)
@given(index=st.integers(0, len(_CHAIN) - 1), place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_any_changed_byte_anywhere_in_a_record_is_refused(index: int, place: float, change: int) -> None:
    reader = Reader()
    assert all(reader.take(value) for value in _CHAIN[:index])
    value = _CHAIN[index]
    at = int(place * len(value))
    assert not accepted(reader, value[:at] + bytes([value[at] ^ change]) + value[at + 1 :])
    assert reader.take(value)


@settings(max_examples=200, deadline=None)
@given(index=st.integers(0, len(_CHAIN) - 1), seed=st.integers(0, 2**32))
def test_any_cut_or_longer_record_is_refused(index: int, seed: int) -> None:
    rng = random.Random(seed)
    reader = Reader()
    assert all(reader.take(value) for value in _CHAIN[:index])
    value = _CHAIN[index]
    start = rng.randrange(len(value))
    end = rng.randrange(start, len(value)) + 1
    for altered in (value[:start], value[:start] + value[end:], value + rng.randbytes(rng.randrange(1, 20))):
        assert not accepted(reader, altered)


@settings(max_examples=100, deadline=None)
@given(order=st.permutations(range(len(_CHAIN))), repeats=st.lists(st.integers(0, len(_CHAIN) - 1), max_size=5))
def test_in_any_order_and_however_repeated_only_a_prefix_of_history_counts(
    order: list[int], repeats: list[int]
) -> None:
    reader = Reader()
    counted = [index for index in (*order, *repeats, *order) if reader.take(_CHAIN[index])]
    assert counted == list(range(len(counted)))


@settings(max_examples=500, deadline=None)
@given(value=st.binary(max_size=400), prefixed=st.booleans())
def test_the_parsers_refuse_garbage_and_never_fail_otherwise(value: bytes, *, prefixed: bool) -> None:
    if prefixed:
        value = _CHAIN[0][:10] + value
    try:
        decode_record(value)
    except IntegrityError as error:
        assert error.hint  # noqa: PT017 - whatever is not refused is a record
    try:
        decode_key_body(value)
    except IntegrityError as error:
        assert error.hint  # noqa: PT017


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_key_body_is_refused_or_reads_as_what_it_says(seed: int) -> None:
    rng = random.Random(seed)
    body = bytearray(decode_record(_CHAIN[0]).body)
    for _ in range(rng.randrange(1, 4)):
        body[rng.randrange(len(body))] = rng.randrange(256)
    try:
        decode_key_body(bytes(body))
    except IntegrityError as error:
        assert "malformed" in str(error)  # noqa: PT017
