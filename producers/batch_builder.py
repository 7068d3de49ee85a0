"""Batches from pgoutput messages, given a transaction at a time.

`embassy.model.batch` says what a batch looks like, and in what order it may be applied.

Most messages are recognised by their first bytes and cut by one `bytes.split`; see
`producers.pgoutput_decoder.SHORT_VALUE`. The others are decoded value by value, and give the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from embassy.model.batch import Batch, Transaction
from embassy.model.errors import IntegrityError
from embassy.model.lsn import ZERO
from embassy.model.own_tables import HEARTBEAT, HOUSEKEEPING, VERIFY_MESSAGES
from embassy.model.relation import Relation
from producers import pgoutput_decoder as pgoutput
from producers.last_of_batch import LastOfBatch
from producers.open_batch import OpenBatch
from producers.open_segment import OpenTruncate
from producers.pgoutput_decoder import SHORT_VALUE, SPLITTABLE_BYTES, Begin, Commit, TypeName
from producers.table_changes import TableChanges, TakePieces

PART_MESSAGES = 32_768
"""The most messages that may be added at once. A batch is full at as many changes, and has no more segments than
changes: so 16 bits are enough to number them."""


class Relations:
    """The tables and types that the source has described in this session."""

    def __init__(self, batch: OpenBatch) -> None:
        self._batch = batch
        self._types: dict[int, TypeName] = {}
        self._tables: dict[bytes, TableChanges] = {}
        self._oids: dict[Relation, list[int]] = {}
        self.takers: dict[bytes, TakePieces] = {}
        """What takes a message that is split at its short values, by the first piece."""
        self.ddl: set[bytes] = set()
        """The oids of tables whose rows are statements."""
        self.housekeeping: set[bytes] = set()
        """The oids of the tables that are written because time passes, as far as they are described."""
        self.heart = b""
        """The oid of the one that the heart writes."""

    def take(self, message: bytes) -> None:
        """Note what a Relation or a Type message says.

        Raises:
            IntegrityError: it is malformed.
        """
        if message[0] == pgoutput.TYPE:
            name = pgoutput.decode_type(message)
            self._types[name.oid] = name
            return
        number, relation = pgoutput.decode_relation(message, self._types)
        oid = number.to_bytes(4, "big")
        before = self._tables.get(oid)
        if before is not None:
            if before.relation == relation:
                return
            for header in before.takers(oid):
                self.takers.pop(header, None)
        # Rows cannot be told apart by their keys across a change of the table, or of which table has its name.
        self._batch.barrier()
        self.housekeeping.discard(oid)
        if (relation.schema, relation.name) in HOUSEKEEPING:
            self.housekeeping.add(oid)
        if (relation.schema, relation.name) == HEARTBEAT:
            self.heart = oid
        kind = LastOfBatch if (relation.schema, relation.name) == VERIFY_MESSAGES else TableChanges
        table = self._tables[oid] = kind(relation, self._batch)
        self._oids.setdefault(relation, []).append(number)
        self.ddl.discard(oid)
        if relation.is_ddl:
            self.ddl.add(oid)
        else:
            self.takers |= table.takers(oid)

    def oids_of(self, relation: Relation) -> Sequence[int]:
        """The oids of the tables that were ever described like this; several, if one has taken another's name."""
        return self._oids.get(relation, ())

    def __getitem__(self, oid: bytes) -> TableChanges:
        """The table of an oid, in pgoutput's form.

        Raises:
            IntegrityError: it was never described.
        """
        table = self._tables.get(oid)
        if table is None:
            raise IntegrityError(
                f"pgoutput sent a change of relation {int.from_bytes(oid, 'big')} without describing it",
                hint="restart the producer: the source describes each table anew to a new session",
            )
        return table


class BatchBuilder:
    """Gathers transactions, or a part of one, and makes batches of them."""

    def __init__(self) -> None:
        self._batch = OpenBatch()
        self.relations = Relations(self._batch)
        self.transactions: list[Transaction] = []
        """The whole transactions gathered."""
        self.value_bytes = 0
        """Size of the messages gathered."""
        self._has_ddl = False

    @property
    def full(self) -> bool:
        """Whether the batch must be built before more is added.

        DDL ends a batch with its transaction, which the replica then commits: a new value of an enum can be used only
        after that, and locks are held no longer than at the source.
        """
        return self._has_ddl or self._batch.ends or len(self._batch.order) >= PART_MESSAGES

    def add_transaction(self, begin: Begin, commit: Commit, messages: Sequence[bytes]) -> None:
        """Add a whole transaction; at most `PART_MESSAGES` messages.

        Raises:
            IntegrityError: a message is malformed or of an unknown kind.
        """
        before = len(self._batch.order)
        self._add(messages)
        self.transactions.append(_transaction(begin, commit, len(self._batch.order) - before))

    def build_whole(self) -> Batch:
        """Make a batch of the whole transactions gathered."""
        batch = self._batch.take(tuple(self.transactions), 0, complete=True)
        self.transactions = []
        self.value_bytes = 0
        self._has_ddl = False
        return batch

    def add_part(self, begin: Begin, messages: Sequence[bytes]) -> None:
        """Add some of a large transaction's messages, at most `PART_MESSAGES`, while nothing else is gathered.

        Raises:
            IntegrityError: a message is malformed or of an unknown kind.
        """
        assert not self.transactions, f"parts of transaction {begin.xid} are not mixed with others"
        self._add(messages)

    def build_part(self, begin: Begin, part: int, commit: Commit | None) -> Batch:
        """Make a batch of a part; ``commit`` comes with the last one."""
        transaction = _transaction(begin, commit, len(self._batch.order))
        batch = self._batch.take((transaction,), part, complete=commit is not None)
        self.value_bytes = 0
        self._has_ddl = False
        return batch

    def _add(self, messages: Sequence[bytes]) -> None:
        assert len(messages) <= PART_MESSAGES, "more messages than a part may have"
        takers = self.relations.takers
        message = b""
        try:
            for message in messages:
                if len(message) < SPLITTABLE_BYTES:
                    pieces = message.split(SHORT_VALUE)
                    take = takers.get(pieces[0])
                    if take is not None:
                        take(pieces, message)
                        continue
                self._take(message)
        except IndexError as error:
            raise pgoutput.malformed(message, "it is cut short") from error
        self.value_bytes += sum(map(len, messages))

    def _take(self, message: bytes) -> None:
        kind = message[:1]
        if kind in (b"I", b"U", b"D"):
            if message[1:5] in self.relations.ddl:
                self._ddl(message)
            else:
                self.relations[message[1:5]].take(message)
        elif kind in (b"R", b"Y"):
            self.relations.take(message)
        elif kind == b"T":
            self._truncate(message)
        elif kind not in (b"M", b"O"):  # a logical message may be anyone's, and an origin orders nothing
            raise pgoutput.unknown(message)

    def _ddl(self, message: bytes) -> None:
        """Take a statement, or what becomes of its row: alone in its waves, between all before it and all after it."""
        self._has_ddl = True
        self._batch.barrier()
        self.relations[message[1:5]].take(message)
        self._batch.barrier()

    def _truncate(self, message: bytes) -> None:
        truncate = pgoutput.decode_truncate(message)
        tables = [self.relations[oid.to_bytes(4, "big")].index for oid in truncate.oids]
        wave = self._batch.highest_wave + 1
        segment = self._batch.opened(OpenTruncate(tuple(tables), truncate.options, wave))
        self._batch.barrier()
        self._batch.order.append(segment)


def _transaction(begin: Begin, commit: Commit | None, changes: int) -> Transaction:
    if commit is None:
        return Transaction(begin.xid, begin.final_lsn, ZERO, begin.committed_at, changes)
    if commit.commit_lsn != begin.final_lsn:
        raise IntegrityError(
            f"transaction {begin.xid} was to commit at {begin.final_lsn} and committed at {commit.commit_lsn}"
        )
    return Transaction(begin.xid, commit.commit_lsn, commit.end_lsn, commit.committed_at, changes)
