"""Home's rows beside the replica's: what differs, what cannot be judged yet. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from consumers.touched_rows import InFlight
from embassy.model.verification import Key


class Difference(Enum):
    """What is wrong with a row of the replica."""

    MISMATCHED = "mismatched"
    """Its values are others than at home."""
    MISSING = "missing"
    EXTRA = "extra"
    """Home has no such row."""


def differences(home: Mapping[Key, bytes], replica: Mapping[Key, bytes]) -> dict[Key, Difference]:
    """What differs, by key; a row that is not there has no entry, or an empty digest."""
    found = {}
    for key in home.keys() | replica.keys():
        ours, theirs = replica.get(key, b""), home.get(key, b"")
        if ours != theirs:
            found[key] = (
                Difference.MISMATCHED if ours and theirs else Difference.EXTRA if ours else Difference.MISSING
            )
    return found


def bag_differences(home: Iterable[bytes], replica: Iterable[bytes]) -> dict[Key, Difference]:
    """The same of rows without keys, which are told apart by their digests; equal rows may stand several times."""
    theirs, ours = Counter(home), Counter(replica)
    return {
        (digest.hex(),): Difference.EXTRA if ours[digest] > theirs[digest] else Difference.MISSING
        for digest in theirs.keys() | ours.keys()
        if ours[digest] != theirs[digest]
    }


FOUND_MOST = 10_000
"""How many differing rows of a table are kept by key; the others are only counted."""


@dataclass
class ChunkTally:
    """What is known of one chunk's rows."""

    rows: int
    undecided: str | None = "it has not been compared"
    """Why none of its rows has been judged; None: each has been but the pending ones."""
    pending: set[Key] = field(default_factory=set)
    """Rows that could not be judged yet."""


@dataclass
class TableTally:
    """What a verification has found of one table."""

    found: dict[Key, Difference] = field(default_factory=dict)
    chunks: dict[int, ChunkTally] = field(default_factory=dict)
    _counts: Counter[Difference] = field(default_factory=Counter)

    def told(
        self,
        number: int,
        rows: int,
        differing: Mapping[Key, Difference],
        in_flight: InFlight,
        present: Iterable[Key],
        *,
        listed: bool = False,
    ) -> None:
        """Take what the comparison of a chunk has shown.

        Args:
            number: of the chunk.
            rows: how many home has in it.
            differing: what differs, whether it can be judged or not.
            in_flight: what cannot be judged.
            present: the rows that were compared: those that at least one side has, or those that were listed.
            listed: whether only some rows of the chunk were compared, once more.
        """
        chunk = self.chunks.setdefault(number, ChunkTally(rows))
        if in_flight.everything:
            if chunk.undecided is not None:
                chunk.undecided = in_flight.everything
            return
        for key, what in differing.items():
            if key not in in_flight.keys and key not in self.found:
                self._counts[what] += 1
                if len(self.found) < FOUND_MOST:
                    self.found[key] = what
        if listed:
            chunk.pending -= set(present) - in_flight.keys
        elif chunk.undecided is None:
            chunk.pending &= in_flight.keys
        else:
            chunk.undecided = None
            chunk.pending = set(in_flight.keys.intersection(present))

    @property
    def rows(self) -> int:
        """How many rows home had."""
        return sum(chunk.rows for chunk in self.chunks.values())

    def count(self, what: Difference) -> int:
        """How many rows differ in this way."""
        return self._counts[what]

    @property
    def pending(self) -> int:
        """How many rows could not be judged."""
        return sum(
            len(chunk.pending) if chunk.undecided is None else max(1, chunk.rows) for chunk in self.chunks.values()
        )

    @property
    def undecided(self) -> str:
        """Why chunks as a whole could not be judged; empty if all could."""
        return next((chunk.undecided for chunk in self.chunks.values() if chunk.undecided), "")
