"""What clients were told: the only witness against whom a replica is judged."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from uuid import UUID

_KEPT_FAILURES = 100


class Outcome(Enum):
    """What a client knows about one of its transactions."""

    PENDING = "pending"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    UNKNOWN = "unknown"
    """The connection was lost while COMMIT was under way."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on both clocks of this machine, in nanoseconds."""

    wall_ns: int
    monotonic_ns: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One transaction that was to write ``token`` into the journal."""

    token: UUID
    kind: str
    client: int
    sequence: int
    """Per client; only transactions that were, or may have been, committed use one up."""
    outcome: Outcome
    commit_issued: Moment | None = None
    """None if COMMIT was never sent."""
    commit_returned: Moment | None = None
    """When the outcome was learned."""
    first_seen: Moment | None = None
    """When an observer first read the token on the replica."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A reader of the replica saw a state that the source never had."""

    invariant: str
    evidence: str
    at: Moment


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a replica is behind what clients were told."""

    committed: int
    unseen: int
    """Committed transactions that no observer has read on the replica yet."""
    unseen_since: Moment | None
    """When the commit of the first of those was answered."""


class Ledger:
    """Collects the entries of a registry's clients and the sightings of its observers; safe for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[UUID, Entry] = {}
        self._first_sequence: dict[int, int] = {}
        self._by_sequence: dict[tuple[int, int], UUID] = {}
        self._committed = 0
        self._unseen: dict[UUID, None] = {}
        self._sightings: list[Sighting] = []
        self._failures: list[str] = []
        self._failed = 0

    def enter(self, token: UUID, kind: str, client: int, sequence: int, commit_issued: Moment) -> None:
        """Note that COMMIT is about to be sent; called before it is, so that nobody sees a token unknown here."""
        entry = Entry(token, kind, client, sequence, Outcome.PENDING, commit_issued)
        with self._lock:
            self._entries[token] = entry
            self._by_sequence[client, sequence] = token
            self._first_sequence.setdefault(client, sequence)

    def settle(self, token: UUID, outcome: Outcome, commit_returned: Moment) -> None:
        """Note what became of a COMMIT."""
        with self._lock:
            entry = replace(self._entries[token], outcome=outcome, commit_returned=commit_returned)
            self._entries[token] = entry
            if outcome is Outcome.COMMITTED:
                self._count_committed(entry)
            if outcome is Outcome.ROLLED_BACK:
                self._by_sequence.pop((entry.client, entry.sequence), None)

    def roll_back(self, token: UUID, kind: str, client: int, sequence: int) -> None:
        """Note a transaction, or a savepoint's part of one, that wrote ``token`` and never asked to commit it."""
        with self._lock:
            self._entries[token] = Entry(token, kind, client, sequence, Outcome.ROLLED_BACK)

    def resolve(self, present: Collection[UUID]) -> int:
        """Settle every unknown transaction by what the source holds; return how many there were.

        Args:
            present: of the tokens from ``unknown()``, those in the source's journal, read when no session of the
                clients was left.
        """
        with self._lock:
            unknown = [e for e in self._entries.values() if e.outcome is Outcome.UNKNOWN]
            for entry in unknown:
                committed = entry.token in present
                outcome = Outcome.COMMITTED if committed else Outcome.ROLLED_BACK
                self._entries[entry.token] = replace(entry, outcome=outcome)
                if committed:
                    self._count_committed(entry)
                else:
                    self._by_sequence.pop((entry.client, entry.sequence), None)
            return len(unknown)

    def unknown(self) -> list[UUID]:
        """Return the tokens whose COMMIT was never answered."""
        with self._lock:
            return [e.token for e in self._entries.values() if e.outcome is Outcome.UNKNOWN]

    def see(self, tokens: Iterable[UUID], at: Moment) -> None:
        """Note when tokens were first read on the replica; those of other runs are ignored."""
        with self._lock:
            for token in tokens:
                entry = self._entries.get(token)
                if entry is not None and entry.first_seen is None:
                    self._entries[token] = replace(entry, first_seen=at)
                    self._unseen.pop(token, None)

    def outcome_of(self, client: int, sequence: int) -> Outcome | None:
        """Return what is known of a client's transaction; None for one of another run or rolled back."""
        with self._lock:
            token = self._by_sequence.get((client, sequence))
            return None if token is None else self._entries[token].outcome

    def first_sequences(self) -> dict[int, int]:
        """Return the first sequence of each client that has tried to commit."""
        with self._lock:
            return self._first_sequence.copy()

    def unseen(self) -> int:
        """Return how many committed transactions no observer has read on the replica yet."""
        with self._lock:
            return len(self._unseen)

    def standing(self) -> Standing:
        """Return how far the replica is behind; cheap, however long the ledger."""
        with self._lock:
            oldest = next(iter(self._unseen), None)
            since = None if oldest is None else self._entries[oldest].commit_returned
            return Standing(self._committed, len(self._unseen), since)

    def report_torn(self, sighting: Sighting) -> None:
        """Note an impossible state on the replica."""
        with self._lock:
            self._sightings.append(sighting)

    def sightings(self) -> tuple[Sighting, ...]:
        """Return all impossible states seen so far."""
        with self._lock:
            return tuple(self._sightings)

    def report_failure(self, message: str) -> None:
        """Note an error that no crash or lock conflict explains; the first hundred are kept."""
        with self._lock:
            self._failed += 1
            if len(self._failures) < _KEPT_FAILURES:
                self._failures.append(message)

    def failures(self) -> tuple[str, ...]:
        """Return the unexplained errors of clients (the first hundred)."""
        with self._lock:
            return tuple(self._failures)

    @property
    def failed(self) -> int:
        """How many unexplained errors clients have met."""
        with self._lock:
            return self._failed

    def _count_committed(self, entry: Entry) -> None:
        self._committed += 1
        if entry.first_seen is None:
            self._unseen[entry.token] = None

    def entries(self) -> tuple[Entry, ...]:
        """Return every entry as it stands."""
        with self._lock:
            return tuple(self._entries.values())

    def counts(self) -> Counter[Outcome]:
        """Return how many transactions there are of each outcome."""
        with self._lock:
            return Counter(entry.outcome for entry in self._entries.values())
