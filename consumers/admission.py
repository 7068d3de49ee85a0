"""Whether someone must look at a transaction, or a copy, before the replica takes it. Pure: batches in, a verdict out.

An attacker who has taken home can sign valid destruction, and so can a mistake. What exceeds a stream's thresholds is not
applied; the stream freezes before it, and two persons may let exactly this transaction pass.

What it costs is paid per batch. Counts of whole segments tell whether any of the batch's transactions can exceed a
threshold at all; only where one can, the batch is walked transaction by transaction. The parts of a large transaction are
counted together.

Rows that are copied are judged chunk by chunk, by what the replica's table loses: the rows that the chunk's range holds
there, less those that the chunk brings. A chunk of the whole table that brings none truncates it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from embassy.model.batch import Batch, Chunk, Operation, Segment, Transaction
from embassy.model.control import Suspect
from embassy.model.relation import Relation
from embassy.runtime.config import Protection

_OWN = "embassy"
_TEXTS = frozenset([25, 1042, 1043])
"""Types that a collation sorts: text, char(n), varchar."""

Holds = Callable[[Relation, int], bool]
"""Whether the replica's table holds at least so many rows, with all that was applied before the batch."""

Loses = Callable[[Batch], int]
"""How many rows the replica's table holds that a chunk's range would take out, before any of its own come."""


class Violation(NamedTuple):
    """A transaction, or a chunk of a copy, that exceeds a threshold."""

    number: int
    """Which of the batch's transactions, from 0; 0 for a chunk."""
    suspect: Suspect
    reason: str
    """Table, counts and threshold."""


class _Counts(NamedTuple):
    """Rows by table."""

    deleted: Counter[Relation]
    updated: Counter[Relation]
    inserted: Counter[Relation]
    truncated: Counter[Relation]

    @classmethod
    def none(cls) -> _Counts:
        return cls(Counter(), Counter(), Counter(), Counter())

    @classmethod
    def of(cls, batch: Batch, rows: Iterable[tuple[Segment, int]]) -> _Counts:
        counts = cls.none()
        kinds: Mapping[Operation, Counter[Relation]] = {
            Operation.DELETE: counts.deleted,
            Operation.UPDATE: counts.updated,
            Operation.INSERT: counts.inserted,
        }
        for segment, number in rows:
            if segment.operation is Operation.TRUNCATE:
                counts.truncated.update(batch.relations[index] for index in segment.truncated)
            else:
                kinds[segment.operation][batch.relations[segment.relation]] += number
        return counts

    def add(self, others: _Counts) -> None:
        for mine, other in zip(self, others, strict=True):
            mine.update(other)

    def changed(self, relation: Relation) -> int:
        return self.deleted[relation] + self.updated[relation]

    def grown(self, relation: Relation) -> int:
        return self.inserted[relation] - self.deleted[relation]


class Admission:
    """Judges one stream's batches, each once and in order."""

    def __init__(
        self, protection: Protection, holds: Holds, loses: Loses, admitted: Suspect | None = None
    ) -> None:
        """Begin behind a whole transaction.

        Args:
            protection: the thresholds.
            holds: asks the replica, where a share of a table is to be judged.
            loses: asks the replica, where a chunk of a copy is to be judged.
            admitted: what passes whatever it does.
        """
        self._protection = protection
        self._holds = holds
        self._loses = loses
        self._admitted = admitted
        self._before = _Counts.none()
        self._range = self._brought = 0
        self._whole = False

    def forget(self) -> None:
        """The parts that came so far were rolled back: the transaction comes again."""
        self._before = _Counts.none()

    def judge(self, batch: Batch, first: int = 0, record: bytes = b"") -> Violation | None:
        """The first of a batch's transactions that must not be applied; those before ``first`` are already.

        Or the batch's chunk, which ``record`` stands for: the hash of its last record.
        """
        if batch.chunk is not None:
            return self._judge_copy(batch, batch.chunk, Suspect.copied(record))
        if not batch.transactions or not self._protection.any or first >= len(batch.transactions):
            return None
        whole = _Counts.of(batch, ((segment, segment.rows) for segment in batch.segments))
        before = self._before
        if batch.part == 0:
            before = self._before = _Counts.none()
        if len(batch.transactions) == 1:
            self._before = _Counts.none()
            self._before.add(before)
            self._before.add(whole)
            counts = self._before
            reason = self._complaint(counts, whole, before)
            return self._violation(batch, 0, reason)
        if not self._possible(whole):
            return None
        return self._walk(batch, first)

    def _judge_copy(self, batch: Batch, chunk: Chunk, copied: Suspect) -> Violation | None:
        """A chunk; one that comes in parts by the last of them, for the first takes out what the others bring again."""
        limits, relation = self._protection, batch.relations[chunk.relation]
        most, share = limits.max_deletes_per_transaction, limits.max_changed_share
        if relation.schema == _OWN:
            return None
        if batch.part == 0:
            self._whole = limits.truncate == "freeze" and chunk.is_whole_table
            judged = chunk.by_range and (self._whole or most is not None or share is not None)
            self._range = self._loses(batch) if judged else 0
            self._brought = 0
        self._brought += chunk.rows
        lost = self._range - self._brought
        if not batch.complete or lost <= 0 or copied == self._admitted:
            return None
        if self._whole and not self._brought:
            return Violation(0, copied, f"the copy empties {relation} of its {lost} rows, as if it truncated it")
        words = f"the copy takes {lost} rows out of {relation} and brings none for them"
        if (
            chunk.is_whole_table
            and chunk.rows
            and any(relation.columns[at].type_oid in _TEXTS for at in chunk.key)
        ):
            words += (
                " (where a key is text, a copy empties the table first, and the chunks behind this one fill it)"
            )
        if most is not None and lost > most:
            return Violation(0, copied, f"{words}, and max_deletes_per_transaction is {most}")
        if share is not None and lost >= limits.share_from_rows:
            least = math.ceil(lost / share)
            held = self._range >= least if batch.part else self._holds(relation, least)
            if not held:
                return Violation(0, copied, f"{words}, over {share:.0%} of the table: max_changed_share")
        return None

    def _walk(self, batch: Batch, first: int) -> Violation | None:
        order = batch.in_order()
        start, earlier = 0, _Counts.none()
        for index, transaction in enumerate(batch.transactions):
            numbers = Counter(order[start : start + transaction.changes])
            start += transaction.changes
            counts = _Counts.of(batch, ((batch.segments[number], rows) for number, rows in numbers.items()))
            if index >= first:
                found = self._violation(batch, index, self._complaint(counts, counts, earlier, applied=False))
                if found is not None:
                    return found
                earlier.add(counts)
        return None

    def _violation(self, batch: Batch, index: int, reason: str) -> Violation | None:
        transaction: Transaction = batch.transactions[index]
        if not reason or (self._admitted is not None and self._admitted.is_(transaction)):
            return None
        return Violation(index, Suspect(transaction.xid, transaction.commit_lsn), reason)

    def _possible(self, counts: _Counts) -> bool:
        """Whether any transaction of a batch may exceed a threshold, all being counted as one."""
        limits = self._protection
        if limits.truncate == "freeze" and counts.truncated:
            return True
        if limits.ddl == "freeze" and any(relation.is_ddl for relation in counts.inserted):
            return True
        most = limits.max_deletes_per_transaction
        if most is not None and _total(counts.deleted) > most:
            return True
        return limits.max_changed_share is not None and any(
            counts.changed(relation) >= limits.share_from_rows for relation in _tables(counts)
        )

    def _complaint(self, counts: _Counts, fresh: _Counts, others: _Counts, *, applied: bool = True) -> str:
        """What one transaction exceeds, in words.

        Args:
            counts: of the whole transaction, as far as it has come.
            fresh: of what was not judged before.
            others: of what came before it in this transaction, which is applied, or in this batch, which is not.
            applied: which of the two.
        """
        limits = self._protection
        if limits.truncate == "freeze" and any(relation.schema != _OWN for relation in fresh.truncated):
            return f"it truncates {_named(fresh.truncated)}"
        if limits.ddl == "freeze" and any(relation.is_ddl for relation in fresh.inserted):
            return "it changes the schema (DDL)"
        most = limits.max_deletes_per_transaction
        if most is not None and _total(counts.deleted) > most:
            so_far = f"it deletes {_total(counts.deleted)} rows or more"
            return f"{so_far} ({_named(counts.deleted)}), and max_deletes_per_transaction is {most}"
        share = limits.max_changed_share
        if share is not None:
            for relation in _tables(fresh):
                changed = counts.changed(relation)
                if changed < limits.share_from_rows:
                    continue
                grown = -others.grown(relation) if applied else others.grown(relation)
                if not self._holds(relation, math.ceil(changed / share) - grown):
                    return (
                        f"it changes or deletes {changed} rows of {relation} or more, over {share:.0%} of the table: "
                        "max_changed_share"
                    )
        return ""


def _tables(counts: _Counts) -> list[Relation]:
    return [relation for relation in {**counts.deleted, **counts.updated} if relation.schema != _OWN]


def _total(counter: Counter[Relation]) -> int:
    return sum(rows for relation, rows in counter.items() if relation.schema != _OWN)


def _named(counter: Counter[Relation], most: int = 5) -> str:
    found = [(relation, rows) for relation, rows in counter.most_common() if relation.schema != _OWN]
    rest = len(found) - most
    named = ", ".join(str(relation) if rows == 1 else f"{relation}: {rows}" for relation, rows in found[:most])
    return named + (f" and {rest} more tables" if rest > 0 else "")
