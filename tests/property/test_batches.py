"""Random histories of a few tables: batches give the state that commit order gives, and hold the history itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers import batch_transactions
from consumers.inbox import BatchOpened
from embassy.model.batch import Batch, Operation
from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.relation import Column, Relation, ReplicaIdentity
from embassy.model.source_transaction import Change as SourceChange
from embassy.wire.batch_codec import BatchEncoder, decode_batch
from producers import slot_transactions
from producers.batch_builder import BatchBuilder
from producers.pgoutput_decoder import decode_begin, decode_commit
from tests.harness import pgoutput
from tests.harness.batch_replay import Change, Tables, exact_changes, segment_changes
from tests.harness.memory_log import GENESIS
from tests.harness.pgoutput import UNCHANGED

Value = bytes | None
Row = dict[str, Value]

_TEXTS = (
    b"",
    b"a",
    b"b",
    rb"\N",
    rb"\.",
    b"\\",
    b"t\tt",
    b"n\n",
    b"\r",
    b"nnu",
    b"t" * 116,
    "õ".encode(),
    b"x" * 300,
)
_LONG = b"y" * 70_000

_TABLES = {
    1: pgoutput.table("account", "id email doc note"),
    2: pgoutput.table("pair", "note a doc b", key=(1, 3)),
    3: pgoutput.table("log", "x y", identity=ReplicaIdentity.FULL),
    4: pgoutput.table("feed", "x y z", key=()),
    5: pgoutput.table("word", "w", identity=ReplicaIdentity.FULL),
}
_TOASTED = {"doc", "y"}


class Step(NamedTuple):
    """One thing that happens at the source; numbers choose among what is possible at that moment."""

    kind: str
    table: int
    which: int
    seed: int


_STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(
            ["commit", "commit"]
            + ["insert"] * 4
            + ["update"] * 6
            + ["rekey"] * 2
            + ["delete"] * 3
            + ["truncate", "alter", "describe", "message", "batch", "part"]
        ),
        st.sampled_from([1, 1, 1, 2, 2, 3, 3, 4, 5]),
        st.integers(0, 3),
        st.integers(0, 2**16),
    ),
    min_size=30,  # shrinks by turning steps into commits
    max_size=90,
)


class Source:
    """A database that writes what it does as pgoutput would, and remembers it."""

    def __init__(self) -> None:
        self.tables = dict(_TABLES)
        self.state = Tables()
        self.history: list[Change] = []
        self.described: set[int] = set()
        self.added = 0

    def messages(self, step: Step) -> Iterator[bytes]:
        rng = random.Random(step.seed)
        relation = self.tables[step.table]
        rows = self.state.rows.setdefault(relation.name, [])
        if step.kind in ("describe", "alter"):
            if step.kind == "alter":
                self._alter(step.table)
            self.described.discard(step.table)
        elif step.kind == "message":
            yield pgoutput.logical_message("embassy", b"DROP TABLE account")
            yield pgoutput.origin("elsewhere")
        elif step.kind == "truncate":
            oids = [oid for oid in self.tables if oid == step.table or rng.random() < 0.2]
            for oid in oids:
                yield from self._describe(oid)
            yield pgoutput.truncate(oids, step.which)
            names = tuple(self.tables[oid].name for oid in oids)
            self._done(Change(Operation.TRUNCATE, names, {}, {}, step.which))
        elif step.kind == "insert":
            yield from self._describe(step.table)
            row = {column.name: self._value(rng) for column in relation.columns} | self._free_key(relation, rng)
            yield pgoutput.insert(step.table, list(row.values()))
            self._done(Change(Operation.INSERT, (relation.name,), {}, row))
        elif rows and relation.key:
            yield from self._describe(step.table)
            row = rows[step.which % len(rows)]
            if step.kind == "delete":
                yield self._delete(step.table, row)
            else:
                yield self._update(step, row, rng)

    def _delete(self, oid: int, row: Row) -> bytes:
        relation = self.tables[oid]
        image = self._image(relation, row)
        tuple_ = [image.get(column.name) for column in relation.columns]
        self._done(Change(Operation.DELETE, (relation.name,), image, {}))
        if relation.identity is ReplicaIdentity.FULL:
            return pgoutput.delete(oid, old=tuple_)
        return pgoutput.delete(oid, key=tuple_)

    def _update(self, step: Step, row: Row, rng: random.Random) -> bytes:
        relation = self.tables[step.table]
        keys = [relation.columns[i].name for i in relation.key]
        full = relation.identity is ReplicaIdentity.FULL
        after = {
            column.name: self._value(rng)
            if rng.random() < 0.5 and (full or not column.in_key)
            else row.get(column.name)
            for column in relation.columns
        }
        if step.kind == "rekey" and not full:
            after |= self._free_key(relation, rng)
        # what did not change may be TOASTed, and is then not sent
        hidden = {
            name
            for name in _TOASTED & set(after)
            if rng.random() < 0.5 and after[name] == row.get(name) and (full or name not in keys)
        }
        image = self._image(relation, row)
        tuple_ = [UNCHANGED if name in hidden else value for name, value in after.items()]
        sent = {name: value for name, value in after.items() if name not in hidden}
        moved = any(after[name] != row[name] for name in keys)
        before = [image.get(column.name) for column in relation.columns]
        self._done(Change(Operation.UPDATE, (relation.name,), image, sent))
        if full:
            return pgoutput.update(step.table, tuple_, old=before)
        if moved or rng.random() < 0.05:  # as for a TOASTed key
            return pgoutput.update(step.table, tuple_, key=before)
        return pgoutput.update(step.table, tuple_)

    def _alter(self, oid: int) -> None:
        """ALTER TABLE … ADD COLUMN, for one of the tables with a key."""
        relation = self.tables[oid]
        if relation.identity is not ReplicaIdentity.FULL:
            self.added += 1
            column = Column(f"added{self.added}", 25, "", -1, in_key=False)
            self.tables[oid] = relation._replace(columns=(*relation.columns, column))

    def _describe(self, oid: int) -> Iterator[bytes]:
        if oid not in self.described:
            self.described.add(oid)
            yield pgoutput.relation(oid, self.tables[oid])

    def _done(self, change: Change) -> None:
        self.history.append(change)
        self.state.apply([change])

    def _image(self, relation: Relation, row: Row) -> Row:
        return {relation.columns[i].name: row.get(relation.columns[i].name) for i in relation.key}

    def _free_key(self, relation: Relation, rng: random.Random) -> Row:
        """A key that no row has; of few, so that keys are used again."""
        if relation.identity is ReplicaIdentity.FULL or not relation.key:
            return {}
        names = [relation.columns[i].name for i in relation.key]
        taken = {tuple(row[name] for name in names) for row in self.state.rows[relation.name]}
        while True:
            key = tuple(b"%d" % rng.randrange(3 + 2 * len(taken)) for _ in names)
            if key not in taken:
                return dict(zip(names, key, strict=True))

    @staticmethod
    def _value(rng: random.Random) -> Value:
        if rng.random() < 0.03:
            return _LONG
        return None if rng.random() < 0.2 else rng.choice(_TEXTS[: rng.choice((3, len(_TEXTS)))])


class Pipeline:
    """A builder fed with whole transactions and parts, as the producer's loop would feed it."""

    def __init__(self) -> None:
        self.builder = BatchBuilder()
        self.batches: list[Batch] = []
        self.open: list[bytes] = []
        self.sent: list[bytes] = []
        self.slot: list[bytes] = []
        """All of it, as a slot that sends whole transactions has it."""
        self.part = 0
        self.lsn = 1000

    def commit(self) -> None:
        self.lsn += 100
        begin = decode_begin(pgoutput.begin(self.lsn, xid=self.lsn))
        commit = decode_commit(pgoutput.commit(self.lsn, self.lsn + 48))
        if self.part:
            self.builder.add_part(begin, self.open)
            self.batches.append(self.builder.build_part(begin, self.part, commit))
        else:
            self.builder.add_transaction(begin, commit, self.open)
        end = pgoutput.commit(self.lsn, self.lsn + 48)
        self.slot += [pgoutput.begin(self.lsn, xid=self.lsn), *self.sent, *self.open, end]
        self.open, self.sent, self.part = [], [], 0

    def whole(self) -> None:
        if self.builder.transactions:
            self.batches.append(self.builder.build_whole())

    def cut(self) -> None:
        self.whole()
        begin = decode_begin(pgoutput.begin(self.lsn + 100, xid=self.lsn + 100))
        self.builder.add_part(begin, self.open)
        self.batches.append(self.builder.build_part(begin, self.part, None))
        self.sent += self.open
        self.open, self.part = [], self.part + 1


def _run(steps: list[Step]) -> tuple[Source, list[Batch]]:
    source, pipeline = _piped(steps)
    return source, pipeline.batches


def _piped(steps: list[Step]) -> tuple[Source, Pipeline]:
    source, pipeline = Source(), Pipeline()
    for step in steps:
        if step.kind == "commit":
            pipeline.commit()
        elif step.kind == "batch" and not pipeline.part:
            pipeline.whole()
        elif step.kind == "part":
            pipeline.cut()
        else:
            pipeline.open += source.messages(step)
    pipeline.commit()
    pipeline.whole()
    return source, pipeline


@settings(max_examples=300, deadline=None)
@given(_STEPS)
def test_a_batch_gives_the_state_of_commit_order_and_keeps_the_history(steps: list[Step]) -> None:
    source, batches = _run(steps)
    replica = Tables()
    history: list[Change] = []
    for batch in batches:
        encoded = BatchEncoder().encode(batch)
        assert decode_batch(encoded) == batch
        before = Tables()
        before.rows = {name: [dict(row) for row in rows] for name, rows in replica.rows.items()}
        before.apply_exactly(batch)
        replica.apply_fast(batch)
        assert replica.contents() == before.contents()
        history += exact_changes(batch)
    assert history == source.history
    assert replica.contents() == source.state.contents()


@settings(max_examples=100, deadline=None)
@given(_STEPS)
def test_a_slot_and_the_batches_made_of_it_tell_the_same_transactions(steps: list[Step]) -> None:
    _, pipeline = _piped(steps)
    events = [BatchOpened(GENESIS, 0, batch, 0) for batch in pipeline.batches]
    told = [each for each in batch_transactions.transactions(events) if each.changes]
    known = [each for each in slot_transactions.transactions(pipeline.slot, Lsn(0)) if each.changes]
    assert [each._replace(changes=()) for each in told] == [each._replace(changes=()) for each in known]
    for mine, theirs in zip(told, known, strict=True):
        assert [*map(_without_an_equal_key, mine.changes)] == [*map(_without_an_equal_key, theirs.changes)]


def _without_an_equal_key(change: SourceChange) -> SourceChange:
    """An old key that did not change is sent for a TOASTed one, and says nothing."""
    if change.old is None or change.new is None or change.relation.identity is ReplicaIdentity.FULL:
        return change
    same = all(change.new.get(name, value) == value for name, value in change.old.items())
    return change._replace(old=None) if same else change


@settings(max_examples=100, deadline=None)
@given(_STEPS)
def test_transactions_parts_and_waves_are_what_they_claim(steps: list[Step]) -> None:
    source, batches = _run(steps)
    expected_part = 0
    for batch in batches:
        assert batch.part == expected_part
        expected_part = 0 if batch.complete else batch.part + 1
        assert len(batch.transactions) == 1 or (batch.complete and not batch.part)
        assert sum(transaction.changes for transaction in batch.transactions) == len(batch.order) // 2
        ranks = [(segment.wave, segment.operation, segment.superseded) for segment in batch.segments]
        assert ranks == sorted(ranks)
        for relation in range(len(batch.relations)):
            deletes = [
                segment.wave
                for segment in batch.segments
                if segment.relation == relation and segment.operation is Operation.DELETE
            ]
            assert len(deletes) == len(set(deletes))
            _assert_old_images_differ(batch, relation)
    assert expected_part == 0
    assert sum(len(batch.order) // 2 for batch in batches) == len(source.history)


def _assert_old_images_differ(batch: Batch, relation: int) -> None:
    """No two updates of a table and a wave have the same old image, superseded ones aside."""
    seen: set[tuple[int, frozenset[tuple[str, Value]]]] = set()
    for segment in batch.segments:
        if segment.relation == relation and segment.operation is Operation.UPDATE and not segment.superseded:
            for change in segment_changes(batch, segment):
                image = (segment.wave, frozenset(change.old.items()))
                assert image not in seen
                seen.add(image)


@settings(max_examples=150, deadline=None)
@given(_STEPS, st.randoms(use_true_random=False))
def test_damaged_bytes_are_refused_or_are_a_batch(steps: list[Step], rng: random.Random) -> None:
    _, batches = _run(steps)
    for batch in batches[:3]:
        damaged = bytearray(BatchEncoder().encode(batch))
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        try:
            again = decode_batch(bytes(damaged))
        except IntegrityError:
            continue
        assert decode_batch(BatchEncoder().encode(again)) == again


@pytest.mark.parametrize("drop", [1, 5, 20])
def test_a_batch_that_is_cut_short_is_refused(drop: int) -> None:
    _, batches = _run([Step("insert", 1, 0, seed) for seed in range(10)])
    with pytest.raises(IntegrityError):
        decode_batch(BatchEncoder().encode(batches[0])[:-drop])
