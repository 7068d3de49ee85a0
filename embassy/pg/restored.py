"""A database at home that was found restored from an older state: noted there, so that it stays found.

Its log ends before the stream then, or it has forgotten a beat that this very process saw. Neither lasts, where
applications go on writing or the process ends; what was committed between the state that was restored and the stream's
old end would be passed over as if the stream had it.
"""

from __future__ import annotations

from typing import Any

import psycopg

from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.pg.presence import has_table

HINT = "the embassy knows more than this server: do not discard it; decide with its operators"


def check(connection: psycopg.Connection[Any], stream: bytes, epoch: int, *, place: str) -> None:
    """Make sure that the database was never found restored while it wrote an epoch.

    Raises:
        IntegrityError: it was.
    """
    if not has_table(connection, "embassy.restored"):
        return
    row = connection.execute(
        """SELECT pg_catalog.to_char(found_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), log_end::text,
                  stream_end::text, log_end < stream_end
           FROM embassy.restored WHERE stream = %s AND epoch = %s""",
        (stream, epoch),
    ).fetchone()
    if row is not None:
        found_at, log_end, stream_end, shorter = row
        proof = (
            f"its log ended at {log_end}, before the stream's end" if shorter else "it lacked beats of the stream"
        )
        raise IntegrityError(
            f"the source was restored from an older state: at {found_at} {proof} at {stream_end}; what it has written "
            "since is not a continuation",
            place=place,
            hint=HINT,
        )


def note(connection: psycopg.Connection[Any], stream: bytes, epoch: int, *, log_end: Lsn, stream_end: Lsn) -> None:
    """Note that it was, the first time; a source of an earlier version has no place for it."""
    if has_table(connection, "embassy.restored"):
        connection.execute(
            "SELECT embassy.note_restored(%s, %s, %s::pg_catalog.pg_lsn, %s::pg_catalog.pg_lsn)",
            (stream, epoch, str(log_end), str(stream_end)),
        )
