"""How chunks get their places in a stream, for its loop: see `producers.copy_desk` for the other side.

A chunk stands where everything that its snapshot sees has been delivered. What was delivered too and it does not see
is done to its rows first (`producers.chunk_rows`), so that at its place it is what the source held there.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import psycopg

from embassy.model.batch import Batch, Transaction
from embassy.model.errors import IntegrityError, TransientError
from embassy.model.lsn import ZERO, Lsn
from embassy.model.relation import Relation
from embassy.pg import copy_source, table_copies
from embassy.pg.connection import connect
from embassy.pg.lost_session import passing
from embassy.runtime import failpoints
from embassy.runtime.failpoints import failpoint
from producers.chunk_batches import chunk_batch, moved_in_part, piece_batch
from producers.chunk_rows import merge
from producers.copy_desk import CopyDesk, Fate, InTopic, Noted, Offer

_NEAR_BYTES = 64 << 20
_PATIENCE_SECONDS = 0.05


class Loop(Protocol):
    """What the lane needs of the stream's loop."""

    def ship_chunk(self, batch: Batch) -> tuple[int, int]:
        """Ship a batch behind all that was gathered; returns its last append's number, and its record's sequence."""

    def breathe(self) -> None:
        """Do what keeps sessions alive."""

    @property
    def captured_at(self) -> int:
        """Commit time of the newest transaction delivered, microseconds since 1970 UTC."""


class _Shipped(NamedTuple):
    number: int
    offer: Offer
    sequence: int


class CopyLane:
    """The loop's side of the desk; called by the loop's thread only."""

    def __init__(self, desk: CopyDesk, dsn: str, clock: Callable[[], float]) -> None:
        self._desk = desk
        self._dsn = dsn
        self._clock = clock
        self._unacknowledged: deque[_Shipped] = deque()
        self._unsure: deque[tuple[float, _Shipped]] = deque()

    @property
    def watching(self) -> bool:
        """Whether the desk wants to know what is delivered."""
        return self._desk.watching

    @property
    def busy(self) -> bool:
        """Whether the desk has anything to do."""
        return self._desk.busy

    def delivered(self, xid: int, messages: Sequence[bytes]) -> None:
        """See `CopyDesk.delivered`."""
        self._desk.delivered(xid, messages)

    def turn(self, loop: Loop, reached: Lsn) -> bool:
        """Between two transactions: place what is due; returns whether nothing may be received now."""
        desk = self._desk
        if not desk.busy:
            return False
        holding = desk.between_transactions()
        while (offer := desk.due(reached)) is not None:
            self._place(loop, offer, reached)
        return holding

    def careful(self, reached: Lsn) -> bool:
        """Whether to receive message by message: a place that must not be passed is near."""
        return self._desk.careful_until - reached < _NEAR_BYTES if self._desk.busy else False

    def before_ship(self, batch: Batch, oids_of: Callable[[Relation], Sequence[int]]) -> None:
        """Ask for the rows that only a chunk can bring, before the update that makes them necessary is in the stream.

        Args:
            batch: what is about to be shipped.
            oids_of: the oids of tables that the source describes like this; names may have changed since.

        Raises:
            TransientError: the source does not answer.
        """
        if not self._desk.unfinished:
            return
        moved = list(moved_in_part(batch, self._desk.unfinished, oids_of))
        if moved:
            with (
                passing("copies"),
                connect(self._dsn, application_name="embassy-copy", autocommit=True) as session,
            ):
                for oid, relation, key in moved:
                    self._ask_for(session, oid, relation, key)
            failpoint(failpoints.PRODUCER_AFTER_ROW_REQUESTED)

    @staticmethod
    def _ask_for(session: psycopg.Connection[object], oid: int, relation: Relation, key: list[str]) -> None:
        """Ask for a row under the name that its table has now. If its key was changed since, its copy begins anew."""
        while (table := copy_source.named(session, oid)) is not None and table.key:  # else gone, or copied whole
            now = table.relation
            positions = sorted(table.key)
            if [now.columns[i].type_oid for i in positions] != [
                relation.columns[i].type_oid for i in relation.key
            ]:
                return
            ordered = [key[positions.index(position)] for position in table.key]
            with suppress(psycopg.errors.UndefinedTable):  # it was renamed just now
                table_copies.request(session, now.schema, now.name, ordered, ordered, reason=table_copies.MOVED)
                return

    def acknowledged(self, number: int) -> None:
        """The cluster has everything up to this append."""
        while self._unacknowledged and self._unacknowledged[0].number <= number:
            shipped = self._unacknowledged.popleft()
            self._desk.tell(InTopic(Noted.ACKNOWLEDGED, shipped.offer, shipped.sequence))
            self._unsure.append((self._clock(), shipped))

    def confirmed(self, until: float) -> None:
        """What was acknowledged by then is there for good."""
        while self._unsure and self._unsure[0][0] <= until:
            _, shipped = self._unsure.popleft()
            self._desk.tell(InTopic(Noted.SURE, shipped.offer, shipped.sequence))

    def _place(self, loop: Loop, offer: Offer, reached: Lsn) -> None:
        missing = self._desk.missing_in(offer)
        if missing is None or (missing and offer.pieces is not None):
            offer.fates.put(Fate.RETRY)
            return
        if offer.pieces is not None:
            offer.fates.put(Fate.BEGUN)
            number, sequence = self._pieces(loop, offer, offer.pieces, reached)
        else:
            try:
                merged = merge(offer.chunk.copy_text, offer.chunk.key, missing)
            except IntegrityError:  # the table was altered in between
                offer.fates.put(Fate.RETRY)
                return
            if merged.incomplete & offer.single_rows:  # the very row that was asked for
                offer.fates.put(Fate.RETRY)
                return
            for gone in offer.gone:  # a row of an equal key, written otherwise, may follow in the chunk
                loop.ship_chunk(chunk_batch(offer.relation, gone, merge(b"", gone.key, missing)))
            number, sequence = loop.ship_chunk(chunk_batch(offer.relation, offer.chunk, merged))
            # The offer is kept until its chunk is in the topic for good, half a minute later: its rows need not be.
            offer.chunk = offer.chunk._replace(copy_text=b"")
        failpoint(failpoints.PRODUCER_AFTER_CHUNK_SHIPPED)
        self._unacknowledged.append(_Shipped(number, offer, sequence))
        offer.fates.put(Fate.SHIPPED)

    def _pieces(
        self, loop: Loop, offer: Offer, pieces: queue.Queue[bytes | None], reached: Lsn
    ) -> tuple[int, int]:
        """Ship a table piece by piece, as the parts of one transaction; the stream waits meanwhile."""
        part = 0
        transaction = Transaction(0, reached, ZERO, loop.captured_at, 0)
        held = self._next(loop, offer, pieces) or b""
        rows, size = held.count(b"\n"), len(held)
        while (piece := self._next(loop, offer, pieces) if held else None) is not None:
            loop.ship_chunk(piece_batch(offer, held, part, transaction, last=False))
            failpoint(failpoints.PRODUCER_BETWEEN_PIECES)
            part, held = part + 1, piece
            rows, size = rows + piece.count(b"\n"), size + len(piece)
        offer.note = offer.note._replace(rows=rows, bytes=size)
        offer.chunk = offer.chunk._replace(rows=rows)
        return loop.ship_chunk(piece_batch(offer, held, part, transaction._replace(end_lsn=reached), last=True))

    def _next(self, loop: Loop, offer: Offer, pieces: queue.Queue[bytes | None]) -> bytes | None:
        while True:
            try:
                return pieces.get(timeout=_PATIENCE_SECONDS)
            except queue.Empty:
                loop.breathe()
                if offer.failed.is_set():
                    raise TransientError(
                        "a table that is copied whole could not be read to its end", place=str(offer.relation)
                    ) from None
