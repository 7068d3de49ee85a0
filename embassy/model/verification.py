"""What home says of its rows, so that the replica can be compared with them: messages in the stream.

A message is the text of one row of ``embassy.verify_message``; it is JSON. Unknown fields are passed over, an unknown
kind is an error. A run names its tables one after another; a table begins, comes chunk by chunk and ends.

*Key.* The texts of a row's key columns, as the stream has them. A table without a key has its rows' digests instead.
*Digest.* SHA-256 of the row's text (`embassy.pg.row_digests`), of which a message has the first eight bytes per row.
*Sum.* SHA-256 of all whole digests of a chunk in their own order; it has no order of rows to agree on.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from embassy.model.errors import IntegrityError
from embassy.model.visibility import Visibility

DIGEST_BYTES = 8

Key = tuple[str, ...]


class TableName(NamedTuple):
    """Schema and name of a table."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class RunBegin(NamedTuple):
    """A verification begins."""

    whole: bool
    """Whether every row of every published table is to be compared."""


class TableBegin(NamedTuple):
    """A table's rows will be told of; whoever commits from here on is heard of before a chunk is."""

    table: TableName
    columns: tuple[str, ...]
    """What digests are made of, in this order."""
    key: tuple[str, ...]
    """Empty: rows are told apart by their digests."""
    collations: tuple[str, ...] = ()
    """How home orders each key column, empty where bytes do."""


class Chunk(NamedTuple):
    """Some of a table's rows, as one snapshot saw them."""

    table: TableName
    number: int
    """From 0; chunks of one number speak of the same rows, the later ones once more."""
    snapshot: Visibility
    doubtful: tuple[int, ...]
    """Transactions that may have committed before the table began and are not in the snapshot."""
    rows: int
    sum: bytes
    keys: tuple[Key, ...]
    digests: tuple[bytes, ...]
    """Per key. Empty for a row that is not there, in a chunk of listed rows."""
    after: Key | None = None
    """The rows are those behind this key, None: from the first one on."""
    until: Key | None = None
    """And up to this one; None: to the last one."""
    listed: bool = False
    """The rows are those of ``keys`` only, once more."""
    first_byte: tuple[int, int] = (0, 256)
    """Without a key: the rows whose digest's first byte is in this range, its end excluded."""
    behind: tuple[Key, ...] = ()
    """Of large objects: doubts about what the snapshot shows and the stream has not brought by then
    (`embassy.model.large_objects`)."""


class TableEnd(NamedTuple):
    """All chunks of a table have been told."""

    table: TableName
    chunks: int
    skipped: str = ""
    """Why the table was not compared; empty if it was."""
    sampled: bool = False
    """Whether only some of its rows were told."""


class RunEnd(NamedTuple):
    """The verification ends."""

    tables: int
    """How many tables it told of."""


Message = RunBegin | TableBegin | Chunk | TableEnd | RunEnd
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (RunBegin, TableBegin, Chunk, TableEnd, RunEnd)}


def summed(digests: Iterable[bytes]) -> bytes:
    """The sum of whole digests."""
    return hashlib.sha256(b"".join(sorted(digests))).digest()


def encode(message: Message) -> str:
    """As the row's text."""
    fields: dict[str, Any] = {"kind": type(message).__name__, **message._asdict()}
    if isinstance(message, Chunk):
        snapshot = message.snapshot
        running = ",".join(map(str, sorted(snapshot.in_progress)))
        fields["snapshot"] = f"{snapshot.xmin}:{snapshot.xmax}:{running}"
        fields["sum"] = message.sum.hex()
        fields["absent"] = [i for i, digest in enumerate(message.digests) if not digest]
        fields["digests"] = base64.b64encode(b"".join(message.digests)).decode()
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def decode(text: str) -> Message:
    """Read a row's text.

    Raises:
        IntegrityError: it is not a message that this version knows.
    """
    try:
        fields = json.loads(text)
        kind = _KINDS[fields["kind"]]
        if kind is Chunk:
            fields = _chunk(fields)
        elif "table" in fields:
            fields["table"] = TableName(*fields["table"])
        found: Message = kind(**{name: _frozen(fields[name]) for name in kind._fields if name in fields})
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise IntegrityError(
            "a verification speaks in a way that this version does not understand",
            place="embassy.verify_message",
            hint="verify with the version that the consumer runs, or upgrade the consumer",
        ) from error
    return found


def _chunk(fields: dict[str, Any]) -> dict[str, Any]:
    whole = base64.b64decode(fields["digests"], validate=True)
    absent = set(fields["absent"])
    keys = [tuple(map(str, key)) for key in fields["keys"]]
    count = len(keys) if keys else len(whole) // DIGEST_BYTES
    if len(whole) != (count - len(absent)) * DIGEST_BYTES:
        raise ValueError("each row has one digest")
    digests, at = [], 0
    for i in range(count):
        end = at if i in absent else at + DIGEST_BYTES
        digests.append(whole[at:end])
        at = end
    after, until = (None if fields[end] is None else tuple(fields[end]) for end in ("after", "until"))
    return {
        **fields,
        "table": TableName(*fields["table"]),
        "snapshot": Visibility.parse(fields["snapshot"]),
        "sum": bytes.fromhex(fields["sum"]),
        "keys": tuple(keys),
        "digests": tuple(digests),
        "after": after,
        "until": until,
        "behind": tuple(tuple(map(str, key)) for key in fields.get("behind", ())),
    }


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
