"""Rows of one table that transactions have touched which a snapshot at home may not have seen. Pure.

A chunk is read at home in a snapshot, and compared here later in the stream. What the snapshot saw has come by then,
because it had committed before the chunk was written into the stream. What has come and is not in the snapshot was
committed in between, or was committed before and not yet visible (a commit record is in the log before a new snapshot
sees its rows; long before, if the commit waits for a standby). The rows that such transactions touched cannot be judged
by that snapshot; all others can, exactly.

The record begins with the table's begin. What committed before that and was still invisible then is known to home, by
the locks that it still holds, and comes as *doubtful*.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from embassy.model.verification import Key
from embassy.model.visibility import Visibility

_ROWS_MOST = 300_000


class InFlight(NamedTuple):
    """The rows that a snapshot cannot judge."""

    everything: str
    """Why that may be any row of the table; empty if it is the keys only."""
    keys: frozenset[Key]


class TouchedRows:
    """What has been touched since a table began, and was not yet in a snapshot of home's."""

    def __init__(self, rows_most: int = _ROWS_MOST) -> None:
        self._keys: dict[int, set[Key]] = {}
        self._everything: dict[int, str] = {}
        self._rows = 0
        self._rows_most = rows_most
        self._lost = False

    def touch(self, xid: int, keys: Iterable[Key]) -> None:
        """A transaction of the stream has touched rows; old keys and new ones."""
        found = self._keys.setdefault(xid, set())
        before = len(found)
        found.update(keys)
        self._rows += len(found) - before
        if self._rows > self._rows_most:
            self._lost = True  # of a run that has ended without a word, say
            self._keys.clear()
            self._rows = 0

    def touch_everything(self, xid: int, reason: str) -> None:
        """A transaction has touched what may be any row."""
        self._keys.setdefault(xid, set())
        self._everything[xid] = reason

    def in_flight(self, snapshot: Visibility, doubtful: Iterable[int]) -> InFlight:
        """What a snapshot cannot judge."""
        if self._lost:
            return InFlight("more rows were changed at home than are kept in mind", frozenset())
        for xid in doubtful:
            if xid not in self._keys and not snapshot.sees(xid):
                return InFlight("a transaction from before the verification is still open", frozenset())
        unseen = [xid for xid in self._keys if not snapshot.sees(xid)]
        everything = next((self._everything[xid] for xid in unseen if xid in self._everything), "")
        return InFlight(everything, frozenset().union(*(self._keys[xid] for xid in unseen)))

    def forget(self, snapshot: Visibility) -> None:
        """Forget what this snapshot, and so each later one, has seen."""
        for xid in [xid for xid in self._keys if snapshot.sees(xid)]:
            self._rows -= len(self._keys.pop(xid))
            self._everything.pop(xid, None)
