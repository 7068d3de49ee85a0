"""Sealing and opening, and each forgery that has a name."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard

from embassy.model.errors import ConfigurationError, IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.record import VERSION, Header, RecordKind, SealedRecord
from embassy.wire import sealing
from embassy.wire.key_record import KeyBody, decode_key_body, encode_key_body
from embassy.wire.keyring import Identity
from embassy.wire.opening import Decompressor, decompress
from embassy.wire.public_keys import PublicIdentity
from embassy.wire.record_codec import decode_record, encode_header, encode_record, record_hash
from embassy.wire.sealing import Sealer
from embassy.wire.suite import record_message
from embassy.wire.verifying import RecordVerifier
from tests.harness.envelope import ENROLMENT, HOME, OSLO, RIGA, THIEF, Reader, Writer, enrolled


def resigned(
    record: SealedRecord, *, identity: Identity = HOME, header: Header | None = None, body: bytes | None = None
) -> bytes:
    """The record with another header or body, signed again: what whoever holds the identity could make."""
    header = header or record.header
    header_bytes = encode_header(header)
    body = record.body if body is None else body
    message = record_message(record_hash(header_bytes, body))
    is_key = header.kind is RecordKind.KEY
    return encode_record(header_bytes, body, identity.sign_twice(message) if is_key else identity.sign(message))


def key_body(record: SealedRecord, **changes: object) -> bytes:
    return encode_key_body(KeyBody(**{**decode_key_body(record.body)._asdict(), **changes}))


def following(writer: Writer, *values: bytes) -> Reader:
    """A reader that took these records."""
    reader = Reader(enrolment=writer.enrolment, head=writer.enrolment.genesis())
    assert [reader.take(value) for value in values] == [True] * len(values)
    return reader


# ---------------------------------------------------------------- what holds


def test_every_recipient_reads_the_same() -> None:
    writer = Writer()
    values = [writer.key(), *writer.data(b"one"), *writer.data(b"two" * 1000), writer.key(), *writer.data(b"")]
    for recipient in (RIGA, OSLO):
        reader = Reader(recipient)
        assert all(reader.take(value) for value in values)
        assert reader.batches == [b"one", b"two" * 1000, b""]
        assert reader.head == writer.head


def test_a_batch_above_the_limit_travels_in_parts_of_which_the_last_moves_the_resume_position() -> None:
    writer = Writer()
    reader = following(writer, writer.key())
    encoded = os.urandom(50_000)
    values = writer.data(encoded, record_bytes=5_000)
    headers = [decode_record(value).header for value in values]
    assert [header.part for header in headers] == list(range(len(values)))
    assert [header.last for header in headers] == [False] * (len(values) - 1) + [True]
    assert {header.resume_lsn for header in headers[:-1]} == {Lsn(0)}
    assert headers[-1].resume_lsn == Lsn(10)
    assert all(len(value) <= 5_000 for value in values)
    assert sum(map(len, values)) < 1.15 * len(encoded)
    assert all(reader.take(value) for value in values)
    assert reader.batches == [encoded]


def test_parts_are_made_as_they_are_taken() -> None:
    """A batch of 32 MB that does not compress is never held sealed as a whole."""
    writer = Writer()
    writer.key()
    encoded = os.urandom(32 << 20)
    tracemalloc.start()
    try:
        sealed_bytes = 0
        for sealed in writer.sealer.data_records(writer.head, encoded, Lsn(1), 900_000):
            sealed_bytes += len(sealed.value)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sealed_bytes > len(encoded)
    assert peak < 8 << 20


def test_every_incarnation_has_a_data_key_and_an_id_of_its_own() -> None:
    writer = Writer()
    keys = [decode_record(writer.key()) for _ in range(3)]
    assert len({record.header.incarnation for record in keys}) == 3
    assert len({decode_key_body(record.body).commitment for record in keys}) == 3


def test_nothing_of_the_content_shows_and_short_contents_have_one_size() -> None:
    writer = Writer()
    writer.key()
    sizes = set()
    for content in (b"", b"Anna", os.urandom(200)):
        (value,) = writer.data(content)
        assert b"Anna" not in value
        sizes.add(len(decode_record(value).body))
    assert sizes == {256 + 16}


def test_a_key_record_names_the_source_and_repeats_the_resume_position() -> None:
    writer = Writer()
    writer.key()
    writer.data(b"x")
    record = decode_record(writer.key())
    body = decode_key_body(record.body)
    assert (body.system_identifier, body.timeline, body.suite) == (7, 1, 1)
    assert [wrap.recipient for wrap in body.wraps] == [OSLO.public.id, RIGA.public.id]
    assert (record.header.resume_lsn, record.header.part, record.header.last) == (Lsn(10), 0, True)


# ---------------------------------------------------------------- what never counts


def test_another_streams_record_does_not_count() -> None:
    other = enrolled(stream=b"o" * 16)
    spliced = Writer(other, head=ENROLMENT.genesis()).key()
    assert not Reader().take(spliced)
    moved = decode_record(spliced).header._replace(stream=ENROLMENT.stream)
    record = decode_record(spliced)
    assert not Reader().take(encode_record(encode_header(moved), record.body, record.signature))


@pytest.mark.parametrize("epoch", [1, 3])
def test_another_epochs_record_does_not_count(epoch: int) -> None:
    present, other = enrolled(epoch=2), enrolled(epoch=epoch)
    writer = Writer(other, head=present.genesis()._replace(epoch=epoch))
    assert not RecordVerifier(present)(decode_record(writer.key()))
    assert not Reader(enrolment=present, head=present.genesis()).take(Writer(other, head=other.genesis()).key())


def test_a_strangers_key_does_not_count() -> None:
    theirs = enrolled(producer=THIEF.public)
    writer = Writer(theirs, THIEF, head=ENROLMENT.genesis())
    assert not Reader().take(writer.key())


def test_whoever_holds_the_data_key_cannot_forge() -> None:
    writer = Writer()
    key = writer.key()
    reader = following(writer, key)
    data_key = reader.opener._key
    assert data_key is not None
    head = reader.head
    header = Header(
        VERSION,
        RecordKind.DATA,
        ENROLMENT.stream,
        1,
        head.incarnation,
        2,
        head.hash,
        0,
        last=True,
        resume_lsn=Lsn(5),
    )
    header_bytes = encode_header(header)
    body = data_key.seal(zstandard.compress(b"forged"), 2, header_bytes)
    forged = SealedRecord(header, header_bytes, body, b"", record_hash(header_bytes, body))
    assert not reader.take(resigned(forged, identity=THIEF))
    assert reader.take(resigned(forged)), "the same under the producer's identity counts, so the forgery was whole"


@pytest.mark.parametrize("part", ["ed25519", "mldsa65", "both", "short", "data-like", "long"])
def test_a_key_record_needs_both_signatures(part: str) -> None:
    record = decode_record(Writer().key())
    ed, ml = record.signature[:64], record.signature[64:]
    message = record_message(record.hash)
    signature = {
        "ed25519": THIEF.sign(message) + ml,
        "mldsa65": ed + THIEF.sign_twice(message)[64:],
        "both": THIEF.sign_twice(message),
        "short": record.signature[:-1],
        "data-like": ed,
        "long": record.signature + b"\0",
    }[part]
    assert not RecordVerifier(ENROLMENT)(record._replace(signature=signature))
    assert RecordVerifier(ENROLMENT)(record)


def test_a_data_record_has_one_signature_and_nothing_more() -> None:
    writer = Writer()
    key, (data,) = writer.key(), writer.data(b"x")
    verified = RecordVerifier(ENROLMENT)
    record = decode_record(data)
    assert verified(record)
    for signature in (b"", record.signature[:63], record.signature + b"\0", decode_record(key).signature):
        assert not verified(record._replace(signature=signature))


def test_plain_text_does_not_count() -> None:
    reader = Reader()
    for value in (b"", b'{"op": "d"}' * 30, b"\xc3\x01" + bytes(300)):
        assert not reader.take(value)


# ---------------------------------------------------------------- signed, and yet refused


def refused(reader: Reader, value: bytes, complaint: str) -> None:
    """What the producer itself signed halts the stream if it does not open."""
    with pytest.raises(IntegrityError, match=complaint) as error:
        reader.take(value)
    assert error.value.hint
    assert f"stream {ENROLMENT.stream.hex()}, record " in error.value.place


def test_a_body_that_was_altered_and_signed_again_does_not_open() -> None:
    writer = Writer()
    key, (data,) = writer.key(), writer.data(b"x" * 100)
    record = decode_record(data)
    altered = bytes([record.body[0] ^ 1]) + record.body[1:]
    refused(following(writer, key), resigned(record, body=altered), "does not open")
    refused(following(writer, key), resigned(record, body=b""), "does not open")
    refused(following(writer, key), resigned(record, body=b'{"plain": "text"}'), "does not open")


@pytest.mark.parametrize("change", [{"resume_lsn": Lsn(99)}, {"part": 1}, {"last": False}])
def test_a_header_that_was_altered_and_signed_again_does_not_open(change: dict[str, object]) -> None:
    writer = Writer()
    key, (data,) = writer.key(), writer.data(b"x")
    record = decode_record(data)
    changed = record.header._replace(**change)  # type: ignore[arg-type]
    refused(following(writer, key), resigned(record, header=changed), "does not open")


def test_a_body_moved_to_the_next_sequence_does_not_open() -> None:
    writer = Writer()
    key, (one,), (two,) = writer.key(), writer.data(b"one"), writer.data(b"two")
    reader = following(writer, key, one)
    refused(reader, resigned(decode_record(two), body=decode_record(one).body), "does not open")


def test_a_data_key_wrapped_for_others_is_refused_and_named() -> None:
    writer = Writer(recipients=(OSLO.public,))
    refused(Reader(), writer.key(), f"not wrapped for this recipient, {RIGA.public.id.hex()}, but for ")
    assert Reader(OSLO).take(Writer(recipients=(OSLO.public,)).key())


def test_recipients_that_are_given_different_data_keys_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    class TwoKeys:
        def __init__(self) -> None:
            self.real, self.calls = sealing._HPKE, 0

        def encrypt(self, secret: bytes, public: object, *, info: bytes) -> bytes:
            self.calls += 1
            given = secret if self.calls == 1 else bytes(len(secret))
            return self.real.encrypt(given, public, info=info)  # type: ignore[arg-type]

    monkeypatch.setattr(sealing, "_HPKE", TwoKeys())
    key = Writer().key()
    assert Reader(OSLO).take(key)
    refused(Reader(RIGA), key, "another one than the record commits to")


def test_a_changed_commitment_is_refused() -> None:
    record = decode_record(Writer().key())
    refused(Reader(), resigned(record, body=key_body(record, commitment=bytes(32))), "commits to")


@pytest.mark.parametrize("suite", [0, 2])
def test_another_suite_than_the_enrolled_one_is_refused(suite: int) -> None:
    record = decode_record(Writer().key())
    value = resigned(record, body=key_body(record, suite=suite))
    refused(Reader(), value, f"names suite {suite}; the operators enrolled suite 1")


def test_an_old_wrap_under_a_new_header_is_refused() -> None:
    writer = Writer()
    old = decode_record(writer.key())
    (data,) = writer.data(b"x")
    again = decode_record(writer.key())
    reader = Reader()
    for value in (encode_record(old.header_bytes, old.body, old.signature), data):
        assert reader.take(value)
    refused(reader, resigned(again, body=old.body), "cannot be unwrapped")


def test_a_wrap_under_another_enrolment_is_refused() -> None:
    record = decode_record(Writer().key())
    other = enrolled(start=7)
    reader = Reader(enrolment=other, head=other.genesis())
    moved = record.header._replace(previous=other.hash, resume_lsn=Lsn(7))
    refused(reader, resigned(record, header=moved), "cannot be unwrapped")


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(1168)])
def test_a_wrap_that_is_none_is_refused(sealed: bytes) -> None:
    record = decode_record(Writer().key())
    wraps = tuple(wrap._replace(sealed=sealed) for wrap in decode_key_body(record.body).wraps)
    refused(Reader(), resigned(record, body=key_body(record, wraps=wraps)), "cannot be unwrapped")


def test_a_key_body_that_is_none_is_refused() -> None:
    record = decode_record(Writer().key())
    with pytest.raises(IntegrityError, match="body of a KEY record is malformed"):
        Reader().take(resigned(record, body=b"garbage"))


def test_a_refused_key_leaves_the_one_before_in_use() -> None:
    writer = Writer()
    key = writer.key()
    reader = following(writer, key)
    (data,) = writer.data(b"still")
    bad = decode_record(Writer(recipients=(OSLO.public,)).key())
    with pytest.raises(IntegrityError):
        reader.opener.take_key(bad)
    assert reader.take(data)


def test_a_record_without_its_key_is_refused() -> None:
    writer = Writer()
    key, (data,) = writer.key(), writer.data(b"x")
    reader = Reader()
    with pytest.raises(IntegrityError, match=r"data key of incarnation .* is not known"):
        reader.opener.open(decode_record(data))
    reader.opener.take_key(decode_record(writer.key()))
    with pytest.raises(IntegrityError, match="is not known"):
        reader.opener.open(decode_record(data))
    reader.opener.take_key(decode_record(key))
    assert decompress([reader.opener.open(decode_record(data))]) == b"x"


# ---------------------------------------------------------------- the sealer's own care


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Sealer(THIEF, ENROLMENT, [RIGA.public]), "another producer than keys.identity"),
        (lambda: Sealer(HOME, ENROLMENT, []), "nobody could read the stream"),
        (lambda: Sealer(HOME, ENROLMENT, [RIGA.public, RIGA.public]), "listed twice"),
        (
            lambda: Sealer(HOME, ENROLMENT, [RIGA.public._replace(xwing=b"\xff" * 1216)]),
            "recipient's key cannot be used",
        ),
        (lambda: Sealer(HOME, ENROLMENT, [RIGA.public._replace(xwing=b"")]), "recipient's key cannot be used"),
        (lambda: RecordVerifier(replace(ENROLMENT, producer=PublicIdentity(b"\x01", b"\x02"))), "cannot be used"),
    ],
)
def test_keys_that_do_not_serve_are_refused_at_start(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as refused_:
        make()
    assert refused_.value.hint


def test_a_limit_without_room_is_refused() -> None:
    writer = Writer()
    writer.key()
    with pytest.raises(ConfigurationError, match="leaves no room") as refused_:
        writer.data(b"x", record_bytes=300)
    assert refused_.value.place == "producer.record_bytes"
    smallest = int(refused_.value.hint.split()[3])
    assert all(len(value) <= smallest for value in writer.data(os.urandom(2000), record_bytes=smallest))


def test_a_nonce_is_never_used_twice() -> None:
    writer = Writer()
    with pytest.raises(IntegrityError, match="not this producer's last"):
        writer.data(b"before any key")
    writer.key()
    before = writer.head
    writer.data(b"x")
    writer.head = before
    with pytest.raises(IntegrityError, match="not this producer's last"):
        writer.data(b"y")


# ---------------------------------------------------------------- decompression


def test_parts_come_one_by_one_or_all_at_once() -> None:
    encoded = os.urandom(100_000) + bytes(100_000)
    frame = zstandard.compress(encoded)
    parts = [frame[at : at + 999] for at in range(0, len(frame), 999)]
    assert decompress(parts) == decompress([frame]) == encoded


@pytest.mark.parametrize("count", [1, 3])
def test_a_bomb_is_not_decompressed(count: int) -> None:
    frame = zstandard.compress(bytes(1 << 24))
    size = -(-len(frame) // count)
    parts = [frame[at : at + size] for at in range(0, len(frame), size)]
    with pytest.raises(IntegrityError, match="more than the limit of 1048576"):
        decompress(parts, limit=1 << 20)


@pytest.mark.parametrize("count", [1, 3])
def test_a_bomb_that_lies_about_its_size_ends_where_it_said(count: int) -> None:
    frame = bytearray(zstandard.compress(bytes(1 << 24)))
    assert zstandard.get_frame_parameters(bytes(frame)).content_size == 1 << 24
    at = bytes(frame).index((1 << 24).to_bytes(4, "little"))
    frame[at : at + 4] = (1 << 12).to_bytes(4, "little")
    size = -(-len(frame) // count)
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="cannot be decompressed"):
            decompress([bytes(frame[at : at + size]) for at in range(0, len(frame), size)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def _no_size(encoded: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(encoded)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b""],
        [b"garbage"],
        [zstandard.compress(b"abc")[:-1]],
        [zstandard.compress(b"abc" * 99) + b"more"],
        [zstandard.compress(b"abc"), zstandard.compress(b"def")],
        [zstandard.compress(b"abc"), b"more"],
        [_no_size(b"abc")],
        [_no_size(b"abc"), b""],
    ],
)
def test_what_is_not_one_batch_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(IntegrityError, match="a batch cannot be decompressed"):
        decompress(parts)


def test_a_batch_that_is_not_whole_is_refused() -> None:
    batch = Decompressor()
    batch.add(zstandard.compress(os.urandom(500_000))[:400_000])
    with pytest.raises(IntegrityError, match="shorter than it says"):
        batch.finish()
