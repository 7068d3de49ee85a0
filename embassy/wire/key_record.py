"""The body of a KEY record: the wrapped data key and the source it is written from (schemas/key_body.avsc)."""

from __future__ import annotations

import json
import struct
from importlib.resources import files
from io import BytesIO
from typing import Any, NamedTuple

import fastavro

from embassy.model.errors import IntegrityError

_SCHEMA: Any = fastavro.parse_schema(
    json.loads((files("schemas") / "key_body.avsc").read_text(encoding="utf-8")), named_schemas={}
)
_UNSIGNED = 1 << 64
_SIGNED_MOST = (1 << 63) - 1
# What fastavro raises for bytes that are not of the schema; none of it tells more than that.
_UNREADABLE = (EOFError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, struct.error)


class Wrap(NamedTuple):
    """The data key for one recipient."""

    recipient: bytes
    sealed: bytes


class KeyBody(NamedTuple):
    """What a KEY record says."""

    system_identifier: int
    """The source's, unsigned as PostgreSQL prints it."""
    timeline: int
    suite: int
    commitment: bytes
    """Derived from the data key, so that no two recipients can be given different ones."""
    wraps: tuple[Wrap, ...]


def encode_key_body(body: KeyBody) -> bytes:
    """The body's Avro bytes."""
    identifier = body.system_identifier
    out = BytesIO()
    fastavro.schemaless_writer(
        out,
        _SCHEMA,
        {
            "system_identifier": identifier - _UNSIGNED if identifier > _SIGNED_MOST else identifier,
            "timeline": body.timeline,
            "suite": body.suite,
            "commitment": body.commitment,
            "wraps": [wrap._asdict() for wrap in body.wraps],
        },
    )
    return out.getvalue()


def decode_key_body(body: bytes) -> KeyBody:
    """Read a KEY record's body; needs no secret.

    Raises:
        IntegrityError: it is not, byte for byte, a KEY body.
    """
    try:
        fields: Any = fastavro.schemaless_reader(BytesIO(body), _SCHEMA, None)
        read = KeyBody(
            fields["system_identifier"] % _UNSIGNED,
            fields["timeline"],
            fields["suite"],
            fields["commitment"],
            tuple(Wrap(wrap["recipient"], wrap["sealed"]) for wrap in fields["wraps"]),
        )
        intact = encode_key_body(read) == body
    except _UNREADABLE:
        intact = False
    if not intact:
        raise IntegrityError(
            "the body of a KEY record is malformed",
            hint="a newer producer may have written it: upgrade the reader",
        )
    return read
