"""Random schedules of everything that may happen between a source and a replica: each transaction once, whole, in order.

Producers that are replaced while appends are in flight; appends lost singly, or with all that follow; carriers that copy
again from earlier; batches cut into records and transactions cut into batches; new incarnations in between; producers
with a new identity, while those with the old one go on and thieves have its key; a consumer that dies at any point and
starts again from what it had committed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumers.inbox import BatchOpened, Inbox, KeyTaken, resume
from embassy.model.batch import Batch
from embassy.model.chain import Follower, Standing
from embassy.model.record import Head, RecordKind
from embassy.pg.progress_store import Progress
from embassy.wire.head_search import find_head, locate
from tests.harness.memory_log import GENESIS, MemoryLog, seal, verified
from tests.harness.transactions import MemoryOpener, batch_records, numbered


class Ignored:
    """Gauges that count nothing."""

    def received(self, head: Head, timestamp_ms: int) -> None:
        """Not counted."""

    def missing(self, sequence: int | None) -> None:
        pass

    def ignored(self, standing: Standing) -> None:
        """Not counted."""


@dataclass
class Writer:
    """A producer: finds the head, appends its KEY, reads back, and sends what comes after the last whole transaction."""

    log: MemoryLog
    incarnation: bytes
    head: Head = GENESIS
    waiting_for: bytes = b""
    queue: list[bytes] = field(default_factory=list)
    generation: int = 1

    def start(self, rng: random.Random) -> None:
        found = find_head(self.log, verified, GENESIS)
        self.head = GENESIS if found is None else found.head
        if self.head.generation > self.generation:
            return  # succeeded: it refuses to start
        self.incarnation = rng.randbytes(16)
        self.waiting_for, self.head = seal(
            self.head, RecordKind.KEY, incarnation=self.incarnation, generation=self.generation
        )
        self.queue.append(self.waiting_for)

    def step(self, rng: random.Random, source: int) -> None:
        if not self.incarnation:
            self.start(rng)
        elif self.waiting_for:
            if self.waiting_for in self.log.values:
                won = find_head(self.log, verified, GENESIS)
                assert won is not None
                self.waiting_for = b""
                if won.head != self.head:
                    self.incarnation = b""
        elif rng.random() < 0.05 and not self.queue:
            self.incarnation = b""
        elif source > self.head.resume_lsn:
            self._send(rng, source)

    def _send(self, rng: random.Random, source: int) -> None:
        first = self.head.resume_lsn + 1
        if rng.random() < 0.3:
            count = rng.randint(2, 4)
            for part in range(count):
                self._append(rng, numbered([first], part, complete=part == count - 1), first)
        else:
            last = min(source, first + rng.randint(0, 4))
            self._append(rng, numbered(range(first, last + 1)), last)

    def _append(self, rng: random.Random, batch: Batch, last: int) -> None:
        resume_lsn = last if batch.complete else self.head.resume_lsn
        for value, head in batch_records(
            self.head, self.incarnation, batch, resume_lsn, rng.choice([1, 1, 1, 2, 3])
        ):
            self.queue.append(value)
            self.head = head


class Replica:
    """The consumer and its database, in memory: what is open is lost with the session."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.applied: list[int] = []
        self.progress = Progress(GENESIS, b"", 0)
        self.restart(hinted=True)

    def restart(self, *, hinted: bool) -> None:
        opener = MemoryOpener()
        head = resume(opener, self.progress.head, self.progress.key_record, verified, "memory")
        self.offset = locate(self.log, head, verified, self.progress.next_offset if hinted else None)
        follower = Follower(head, topic="s-memory", signers=verified, clock=lambda: 0.0, hold_seconds=60)
        self.inbox = Inbox(follower, opener, Ignored())
        self.next = self.progress
        self.pending: list[int] = []
        self.parts: list[int] = []

    def consume(self, rng: random.Random, count: int, *, die: bool) -> None:
        fetched = list(self.log.read(self.offset, self.offset + count))
        self.offset += len(fetched)
        for event in self.inbox.receive(fetched):
            self._take(event)
            if die and rng.random() < 0.1:
                self.restart(hinted=rng.random() < 0.7)
                return
        if not self.parts:
            self._commit()

    def _take(self, event: KeyTaken | BatchOpened) -> None:
        if isinstance(event, KeyTaken):
            assert event.rolls_back is bool(self.parts)
            self.parts = []
            self.next = Progress(event.head, event.key_record, event.next_offset)
            return
        batch = event.batch
        if not batch.complete and not self.parts:
            self._commit()
        if batch.part or not batch.complete:
            assert batch.part == len(self.parts)
            self.parts.append(batch.part)
        if batch.complete:
            self.pending += [transaction.xid for transaction in batch.transactions]
            self.parts = []
            self.next = Progress(event.head, self.next.key_record, event.next_offset)

    def _commit(self) -> None:
        self.applied += self.pending
        self.pending = []
        self.progress = self.next


class World:
    """A source, both topics, and everyone at work between them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.source = 0
        self.generation = 1
        self.home, self.foreign = MemoryLog(), MemoryLog()
        self.writers: list[Writer] = []
        self.carriers: list[int] = []
        self.replica = Replica(self.foreign)

    def run(self, steps: int) -> None:
        acts = (
            self.commit,
            self.replace_writer,
            self.write,
            self.append,
            self.carry,
            self.consume,
            self.succeed,
            self.steal,
        )
        for act in self.rng.choices(acts, (20, 4, 31, 20, 15, 10, 1, 3), k=steps):
            act()
        assert self.replica.applied == list(range(1, len(self.replica.applied) + 1))

    def commit(self) -> None:
        self.source += self.rng.randint(1, 3)

    def replace_writer(self) -> None:
        if len(self.writers) < 4:
            self.writers.append(Writer(self.home, b"", generation=self.generation))

    def succeed(self) -> None:
        """The operators name a new producer; what is on its way from the old ones stays so."""
        if self.generation < 5:
            self.generation += 1

    def steal(self) -> None:
        """Whoever has the key of a producer that was succeeded writes whatever may look right."""
        found = find_head(self.home, verified, GENESIS)
        if found is None or found.head.generation == 1:
            return
        rng, head = self.rng, found.head
        generation = rng.randint(1, head.generation - 1)
        if rng.random() < 0.5:
            head = head._replace(sequence=head.sequence + rng.randint(0, 1000))
        if rng.random() < 0.5:
            value, _ = seal(
                head,
                RecordKind.DATA,
                incarnation=head.incarnation,
                resume_lsn=head.resume_lsn + 1,
                generation=generation,
            )
            self.home.append(value)
            return
        incarnation = rng.choice([head.incarnation, rng.randbytes(16)])
        key, after = seal(head, RecordKind.KEY, incarnation=incarnation, generation=generation)
        self.home.append(key)
        for value, _ in batch_records(after, incarnation, numbered([after.resume_lsn + 1]), after.resume_lsn + 1):
            self.home.append(value)

    def write(self) -> None:
        if self.writers:
            writer = self.rng.choice(self.writers)
            if writer is self.writers[-1] or self.rng.random() < 0.3:
                writer.step(self.rng, self.source)

    def append(self) -> None:
        queued = [writer for writer in self.writers if writer.queue]
        if not queued:
            return
        writer = self.rng.choice(queued)
        fate = self.rng.random()
        if fate < 0.03:
            self.writers.remove(writer)  # it dies, and what it had not sent is gone
        elif fate < 0.06:
            writer.queue.pop(0)  # one is lost, those behind it still arrive
        else:
            self.home.append(writer.queue.pop(0))

    def carry(self) -> None:
        rng = self.rng
        if len(self.carriers) < 3 and rng.random() < 0.2:
            self.carriers.append(rng.choice([0, *self.carriers]))
        if self.carriers:
            index = rng.randrange(len(self.carriers))
            if self.carriers[index] < len(self.home.values):
                self.foreign.append(self.home.values[self.carriers[index]])
                self.carriers[index] += 1
            if rng.random() < 0.03:
                self.carriers[index] = max(0, self.carriers[index] - rng.randint(1, 10))

    def consume(self) -> None:
        self.replica.consume(self.rng, self.rng.randint(1, 8), die=self.rng.random() < 0.3)

    def end_quietly(self) -> None:
        """One producer, one carrier, one consumer, no faults."""
        writer = Writer(self.home, b"", generation=self.generation)
        while writer.waiting_for or not writer.incarnation or writer.head.resume_lsn < self.source:
            writer.step(self.rng, self.source)
            self.home.values += writer.queue
            writer.queue.clear()
        self.foreign.values += self.home.values
        self.replica.restart(hinted=True)
        self.replica.consume(self.rng, len(self.foreign.values), die=False)


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 400))
@example(seed=0, steps=3000)
@example(seed=1, steps=3000)
def test_each_transaction_is_applied_once_whole_and_in_order(seed: int, steps: int) -> None:
    world = World(seed)
    world.run(steps)
    world.end_quietly()
    replica = world.replica
    assert replica.applied == list(range(1, world.source + 1))
    assert replica.progress.head.resume_lsn == world.source
    resumed = resume(MemoryOpener(), replica.progress.head, replica.progress.key_record, verified, "memory")
    assert resumed.generation == world.generation
