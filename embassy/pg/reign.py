"""Who writes a stream, as one of its databases knows it: which epoch it follows, and which it writes itself.

A database at home follows nothing until it was superseded and became a replica. One that was promoted has the epoch of
its promotion in its progress row, and writes it once its slot was made (`embassy.reign`). The first epoch of a stream is
written without a row there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from embassy.pg.exchange import Errand
from embassy.pg.presence import Look, Part

_PROGRESS, _PLAN, _STEP = "embassy.progress", "embassy.promotion_plan", "embassy.promotion"
_FOLLOWS = "(SELECT epoch FROM embassy.progress WHERE stream = {stream})"
_REIGN = (
    Part(_FOLLOWS, (_PROGRESS,)),
    Part(
        f"""EXISTS (SELECT FROM embassy.promotion_plan p JOIN embassy.promotion s ON s.nonce = p.nonce
                    WHERE p.stream = {{stream}} AND p.to_epoch = {_FOLLOWS} AND s.step = 'epoch'
                      AND s.done_at IS NOT NULL)""",
        (_PROGRESS, _PLAN, _STEP),
    ),
    Part("(SELECT max(epoch) FROM embassy.reign WHERE stream = {stream})", ("embassy.reign",)),
    Part(
        "(SELECT began_at FROM embassy.reign WHERE stream = {stream} ORDER BY epoch DESC LIMIT 1)",
        ("embassy.reign",),
    ),
)
_FENCED = Part("(SELECT max(to_epoch) FROM embassy.fence WHERE stream = {stream})", ("embassy.fence",))
_JOURNAL = (
    Part(
        f"""EXISTS (SELECT FROM embassy.promotion_plan p
                    WHERE p.stream = {{stream}} AND p.to_epoch = {_FOLLOWS} AND p.outcome = 'promoted')""",
        (_PROGRESS, _PLAN),
    ),
    Part(
        """coalesce((SELECT extract(epoch FROM max(s.intent_at))::float8
                     FROM embassy.promotion_plan p JOIN embassy.promotion s USING (nonce)
                     WHERE p.stream = {stream} AND p.outcome IS NULL), 0)""",
        (_PLAN, _STEP),
    ),
)


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


class Standing(NamedTuple):
    """What a database says of its part in a stream, for those who watch."""

    writable: bool
    """Whether the registry's application may write here: not a replica, and not shut for a higher epoch."""
    journal: Journal | None
    """None: the database has no journal of promotions, or does not know the stream."""


class Journal(NamedTuple):
    """What a replica's journal says."""

    epoch: int
    promoted: bool
    step_begun_at: float
    """Since when the newest step of a plan under way has not ended, seconds since 1970 UTC; 0: nothing is under way."""


class StandingLook:
    """Looks at one stream in a database, of whichever side and version, again and again and in one exchange each time."""

    def __init__(self, stream: bytes) -> None:
        self._look = Look(*_REIGN, _FENCED, *_JOURNAL, stream=stream)

    def __call__(self, connection: psycopg.Connection[Any]) -> Standing:
        """Look, with a connection in autocommit mode."""
        return _standing(self._look(connection))

    def errand(self, found: Callable[[Standing], None]) -> Errand:
        """The same, to be asked along with other things."""
        return self._look.errand(lambda values: found(_standing(values)))


def reign(connection: psycopg.Connection[Any], stream: bytes) -> Reign:
    """Look at a database, of whichever side and version."""
    return _reign(Look(*_REIGN, stream=stream)(connection))


def writable(connection: psycopg.Connection[Any], stream: bytes) -> bool:
    """Whether the registry's application may write here: not a replica, and not shut for a higher epoch."""
    return StandingLook(stream)(connection).writable


def _standing(values: Sequence[Any]) -> Standing:
    """Of all that `StandingLook` has looked at."""
    *of_reign, fenced, promoted, step_begun_at = values
    found = _reign(of_reign)
    writable = not found.is_replica and (fenced or 0) <= found.epoch
    known = promoted is not None and found.follows
    return Standing(writable, Journal(found.follows, promoted, step_begun_at or 0.0) if known else None)


def _reign(values: Sequence[Any]) -> Reign:
    """Of what `_REIGN` has looked at."""
    follows, raised, written, began_at = values
    return Reign(follows or 0, bool(raised), written or 0, began_at)


def note(connection: psycopg.Connection[Any], stream: bytes, epoch: int, slot: str) -> None:
    """Note that the database has what it needs to write an epoch: everything committed from now on is in the slot."""
    connection.execute(
        "INSERT INTO embassy.reign (stream, epoch, slot) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (stream, epoch, slot),
    )
