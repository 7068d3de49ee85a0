"""What the inbox makes of records, one situation at a time."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from consumers.inbox import BatchOpened, Event, Inbox, KeyTaken, resume
from embassy.model.batch import Batch
from embassy.model.chain import Follower, Standing
from embassy.model.errors import IntegrityError
from embassy.model.record import Head, RecordKind
from embassy.wire.record_codec import decode_record
from tests.harness.memory_log import GENESIS, MemoryLog, seal, verified
from tests.harness.transactions import MemoryOpener, batch_records, numbered

A, B = b"A" * 16, b"B" * 16


class Counting:
    """Gauges that remember."""

    def __init__(self) -> None:
        self.heads: list[int] = []
        self.others: list[Standing] = []

    def received(self, head: Head, timestamp_ms: int) -> None:
        self.heads.append(head.sequence)

    def missing(self, sequence: int | None) -> None:
        pass

    def ignored(self, standing: Standing) -> None:
        self.others.append(standing)


class Stream:
    """A topic that is written by hand, and an inbox that reads it."""

    def __init__(self, head: Head = GENESIS) -> None:
        self.log = MemoryLog(base=100)
        self.head = head
        self.gauges = Counting()
        self.opener = MemoryOpener()
        self.read = 100
        follower = Follower(head, topic="s-memory", signers=verified, clock=lambda: 0.0, hold_seconds=60)
        self.inbox = Inbox(follower, self.opener, self.gauges)

    def key(self, incarnation: bytes) -> bytes:
        value, self.head = seal(self.head, RecordKind.KEY, incarnation=incarnation)
        self.log.append(value)
        return value

    def batch(
        self, batch: Batch, *, incarnation: bytes = A, cuts: int = 1, keep: Iterable[int] | None = None
    ) -> None:
        resume_lsn = batch.transactions[-1].end_lsn if batch.complete else self.head.resume_lsn
        for index, (value, head) in enumerate(batch_records(self.head, incarnation, batch, resume_lsn, cuts)):
            if keep is not None and index not in keep:
                break
            self.log.append(value)
            self.head = head

    def events(self) -> list[Event]:
        fetched = list(self.log.read(self.read, self.log.bounds()[1]))
        self.read += len(fetched)
        return list(self.inbox.receive(fetched))


def test_a_batch_comes_with_the_head_after_it_and_where_to_read_on() -> None:
    stream = Stream()
    key = stream.key(A)
    after_key = stream.head
    stream.batch(numbered([1, 2, 3]))
    first, second = stream.events()
    assert first == KeyTaken(after_key, 101, key, rolls_back=False)
    assert isinstance(second, BatchOpened)
    assert (second.head, second.next_offset) == (stream.head, 102)
    assert second.batch == numbered([1, 2, 3])
    assert second.encoded_bytes > 0
    assert stream.inbox.head == stream.head


def test_a_batch_in_several_records_comes_once_with_its_last() -> None:
    stream = Stream()
    stream.key(A)
    stream.batch(numbered([1, 2, 3]), cuts=5, keep=range(4))
    assert len(stream.events()) == 1
    stream = Stream()
    stream.key(A)
    stream.batch(numbered([1, 2, 3]), cuts=5)
    events = stream.events()
    assert len(events) == 2
    assert isinstance(events[1], BatchOpened)
    assert events[1].next_offset == 106
    assert stream.gauges.heads == [1, 2, 3, 4, 5, 6]


def test_copies_and_forgeries_and_garbage_are_passed_over() -> None:
    stream = Stream()
    stream.key(A)
    stream.batch(numbered([1]))
    stream.log.values += stream.log.values[:2]
    forged, _ = seal(stream.head, RecordKind.KEY, incarnation=B, signature=b"forged")
    stream.log.values += [b"garbage", b"", forged]
    late, _ = seal(GENESIS, RecordKind.KEY, incarnation=B)
    stream.log.append(late)
    stream.batch(numbered([2]))
    assert [type(event) for event in stream.events()] == [KeyTaken, BatchOpened, BatchOpened]
    assert stream.gauges.others == [
        Standing.REPEATED,
        Standing.REPEATED,
        Standing.UNSIGNED,
        Standing.UNSIGNED,
        Standing.UNSIGNED,
        Standing.STRAY,
    ]


def test_a_new_incarnation_drops_a_batch_that_has_not_come_whole() -> None:
    stream = Stream()
    stream.key(A)
    stream.batch(numbered([1]), cuts=3, keep=[0, 1])
    stream.key(B)
    stream.batch(numbered([1]), incarnation=B, cuts=2)
    kinds = [type(event) for event in stream.events()]
    assert kinds == [KeyTaken, KeyTaken, BatchOpened]


def test_a_new_incarnation_rolls_an_open_transaction_back() -> None:
    stream = Stream()
    stream.key(A)
    stream.batch(numbered([1]))
    stream.batch(numbered([2], 0, complete=False))
    stream.batch(numbered([2], 1, complete=False), cuts=3, keep=[0])
    stream.key(B)
    stream.batch(numbered([2], 0, complete=False), incarnation=B)
    stream.batch(numbered([2], 1), incarnation=B)
    stream.key(A)
    events = stream.events()
    assert [event.rolls_back for event in events if isinstance(event, KeyTaken)] == [False, True, False]
    parts = [(event.batch.part, event.batch.complete) for event in events if isinstance(event, BatchOpened)]
    assert parts == [(0, True), (0, False), (0, False), (1, True)]


@pytest.mark.parametrize(
    "batches",
    [
        [numbered([1], 1)],
        [numbered([1], 0, complete=False), numbered([1], 2)],
        [numbered([1], 0, complete=False), numbered([1], 0, complete=False)],
        [numbered([1], 0, complete=False), numbered([1, 2])],
        [numbered([1], 0, complete=False), numbered([2], 1)],
        [numbered([1], 0, complete=False), numbered([], 1)],
        [numbered([1, 2], 0, complete=False)],
    ],
)
def test_parts_that_do_not_continue_halt(batches: list[Batch]) -> None:
    stream = Stream()
    stream.key(A)
    for batch in batches:
        for value, head in batch_records(stream.head, A, batch, stream.head.resume_lsn):
            stream.log.append(value)
            stream.head = head
    with pytest.raises(IntegrityError, match=r"of a transaction came where part \d is due") as halted:
        stream.events()
    assert halted.value.place == f"s-memory@{100 + len(batches)}"


def test_records_of_a_batch_that_do_not_continue_halt() -> None:
    stream = Stream()
    stream.key(A)
    value, _ = seal(stream.head, RecordKind.DATA, incarnation=A, body=b"", part=1)
    stream.log.append(value)
    with pytest.raises(IntegrityError, match="part 1 of a batch came where part 0 is due") as halted:
        stream.events()
    assert halted.value.place == "s-memory@101"


def test_a_signed_record_that_cannot_be_read_halts() -> None:
    stream = Stream()
    stream.key(A)
    value, _ = seal(stream.head, RecordKind.DATA, incarnation=A, body=b"not compressed")
    stream.log.append(value)
    with pytest.raises(IntegrityError, match="cannot be decompressed") as halted:
        stream.events()
    assert halted.value.place == "s-memory@101"


def test_each_event_is_given_before_the_next_record_is_opened() -> None:
    stream = Stream()
    stream.key(A)
    stream.batch(numbered([1]))
    stream.batch(numbered([2]))
    events = stream.inbox.receive(stream.log.read(100, 103))
    next(events)
    assert stream.gauges.heads == [1]
    next(events)
    assert stream.gauges.heads == [1, 2]


def test_a_restart_opens_what_follows_with_the_key_that_was_kept() -> None:
    stream = Stream()
    key = stream.key(A)
    stream.batch(numbered([1]))
    kept, offset = stream.head, 102
    stream.batch(numbered([2]))
    again = Stream(kept)
    again.log = stream.log
    again.read = offset
    with pytest.raises(IntegrityError, match="not known"):
        again.events()
    again = Stream(kept)
    again.log = stream.log
    again.read = offset
    resume(again.opener, kept, key, verified, "replica")
    (event,) = again.events()
    assert isinstance(event, BatchOpened)
    assert event.batch == numbered([2])


def test_nothing_is_needed_to_start_at_genesis() -> None:
    opener = MemoryOpener()
    resume(opener, GENESIS, b"", verified, "replica")
    assert opener.incarnation == b""


def test_a_kept_key_that_is_not_the_incarnations_is_refused() -> None:
    key, after = seal(GENESIS, RecordKind.KEY, incarnation=A)
    other, _ = seal(GENESIS, RecordKind.KEY, incarnation=B)
    forged, _ = seal(GENESIS, RecordKind.KEY, incarnation=A, signature=b"forged")
    record, _ = seal(after, RecordKind.DATA, incarnation=A)
    assert decode_record(key).header.incarnation == after.incarnation
    for value in (b"", other, forged, record):
        with pytest.raises(IntegrityError, match="key record that the replica keeps cannot be used") as halted:
            resume(MemoryOpener(), after, value, verified, "replica")
        assert halted.value.place == "replica"
        assert halted.value.hint
