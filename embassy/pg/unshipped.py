"""What a source committed and its stream may not have shipped, read from its slot without moving it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import errors

from embassy.model.errors import IntegrityError, RefusedError
from embassy.model.lsn import Lsn

_FETCH_ROWS = 2_000
_PEEK = """
SELECT data FROM pg_catalog.pg_logical_slot_peek_binary_changes(
    %s, NULL, NULL, 'proto_version', '1', 'publication_names', pg_catalog.quote_ident(%s))"""


class SlotPlace(NamedTuple):
    """A slot as it stands."""

    confirmed_lsn: Lsn
    active: bool


def slot_place(connection: psycopg.Connection[Any], slot: str) -> SlotPlace:
    """Where a slot stands.

    Raises:
        IntegrityError: it is gone, or the server has dropped log that it needed.
    """
    row = connection.execute(
        """SELECT confirmed_flush_lsn::text, active, wal_status FROM pg_catalog.pg_replication_slots
           WHERE slot_name = %s AND database = pg_catalog.current_database()""",
        (slot,),
    ).fetchone()
    if row is None or row[0] is None or row[2] == "lost":
        raise IntegrityError(
            "the slot is gone, or the server has dropped log that it needed",
            place=f"slot {slot}",
            hint="compare the tables of both sides instead; nothing tells any more what was not shipped",
        )
    return SlotPlace(Lsn.parse(row[0]), row[1])


def peek(connection: psycopg.Connection[Any], slot: str, publication: str) -> Iterator[bytes]:
    """The messages of pgoutput, protocol version 1, from the slot's place to the log's end; the slot stays where it is.

    Raises:
        RefusedError: a session holds the slot.
    """
    try:
        with connection.transaction(), connection.cursor("embassy_unshipped", binary=True) as cursor:
            cursor.itersize = _FETCH_ROWS
            cursor.execute(_PEEK, (slot, publication))
            for (message,) in cursor:
                yield bytes(message)
    except errors.ObjectInUse as error:
        raise RefusedError(
            "a session holds the slot: the producer runs", place=f"slot {slot}", hint="stop the producer first"
        ) from error
