"""What operators, or a threshold, have said about applying a stream: frozen, up to a point, from within a batch.

One row in each replica. Its version counts every change; the consumer commits only under the version that it has read, so
what was said holds from the next commit on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from embassy.model.batch import Transaction
from embassy.model.lsn import ZERO, Lsn
from embassy.model.wording import iso


class Point(NamedTuple):
    """Where applying ends: the transactions before the first one that lies behind it are applied, and no other."""

    lsn: Lsn | None = None
    """A commit at it is still applied."""
    time: int | None = None
    """Microseconds since 1970 UTC, by the source's clock; a commit at it is still applied."""

    def excludes(self, transaction: Transaction) -> bool:
        """Whether a transaction lies behind it."""
        if self.lsn is not None and transaction.commit_lsn > self.lsn:
            return True
        return self.time is not None and transaction.committed_at > self.time

    def __str__(self) -> str:
        return " and ".join(
            part
            for part in (
                f"LSN {self.lsn}" if self.lsn is not None else "",
                iso(self.time / 1_000_000) if self.time is not None else "",
            )
            if part
        )


class Cut(NamedTuple):
    """Where within a batch applying has stopped."""

    head: bytes
    """The hash of the record before the batch: the progress row names it too."""
    transactions: int
    """How many of the batch's transactions are in the replica."""
    lsn: Lsn
    """Commit of the last of them."""


class Suspect(NamedTuple):
    """What a threshold froze the stream for: a transaction, or rows that are copied."""

    xid: int
    lsn: Lsn
    """Start of its commit record."""
    record: bytes = b""
    """Rows that are copied: the hash of the record that brings the last of them; the other two are 0 then."""

    @classmethod
    def copied(cls, record: bytes) -> Suspect:
        """Rows that are copied, by the hash of the record that brings the last of them."""
        return cls(0, ZERO, record)

    def is_(self, transaction: Transaction) -> bool:
        """Whether it is this one."""
        return not self.record and (transaction.xid, transaction.commit_lsn) == (self.xid, self.lsn)

    def __str__(self) -> str:
        if self.record:
            return f"rows that are copied, in record {self.record.hex()}"
        return f"transaction {self.xid}, committed at {self.lsn}"


class Freeze(NamedTuple):
    """Why nothing is applied."""

    number: int
    """Which freeze of this stream in this replica it is, from 1: for people."""
    id: str
    """Random, in hexadecimal groups: an approval to lift it is good for this one, here and nowhere else.
    Empty for one that a program of an earlier version made, until the replica is provisioned once more."""
    at: float
    """Seconds since 1970 UTC, by the replica's clock."""
    by: str
    """A person, or what in the product did it."""
    reason: str
    suspect: Suspect | None = None


class Control(NamedTuple):
    """A stream's row."""

    version: int = 0
    freeze: Freeze | None = None
    freezes: int = 0
    """How often the stream was frozen so far."""
    stop_at: Point | None = None
    """Applying freezes there."""
    at_once: bool = False
    """Up to that point, the apply delay does not hold."""
    admitted: Suspect | None = None
    """Two persons let this one pass."""
    lifted_by: str = ""
    """The nonce of the order that lifted the freeze before; empty if there was none."""
    cut: Cut | None = None

    def done(self, head: bytes, transactions: Sequence[Transaction]) -> int | None:
        """How many of the next batch's transactions are in the replica already; None if they contradict the cut.

        Args:
            head: the hash of the record before the batch.
            transactions: the batch's.
        """
        cut = self.cut
        if cut is None or cut.head != head:
            return 0
        if len(transactions) < cut.transactions or transactions[cut.transactions - 1].commit_lsn != cut.lsn:
            return None
        return cut.transactions
