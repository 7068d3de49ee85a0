"""Between a stream's loop and the threads that read tables: chunks one way, their fate the other.

The loop owns the stream's order, and so the windows and the decision where a chunk stands; the readers own their
sessions. They meet here and nowhere else. A reader waits for its chunk's fate; the loop never waits for a reader, but
for the pieces of a table that can only be copied whole.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from embassy.model.batch import Chunk
from embassy.model.errors import EmbassyError, TransientError
from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.model.relation import Relation
from embassy.pg.table_copies import CopyNote
from producers.chunk_rows import Key
from producers.copy_window import CopyWindow, Snapshot

_TRUNCATE = b"T"[0]
_INSERT = b"I"[0]
_ROW_KINDS = b"IUD"
_POLL_SECONDS = 0.5
_SOON_SECONDS = 0.02
_PASSED_SECONDS = 1.0
PIECES_AHEAD = 2
_FAR = Lsn((1 << 64) - 1)


Unfinished = Mapping[int, frozenset[tuple[str, ...]] | None]
"""By the table's oid the keys, each sorted, of rows that are still to be copied; None: any of its rows may be."""


class Fate(Enum):
    """What became of a chunk."""

    SHIPPED = "it is in the stream"
    RETRY = "it must be read again"
    BEGUN = "its place is here: pieces, please"


@dataclass
class Offer:
    """A chunk that was read, or a table that is ready to be read whole."""

    copies: tuple[int, ...]
    single_rows: frozenset[Key]
    """If they are of rows by their keys, these keys."""
    oid: int
    relation: Relation
    snapshot: Snapshot
    log_end: Lsn
    """The stream must have passed it: whatever the snapshot sees was committed before."""
    unproven: frozenset[int]
    """See `CopyWindow.missing_in`."""
    chunk: Chunk
    """As it was read; of a table that is read whole, without rows."""
    note: CopyNote
    """What is to be noted once it is in the topic."""
    gone: tuple[Chunk, ...] = ()
    """Ahead of the chunk: one, without rows, for each key that was asked for and that has no row."""
    pieces: queue.Queue[bytes | None] | None = None
    """Of a table that is read whole: blocks of COPY text, None at the end."""
    fates: queue.Queue[Fate] = field(default_factory=queue.Queue)
    noted: threading.Event = field(default_factory=threading.Event)
    """It is written down: whoever comes next goes on behind it."""
    failed: threading.Event = field(default_factory=threading.Event)
    """No more pieces will come."""


class Noted(Enum):
    """How certain it is that a chunk is in the topic."""

    ACKNOWLEDGED = "acknowledged"
    SURE = "for good"


class InTopic(NamedTuple):
    """A chunk is in the topic."""

    how: Noted
    offer: Offer
    sequence: int
    """Of its last record."""


class Renewed(NamedTuple):
    """The producer has begun a new incarnation."""

    before: Head
    after: Head


class CopyDesk:
    """One stream's."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """``wake`` lets the loop turn, for it to see what the readers have put here."""
        self._wake = wake
        self.unfinished: Unfinished = {}
        """Tables with copies that are not done; replaced whole by the readers."""
        self.notes: queue.SimpleQueue[InTopic | Renewed | None] = queue.SimpleQueue()
        """What was told, for the clerk to take."""
        self.summon: Callable[[], None] = lambda: None
        """Called when something was told, for the clerk to come if it is not there; by any thread."""
        self.ddl_oid = b""
        """Of the table whose rows are statements, as pgoutput writes it; empty if DDL is not in the stream."""
        self.failure: EmbassyError | None = None
        self.commits = 0
        """How often something that travels in the stream was committed for a copy."""
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._opening: list[tuple[bytes, threading.Event]] = []
        self._closing: list[bytes] = []
        self._offers: list[Offer] = []
        self._held = threading.Event()
        self._holders = 0
        # the loop's own
        self._windows: dict[bytes, CopyWindow] = {}

    def close(self) -> None:
        """The loop has ended: let the readers go."""
        self._closed.set()

    def fail(self, error: EmbassyError) -> None:
        """End the loop with an error, between two transactions; by any thread."""
        self.failure = error
        self._wake()

    # ------------------------------------------------------------------ the readers' side

    def open_window(self, oid: int) -> None:
        """From when this returns, what is delivered of a table is remembered.

        Raises:
            TransientError: the loop has ended.
        """
        opened = threading.Event()
        with self._lock:
            self._opening.append((oid.to_bytes(4, "big"), opened))
        self._wake()
        self.until(opened.wait)

    def close_window(self, oid: int) -> None:
        """Let go of a table."""
        with self._lock:
            self._closing.append(oid.to_bytes(4, "big"))

    def hold(self) -> None:
        """Stop the loop between two messages, until `release` or an offer of a whole table; it is brief.

        Raises:
            TransientError: the loop has ended.
        """
        with self._lock:
            self._holders += 1
            self._held.clear()
        self._wake()
        try:
            self.until(self._held.wait)
        except TransientError:
            self.release()
            raise

    def release(self) -> None:
        """Let the loop go on."""
        with self._lock:
            self._holders -= 1
        self._wake()

    def put(self, offer: Offer) -> None:
        """Hand a chunk in."""
        with self._lock:
            self._offers.append(offer)
        self._wake()

    def fate(self, offer: Offer, hasten: Callable[[], object] = lambda: None, *, commits_before: int = 0) -> Fate:
        """Wait for what becomes of an offer.

        Args:
            offer: a chunk that was handed in.
            hasten: commits something, for the stream to come past the chunk's place; called if nothing else seems to.
            commits_before: `commits` when the chunk's snapshot was there. If there were more since, each brings the
                stream past it, and `hasten` is called only if that takes strangely long.

        Raises:
            TransientError: the loop has ended.
        """
        found: list[Fate] = []

        def taken(timeout: float) -> bool:
            try:
                found.append(offer.fates.get(timeout=timeout))
            except queue.Empty:
                return False
            return True

        if not taken(_SOON_SECONDS if self.commits == commits_before else _PASSED_SECONDS):
            hasten()
            self.until(taken)
        return found[0]

    def until(self, reached: Callable[[float], bool]) -> None:
        """Wait for something, with patience for so many seconds at a time.

        Raises:
            TransientError: the loop has ended.
        """
        while not reached(_POLL_SECONDS):
            if self._closed.is_set():
                raise TransientError("the stream's loop has ended", place="copy")

    @property
    def closed(self) -> bool:
        """Whether the loop has ended."""
        return self._closed.is_set()

    def tell(self, note: InTopic | Renewed | None) -> None:
        """Have the clerk write down what the topic has; None: have it look whether a copy is wanted."""
        self.notes.put(note)
        self.summon()

    # ------------------------------------------------------------------ the loop's side

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._opening or self._closing or self._offers or self._holders or self.failure)

    @property
    def watching(self) -> bool:
        """Whether `delivered` wants to know."""
        return bool(self._windows)

    @property
    def careful_until(self) -> Lsn:
        """The place where the loop must stop exactly, for a table is to be copied whole; far away if there is none."""
        with self._lock:
            return min((offer.log_end for offer in self._offers if offer.pieces is not None), default=_FAR)

    def delivered(self, xid: int, messages: Sequence[bytes]) -> None:
        """Note what a transaction, or a part of it, has done to the tables that are copied; in commit order."""
        altered = bool(self.ddl_oid) and any(
            message[0] == _INSERT and message[1:5] == self.ddl_oid for message in messages
        )
        for oid, window in self._windows.items():
            if altered:
                window.altered(xid)
            mine = [message for message in messages if _concerns(message, oid)]
            if mine:
                window.delivered(xid, mine)

    def between_transactions(self) -> bool:
        """Open and close windows; returns whether the loop must not receive now.

        Raises:
            EmbassyError: the readers have failed in a way that ends the stream's run.
        """
        if self.failure is not None:
            raise self.failure
        with self._lock:
            opening, self._opening = self._opening, []
            closing, self._closing = self._closing, []
            holding = self._holders > 0
        for oid in closing:
            self._windows.pop(oid, None)
        for oid, opened in opening:
            self._windows[oid] = CopyWindow()
            opened.set()
        if holding:
            self._held.set()
        return holding

    def due(self, reached: Lsn) -> Offer | None:
        """A chunk whose place is here: everything before ``reached`` has been delivered, and nothing behind it."""
        with self._lock:
            for offer in self._offers:
                if offer.log_end <= reached:
                    self._offers.remove(offer)
                    return offer
        return None

    def missing_in(self, offer: Offer) -> list[bytes] | None:
        """What was delivered and the chunk lacks; None if it must be read again."""
        window = self._windows.get(offer.oid.to_bytes(4, "big"))
        return None if window is None else window.missing_in(offer.snapshot, offer.unproven)


def _concerns(message: bytes, oid: bytes) -> bool:
    if message[0] in _ROW_KINDS:
        return message[1:5] == oid
    return message[0] == _TRUNCATE and oid in [message[at : at + 4] for at in range(6, len(message), 4)]
