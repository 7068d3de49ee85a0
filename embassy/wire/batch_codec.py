"""Batches to bytes and back: the newest schemas/batch*.avsc, in Avro's single-object encoding.

The prefix names the schema that a batch was written with. Every schema that was ever shipped stays in `_SHIPPED`,
so a log of any age can be read, and what a newer writer has added is refused by an older reader, never guessed.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from operator import add, sub
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from embassy.model.batch import Batch, Chunk, Operation, Segment, Transaction
from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.relation import Column, Relation, ReplicaIdentity
from embassy.wire.avro_long import encode_long
from embassy.wire.number_columns import Numbers, pack, unpack

_SHIPPED = ("batch.avsc", "batch-2.avsc", "batch-3.avsc", "batch-4.avsc")
"""The schemas of every released version, oldest first; the last is written. Append only."""

_MARKER = b"\xc3\x01"
_PREFIX_BYTES = len(_MARKER) + 8
_HINT = "a newer producer may have written it: upgrade the reader"
# What fastavro raises for bytes that are not of the schema; none of it tells more than that.
_UNREADABLE = (
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    AttributeError,
    struct.error,
)


def _prefix(schema: Any) -> bytes:
    return _MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def _load(name: str) -> Any:
    return json.loads((files("schemas") / name).read_text(encoding="utf-8"))


_SOURCES = {_prefix(schema): schema for schema in map(_load, _SHIPPED)}
_SCHEMAS = {prefix: fastavro.parse_schema(schema, named_schemas={}) for prefix, schema in _SOURCES.items()}
_WRITTEN_PREFIX, _WRITTEN = list(_SCHEMAS.items())[-1]
_FIELD_SCHEMAS = {
    field["name"]: fastavro.parse_schema(field["type"], named_schemas={})
    for field in _SOURCES[_WRITTEN_PREFIX]["fields"]
    if field["name"] in ("relations", "chunk")
}

_END = b"\0"
"""Of an array; also no bytes, and the number of the first branch of a union, null."""
_SECOND_BRANCH = encode_long(1)
_BOOLEANS = (b"\0", b"\1")
_SMALL = tuple([encode_long(number) for number in range(256)])
_OPERATIONS = {operation: encode_long(index) for index, operation in enumerate(Operation)}


class BatchEncoder:
    """Encodes batches; costs something per segment and nothing per row.

    Segments are laid out by hand, which copies their large byte strings once instead of four times; the tests prove
    that the bytes are those of an Avro library.
    """

    def encode(self, batch: Batch) -> bytes:
        """The bytes of a batch.

        Raises:
            ValueError: a number does not fit.
        """
        parts = [_WRITTEN_PREFIX, _relations(batch.relations)]
        if batch.segments:
            parts.append(_long(len(batch.segments)))
            for segment in batch.segments:
                _lay_out(segment, parts)
        parts += (
            _END,
            _long(len(batch.order)),
            batch.order,
            _END,  # of transactions one by one
            _long(batch.part),
            _BOOLEANS[batch.complete],
            _END if batch.chunk is None else _by_library("chunk", batch.chunk._asdict()),
        )
        if batch.transactions:
            _lay_out_transactions(batch.transactions, parts)
        else:
            parts.append(_END)
        return b"".join(parts)


def _lay_out(segment: Segment, parts: list[bytes]) -> None:
    parts += (
        _long(segment.relation),
        _OPERATIONS[segment.operation],
        _long(segment.wave),
        _BOOLEANS[segment.superseded],
        _long(segment.rows),
        _longs(segment.columns),
        _longs(segment.key),
        _END,  # of rows one by one
    )
    for columns in (segment.texts, segment.values, segment.old):
        if columns:
            parts.append(_long(len(columns)))
            for column in columns:
                parts += (_long(len(column)), column)
        parts.append(_END)
    parts += (_long(segment.truncate_options), _longs(segment.truncated))


def _lay_out_transactions(transactions: Sequence[Transaction], parts: list[bytes]) -> None:
    parts += (_SECOND_BRANCH, _long(len(transactions)))
    for numbers in map(pack, _columns_of(transactions)):
        parts += (_long(numbers.first), _long(numbers.step), _long(len(numbers.rest)), numbers.rest)


def _columns_of(transactions: Sequence[Transaction]) -> tuple[Sequence[int], ...]:
    """In the order of the schema's fields."""
    xids, begins, ends, times, changes = zip(*transactions, strict=True)
    return xids, begins, [*map(sub, ends, begins)], times, changes


def _long(number: int) -> bytes:
    return _SMALL[number] if 0 <= number < len(_SMALL) else encode_long(number)


@lru_cache(maxsize=1024)
def _longs(numbers: tuple[int, ...]) -> bytes:
    """An array of numbers. Those of a stream's segments are few: the columns and keys of its tables."""
    return b"".join([_long(len(numbers)), *map(_long, numbers), _END]) if numbers else _END


@lru_cache(maxsize=256)
def _relations(relations: tuple[Relation, ...]) -> bytes:
    """A stream's batches are of the same few tables again and again."""
    return _by_library("relations", [_relation_fields(relation) for relation in relations])


def _by_library(field: str, datum: list[dict[str, Any]] | dict[str, Any]) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, _FIELD_SCHEMAS[field], datum)
    return out.getvalue()


def decode_batch(encoded: bytes) -> Batch:
    """Read a batch.

    What is checked is that everything adds up: that every index leads somewhere, and that there are as many rows as
    are announced. The values themselves are left to PostgreSQL.

    Raises:
        IntegrityError: it is malformed, or of an unknown schema.
    """
    writer = _SCHEMAS.get(encoded[:_PREFIX_BYTES])
    if writer is None:
        raise IntegrityError(f"a batch of an unknown schema: it begins with {encoded[:10].hex()}", hint=_HINT)
    source = BytesIO(encoded)
    source.seek(_PREFIX_BYTES)
    try:
        datum: Any = fastavro.schemaless_reader(source, writer, None if writer is _WRITTEN else _WRITTEN)
        batch = _from_avro(datum)
    except _UNREADABLE as error:
        raise IntegrityError(f"the batch is malformed: {type(error).__name__}: {error}", hint=_HINT) from error
    if source.tell() != len(encoded):
        raise IntegrityError(f"{len(encoded) - source.tell()} bytes follow the batch", hint=_HINT)
    _check(batch)
    return batch


def _relation_fields(relation: Relation) -> dict[str, Any]:
    columns = [column._asdict() for column in relation.columns]
    return {**relation._asdict(), "identity": relation.identity.name, "columns": columns}


def _from_avro(datum: dict[str, Any]) -> Batch:
    return Batch(
        tuple([_relation(fields) for fields in datum["relations"]]),
        tuple([_segment(fields) for fields in datum["segments"]]),
        datum["order"],
        _transactions(datum),
        datum["part"],
        datum["complete"],
        _chunk(datum["chunk"]),
    )


def _relation(fields: dict[str, Any]) -> Relation:
    columns = tuple([Column(**column) for column in fields["columns"]])
    return Relation(fields["schema"], fields["name"], ReplicaIdentity[fields["identity"]], columns)


def _segment(fields: dict[str, Any]) -> Segment:
    fields["operation"] = Operation[fields["operation"]]
    lines = fields.pop("copy_text")
    if lines:
        if fields["texts"]:
            raise ValueError("rows twice")
        fields["texts"] = _texts_of(lines, len(fields["columns"]))
    for name in ("columns", "key", "texts", "values", "old", "truncated"):
        fields[name] = tuple(fields[name])
    return Segment(**fields)


def _texts_of(lines: bytes, width: int) -> list[bytes]:
    """What stands in lines of COPY text, column by column; before batch-4.avsc inserted rows came like that."""
    rows = [line.split(b"\t") for line in lines.split(b"\n")]
    if rows.pop() != [b""]:
        raise ValueError("the last row does not end")
    return [b"\n".join(column) for column in zip(*rows, strict=True)] if width else []


def _chunk(fields: dict[str, Any] | None) -> Chunk | None:
    if fields is None:
        return None
    for name in ("key", "lower", "upper", "spared", "columns"):
        fields[name] = tuple(fields[name])
    return Chunk(**fields)


def _transactions(datum: dict[str, Any]) -> tuple[Transaction, ...]:
    columns = datum["transaction_columns"]
    if columns is None:
        return tuple([_transaction(fields) for fields in datum["transactions"]])
    if datum["transactions"]:
        raise ValueError("transactions twice")
    count = columns.pop("count")
    xids, begins, lengths, times, changes = (unpack(Numbers(**numbers), count) for numbers in columns.values())
    ends = map(Lsn, map(add, begins, lengths))
    return tuple(map(Transaction, xids, map(Lsn, begins), ends, times, changes))


def _transaction(fields: dict[str, Any]) -> Transaction:
    return Transaction(
        fields["xid"],
        Lsn(fields["commit_lsn"]),
        Lsn(fields["end_lsn"]),
        fields["committed_at"],
        fields["changes"],
    )


def _check(batch: Batch) -> None:
    """Refuse a batch that does not add up."""
    for index, segment in enumerate(batch.segments):
        why = _contradiction(segment, batch)
        if why:
            raise IntegrityError(f"segment {index} of the batch does not add up: {why}", hint=_HINT)
    if batch.chunk is not None and not _adds_up(batch.chunk, batch):
        raise IntegrityError("the batch's chunk of a table does not add up", hint=_HINT)
    if len(batch.order) % 2:
        raise IntegrityError("the batch's order ends within a number", hint=_HINT)
    order = array("H", batch.order)
    if sys.byteorder == "big":
        order.byteswap()
    if Counter(order) != {index: segment.rows for index, segment in enumerate(batch.segments)}:
        raise IntegrityError("the batch's order does not name every row of every segment once", hint=_HINT)
    if sum(transaction.changes for transaction in batch.transactions) != len(order) or batch.part < 0:
        raise IntegrityError("the batch's transactions do not add up to its changes", hint=_HINT)


def _adds_up(chunk: Chunk, batch: Batch) -> bool:
    if batch.segments or not 0 <= chunk.relation < len(batch.relations):
        return False
    width = len(batch.relations[chunk.relation].columns)
    bounds = {len(bound) for bound in (chunk.lower, chunk.upper, chunk.spared) if bound}
    return (
        all(0 <= position < width for position in (*chunk.key, *chunk.columns))
        and len(set(chunk.key)) == len(chunk.key)
        and _rising(chunk.columns)
        and bounds <= {len(chunk.key)}
        and chunk.rows == chunk.copy_text.count(b"\n")
    )


def _contradiction(segment: Segment, batch: Batch) -> str:
    """What is wrong with a segment, or nothing."""
    if not all(0 <= index < len(batch.relations) for index in (segment.relation, *segment.truncated)):
        return "it is of no relation of the batch"
    width = len(batch.relations[segment.relation].columns)
    for positions in (segment.columns, segment.key):
        if positions and not (_rising(positions) and positions[0] >= 0 and positions[-1] < width):
            return "it has columns that its relation does not have"
    if segment.rows < 1 or segment.wave < 1:
        return f"{segment.rows} rows in wave {segment.wave}"
    operation = segment.operation
    updates, deletes = operation is Operation.UPDATE, operation is Operation.DELETE
    expected = (
        len(segment.columns) if operation is Operation.INSERT else 0,
        len(segment.columns) if updates else 0,
        len(segment.key) if updates or deletes else 0,
        operation is Operation.TRUNCATE,
    )
    found = (
        len(segment.texts),
        len(segment.values),
        len(segment.old),
        bool(segment.truncated),
    )
    bare = not (segment.key or segment.columns)
    if expected != found or (updates and bare) or (deletes and bare and width):
        return f"it does not hold what a segment of kind {operation.name} holds"
    if any(len(column) < 4 * segment.rows for column in (*segment.values, *segment.old)) or any(
        text.count(b"\n") != segment.rows - 1 or b"\t" in text for text in segment.texts
    ):
        return "it has not as many values as rows"
    return ""


def _rising(positions: tuple[int, ...]) -> bool:
    return all(before < after for before, after in pairwise(positions))
