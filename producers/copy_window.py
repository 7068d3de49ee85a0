"""What was delivered of a table while it is copied, and may be missing in the snapshot that a chunk was read with.

A commit is in the log before a new snapshot sees it: much before, if it waits for a synchronous standby. So neither
positions nor times tell whether a transaction is in a chunk; only the chunk's own snapshot does, asked for the
transaction's id. Each delivered transaction that changed the table is kept until a snapshot has been seen that sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from embassy.model.errors import IntegrityError

_WRAP, _HALF = 1 << 32, 1 << 31
_KEPT_BYTES_MOST = 32 << 20


class Snapshot(NamedTuple):
    """What ``pg_current_snapshot()`` says."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @staticmethod
    def parse(text: str) -> Snapshot:
        """Read ``xmin:xmax:xip,…``.

        Raises:
            IntegrityError: it is something else.
        """
        try:
            xmin, xmax, running = text.split(":")
            return Snapshot(int(xmin), int(xmax), frozenset(map(int, filter(None, running.split(",")))))
        except ValueError as error:
            raise IntegrityError(f"not a snapshot: {text!r}") from error

    def sees(self, xid: int) -> bool:
        """Whether a transaction that has committed is in it; ``xid`` has 32 bits, as the log has it."""
        distance = (xid - self.xmax) % _WRAP
        if distance < _HALF:
            return False
        whole = self.xmax + distance - _WRAP
        return whole < self.xmin or whole not in self.running


class _Delivered(NamedTuple):
    xid: int
    messages: Sequence[bytes] | None
    """Its changes of the table, in order; None: too many to keep, or no changes of rows."""


class CopyWindow:
    """One table's."""

    def __init__(self, *, kept_bytes_most: int = _KEPT_BYTES_MOST) -> None:
        self._kept: list[_Delivered] = []
        self._bytes = 0
        self._bytes_most = kept_bytes_most

    def delivered(self, xid: int, messages: Sequence[bytes]) -> None:
        """A transaction, or a part of it, was delivered; in commit order."""
        size = sum(map(len, messages))
        if self._bytes + size > self._bytes_most:
            self._kept.append(_Delivered(xid, None))
        else:
            self._bytes += size
            self._kept.append(_Delivered(xid, messages))

    def altered(self, xid: int) -> None:
        """A transaction that executed DDL was delivered: what was read before it is of another shape, or table."""
        self._kept.append(_Delivered(xid, None))

    def forget_seen(self, snapshot: Snapshot) -> None:
        """Let go of what a snapshot sees: every later one sees it too."""
        self._kept = [kept for kept in self._kept if not snapshot.sees(kept.xid)]
        self._bytes = sum(len(message) for kept in self._kept for message in kept.messages or ())

    def missing_in(self, snapshot: Snapshot, unproven: Iterable[int]) -> list[bytes] | None:
        """The changes that were delivered and that a chunk lacks, in order; None if they are not known.

        Args:
            snapshot: the chunk's.
            unproven: transactions that had written to the table and were not over when the window was opened; what
                was delivered before then is not in it.
        """
        self.forget_seen(snapshot)
        known = {kept.xid for kept in self._kept}
        if any(xid not in known and not snapshot.sees(xid) for xid in unproven):
            return None
        found: list[bytes] = []
        for kept in self._kept:
            if kept.messages is None:
                return None
            found += kept.messages
        return found
