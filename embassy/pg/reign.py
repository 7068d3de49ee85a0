"""Who writes a stream, as one of its databases knows it: which epoch it follows, and which it writes itself.

A database at home follows nothing until it was superseded and became a replica. One that was promoted has the epoch of
its promotion in its progress row, and writes it once its slot was made (`embassy.reign`). The first epoch of a stream is
written without a row there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from embassy.pg import source_fence
from embassy.pg.presence import tables_there

_PROMOTED = """
SELECT EXISTS (
    SELECT FROM embassy.promotion_plan p JOIN embassy.promotion s ON s.nonce = p.nonce
    WHERE p.stream = %s AND p.to_epoch = %s AND s.step = 'epoch' AND s.done_at IS NOT NULL)"""


class Reign(NamedTuple):
    """A database's part in a stream."""

    follows: int
    """The epoch in its progress row; 0: it never was a replica."""
    raised: bool
    """Whether a promotion here has raised it to that epoch: no consumer applies anything of it."""
    written: int
    """The newest epoch that it has a slot for since a promotion; 0: none, or the stream's first."""
    began_at: datetime | None
    """When that epoch's first record was in the topic."""

    @property
    def is_replica(self) -> bool:
        """Whether the rows come from somewhere else."""
        return self.follows > self.written and not self.raised

    @property
    def epoch(self) -> int:
        """The newest epoch that it writes or wrote; 0: the stream's first."""
        return max(self.written, self.follows if self.raised else 0)


def reign(connection: psycopg.Connection[Any], stream: bytes) -> Reign:
    """Look at a database, of whichever side and version."""
    follows, raised, written, began_at = 0, False, 0, None
    there = tables_there(connection, "embassy.progress", "embassy.promotion", "embassy.reign")
    if "embassy.progress" in there:
        row = connection.execute("SELECT epoch FROM embassy.progress WHERE stream = %s", (stream,)).fetchone()
        follows = 0 if row is None else int(row[0])
        if follows and "embassy.promotion" in there:
            raised = connection.execute(_PROMOTED, (stream, follows)).fetchone() == (True,)
    if "embassy.reign" in there:
        row = connection.execute(
            "SELECT epoch, began_at FROM embassy.reign WHERE stream = %s ORDER BY epoch DESC LIMIT 1", (stream,)
        ).fetchone()
        if row is not None:
            written, began_at = int(row[0]), row[1]
    return Reign(follows, raised, written, began_at)


def writable(connection: psycopg.Connection[Any], stream: bytes) -> bool:
    """Whether the registry's application may write here: not a replica, and not shut for a higher epoch."""
    found = reign(connection, stream)
    return not found.is_replica and source_fence.superseded_by(connection, stream, found.epoch) is None


def note(connection: psycopg.Connection[Any], stream: bytes, epoch: int, slot: str) -> None:
    """Note that the database has what it needs to write an epoch: everything committed from now on is in the slot."""
    connection.execute(
        "INSERT INTO embassy.reign (stream, epoch, slot) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (stream, epoch, slot),
    )
