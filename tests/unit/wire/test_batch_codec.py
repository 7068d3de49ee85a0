from __future__ import annotations

import json
from importlib.resources import files
from io import BytesIO
from typing import Any

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form

from embassy.model.batch import Batch, Chunk, Operation, Segment, Transaction
from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.relation import Column, Relation, ReplicaIdentity
from embassy.wire import batch_codec
from embassy.wire.batch_codec import BatchEncoder, decode_batch
from embassy.wire.number_columns import pack
from tests.harness.pgoutput import element

SCHEMA: Any = json.loads((files("schemas") / "batch-4.avsc").read_text(encoding="utf-8"))
PREFIX_BYTES = 10
LIVE, SUPERSEDED = False, True

PERSON = Relation(
    "public",
    'Übung "1"',
    ReplicaIdentity.INDEX,
    (
        Column("id", 20, "", -1, in_key=True),
        Column("mood", 4_000_000_000, "public.mood", -1, in_key=False),
        Column("code", 1043, "", 13, in_key=False),
    ),
)
LOG = Relation("audit", "log", ReplicaIdentity.FULL, (Column("x", 25, "", -1, in_key=True),))
INSERTS = Segment(0, Operation.INSERT, 1, LIVE, 2, (0, 1, 2), (), (b"1\n2", b"calm\ngrim", b"\\N\nx"), (), ())
UPDATES = Segment(
    0,
    Operation.UPDATE,
    300,
    SUPERSEDED,
    1,
    (0, 2),
    (0,),
    (),
    (element(b"7"), element(b"y" * 500)),
    (element(b"1"),),
)
DELETES = Segment(1, Operation.DELETE, 2, LIVE, 2, (), (0,), (), (), (element(None) + element(b""),))
TRUNCATE = Segment(1, Operation.TRUNCATE, 3, LIVE, 1, (), (), (), (), (), 3, (1, 0))
FIRST = Transaction(
    4_294_967_295, Lsn.parse("FFFF/FFFFFF00"), Lsn.parse("FFFF/FFFFFF38"), 1_767_225_600_000_000, 4
)
SECOND = Transaction(3, Lsn(1), Lsn(0), -1, 2)
BATCH = Batch(
    (PERSON, LOG),
    (INSERTS, DELETES, UPDATES, TRUNCATE),
    b"\0\0\1\0\2\0\0\0\3\0\1\0",
    (FIRST, SECOND),
    70_000,
    complete=False,
)
EMPTY = Batch((), (), b"", (), 0, complete=True)
CHUNK = Chunk(
    relation=0,
    by_range=True,
    key=(2, 0),
    lower=(b"a", b"1"),
    lower_inclusive=False,
    upper=(b"b", b"2"),
    spared=(element(b"a"), element(b"2")),
    rows=2,
    columns=(0, 1, 2),
    copy_text=b"1\tcalm\t\\N\n2\tgrim\tx\n",
)
COPIED = EMPTY._replace(relations=(PERSON,), chunk=CHUNK)


def as_datum(batch: Batch) -> dict[str, Any]:
    """A batch as the schema's fields."""
    datum = batch._asdict()
    datum["relations"] = [
        relation._asdict()
        | {"identity": relation.identity.name, "columns": [column._asdict() for column in relation.columns]}
        for relation in batch.relations
    ]
    datum["segments"] = [
        segment._asdict() | {"operation": segment.operation.name, "copy_text": b""} for segment in batch.segments
    ]
    datum["transactions"] = []
    if batch.transactions:
        xid, commit_lsn, end_lsn, committed_at, changes = zip(*batch.transactions, strict=True)
        commit_bytes = [end - begin for begin, end in zip(commit_lsn, end_lsn, strict=True)]
        columns = (xid, commit_lsn, commit_bytes, committed_at, changes)
        names = ("xid", "commit_lsn", "commit_bytes", "committed_at", "changes")
        packed = {name: pack(column)._asdict() for name, column in zip(names, columns, strict=True)}
        datum["transaction_columns"] = {"count": len(xid), **packed}
    datum["chunk"] = batch.chunk._asdict() if batch.chunk else None
    return datum


def of_a_schema_before(batch: Batch) -> dict[str, Any]:
    """The same, as it was before texts and columns of transactions."""
    datum = as_datum(batch)
    datum["transactions"] = [transaction._asdict() for transaction in batch.transactions]
    for segment in datum["segments"]:
        rows = zip(*[text.split(b"\n") for text in segment.pop("texts")], strict=True)
        segment["copy_text"] = b"".join(b"\t".join(row) + b"\n" for row in rows)
    return datum


def by_library(batch: Batch) -> bytes:
    """A batch as fastavro writes it from the schema file."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(SCHEMA), as_datum(batch))
    return (
        b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO")) + out.getvalue()
    )


@pytest.mark.parametrize("batch", [BATCH, EMPTY, COPIED])
def test_a_batch_comes_back_as_it_was(batch: Batch) -> None:
    assert decode_batch(BatchEncoder().encode(batch)) == batch


@pytest.mark.parametrize("batch", [BATCH, EMPTY, COPIED])
def test_the_bytes_are_those_of_an_avro_library(batch: Batch) -> None:
    assert BatchEncoder().encode(batch) == by_library(batch)


def test_what_comes_back_has_the_types_of_the_model() -> None:
    batch = decode_batch(BatchEncoder().encode(BATCH))
    assert isinstance(batch.transactions[0].commit_lsn, Lsn)
    assert batch.segments[0].operation is Operation.INSERT
    assert batch.relations[0].identity is ReplicaIdentity.INDEX
    assert batch.segments[0].superseded is False


def test_a_shipped_schema_never_changes() -> None:
    shipped = {name: prefix.hex() for name, prefix in zip(batch_codec._SHIPPED, batch_codec._SCHEMAS, strict=True)}
    assert shipped == {
        "batch.avsc": "c3010d3ebc66895243e6",
        "batch-2.avsc": "c301b92c5e3ee2a03058",
        "batch-3.avsc": "c301bce677853542fbe0",
        "batch-4.avsc": "c3014dd14f0e081ac456",
    }


def test_the_fingerprint_is_the_one_of_the_avro_specification() -> None:
    # the specification's own example, lowest byte first as single-object encoding wants it
    assert batch_codec._prefix("int") == b"\xc3\x01" + bytes.fromhex("8f5c393f1ad57572")


def test_every_field_of_the_schema_says_what_it_means() -> None:
    def records(schema: Any) -> list[Any]:
        if isinstance(schema, list):
            return [record for part in schema for record in records(part)]
        if not isinstance(schema, dict):
            return []
        nested = records([schema.get("items"), *[field["type"] for field in schema.get("fields", [])]])
        return [schema, *nested] if schema.get("type") == "record" else nested

    found = records(SCHEMA)
    assert [record["name"] for record in found] == [
        "Batch",
        "Relation",
        "Column",
        "Segment",
        "Transaction",
        "Chunk",
        "TransactionColumns",
        "Numbers",
    ]
    for record in found:
        assert record["doc"]
        assert all(field["doc"] for field in record["fields"])


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("batch.avsc", BATCH),
        ("batch-2.avsc", BATCH),
        ("batch-2.avsc", COPIED),
        ("batch-3.avsc", BATCH),
        ("batch-3.avsc", COPIED),
    ],
)
def test_a_batch_of_an_earlier_schema_is_read_with_it(name: str, batch: Batch) -> None:
    schema = json.loads((files("schemas") / name).read_text(encoding="utf-8"))
    datum = of_a_schema_before(batch)
    if name == "batch-3.avsc":
        datum["transactions"] = []
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema, named_schemas={}), datum)
    assert decode_batch(batch_codec._prefix(schema) + out.getvalue()) == batch


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (b"1\tcalm\t\\N\n2\tgrim\tx", "does not end"),
        (b"1\tcalm\n2\tgrim\tx\n", "zip"),
        (b"1\tcalm\n", "does not hold"),
    ],
)
def test_rows_of_an_earlier_schema_that_do_not_add_up_are_refused(lines: bytes, why: str) -> None:
    with pytest.raises(IntegrityError, match=why):
        decode_batch(with_rows_one_by_one(lines, texts=()))


def test_rows_in_both_forms_are_refused() -> None:
    with pytest.raises(IntegrityError, match="rows twice"):
        decode_batch(with_rows_one_by_one(b"1\tcalm\t\\N\n2\tgrim\tx\n", texts=INSERTS.texts))


def with_rows_one_by_one(lines: bytes, texts: tuple[bytes, ...]) -> bytes:
    datum = as_datum(BATCH)
    datum["segments"][0] |= {"copy_text": lines, "texts": texts}
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(SCHEMA, named_schemas={}), datum)
    return batch_codec._prefix(SCHEMA) + out.getvalue()


def test_a_batch_of_a_schema_that_is_not_known_yet_is_refused() -> None:
    unknown = batch_codec._prefix({**SCHEMA, "fields": SCHEMA["fields"][:-3]})
    with pytest.raises(IntegrityError, match="unknown schema"):
        decode_batch(unknown + BatchEncoder().encode(BATCH)[PREFIX_BYTES:])


@pytest.mark.parametrize(
    "damaged",
    [
        CHUNK._replace(relation=1),
        CHUNK._replace(rows=3),
        CHUNK._replace(key=(3,)),
        CHUNK._replace(upper=(b"b",)),
        CHUNK._replace(columns=(1, 0)),
    ],
)
def test_a_chunk_that_does_not_add_up_is_refused(damaged: Chunk) -> None:
    with pytest.raises(IntegrityError, match="chunk"):
        decode_batch(BatchEncoder().encode(COPIED._replace(chunk=damaged)))


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xc3\x01",
        b"\xc3\x02" + BatchEncoder().encode(EMPTY)[2:],
        b"\xc3\x01" + bytes(8) + BatchEncoder().encode(EMPTY)[PREFIX_BYTES:],
    ],
)
def test_a_batch_of_an_unknown_schema_is_refused(damaged: bytes) -> None:
    with pytest.raises(IntegrityError, match="unknown schema"):
        decode_batch(damaged)


def test_a_batch_that_is_cut_short_anywhere_is_refused() -> None:
    encoded = BatchEncoder().encode(BATCH)
    for end in range(len(encoded)):
        with pytest.raises(IntegrityError):
            decode_batch(encoded[:end])


def test_bytes_behind_a_batch_are_refused() -> None:
    with pytest.raises(IntegrityError, match="1 bytes follow"):
        decode_batch(BatchEncoder().encode(BATCH) + b"\0")


def test_whatever_is_damaged_only_integrity_errors_come_of_it() -> None:
    encoded = BatchEncoder().encode(BATCH)
    refused = 0
    for at in range(PREFIX_BYTES, len(encoded)):
        for value in (0, 1, 2, 127, 128, 255):
            damaged = encoded[:at] + bytes([value]) + encoded[at + 1 :]
            try:
                decode_batch(damaged)
            except IntegrityError:
                refused += 1
    assert refused > 500


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        (BATCH._replace(order=BATCH.order[:-1]), "ends within a number"),
        (BATCH._replace(order=BATCH.order[:-2]), "every row of every segment once"),
        (BATCH._replace(order=BATCH.order[:-2] + b"\4\0"), "every row of every segment once"),
        (BATCH._replace(order=BATCH.order[:-2] + b"\0\0"), "every row of every segment once"),
        (BATCH._replace(transactions=(FIRST,)), "do not add up to its changes"),
        (BATCH._replace(part=-1), "do not add up"),
    ],
)
def test_a_batch_that_does_not_add_up_is_refused(batch: Batch, why: str) -> None:
    with pytest.raises(IntegrityError, match=why):
        decode_batch(BatchEncoder().encode(batch))


@pytest.mark.parametrize(
    ("segment", "why"),
    [
        (INSERTS._replace(relation=2), "of no relation"),
        (INSERTS._replace(relation=-1), "of no relation"),
        (TRUNCATE._replace(truncated=(1, 2)), "of no relation"),
        (INSERTS._replace(columns=(0, 1, 3)), "columns that its relation does not have"),
        (INSERTS._replace(columns=(-1, 1, 2)), "columns that its relation does not have"),
        (UPDATES._replace(columns=(2, 0)), "columns that its relation does not have"),
        (UPDATES._replace(key=(3,)), "columns that its relation does not have"),
        (INSERTS._replace(wave=0), "2 rows in wave 0"),
        (INSERTS._replace(rows=0), "0 rows in wave 1"),
        (INSERTS._replace(texts=(b"1\n2",)), "does not hold"),
        (INSERTS._replace(texts=(b"1", b"calm\ngrim", b"a\nb")), "not as many values as rows"),
        (INSERTS._replace(texts=(b"1\n2\n3", b"calm\ngrim", b"a\nb")), "not as many values as rows"),
        (INSERTS._replace(texts=(b"1\n2", b"calm\tgrim\n", b"a\nb")), "not as many values as rows"),
        (INSERTS._replace(values=(element(b"1"),)), "does not hold"),
        (UPDATES._replace(values=(element(b"1"),)), "does not hold"),
        (UPDATES._replace(old=()), "does not hold"),
        (UPDATES._replace(key=(), old=(), columns=(), values=()), "does not hold"),
        (DELETES._replace(key=(), old=()), "does not hold"),
        (DELETES._replace(texts=(b"\n",)), "does not hold"),
        (TRUNCATE._replace(truncated=()), "does not hold"),
        (DELETES._replace(old=(element(None),)), "not as many values as rows"),
    ],
)
def test_a_segment_that_does_not_add_up_is_refused(segment: Segment, why: str) -> None:
    order = b"\0\0" * segment.rows
    batch = Batch((PERSON, LOG), (segment,), order, (SECOND._replace(changes=segment.rows),), 0, complete=True)
    with pytest.raises(IntegrityError, match=why):
        decode_batch(BatchEncoder().encode(batch))


def test_a_number_that_does_not_fit_is_not_written() -> None:
    with pytest.raises(ValueError, match="64-bit"):
        BatchEncoder().encode(BATCH._replace(part=1 << 63))
