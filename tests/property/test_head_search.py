"""Random logs with zombies, copies, forgeries and retention: the head found is the head, or none is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from embassy.model.errors import IntegrityError
from embassy.model.record import Head, RecordKind, SealedRecord
from embassy.wire.beginning import beginning
from embassy.wire.head_search import find_head, locate
from embassy.wire.record_codec import decode_record, record_or_none
from tests.harness.memory_log import GENESIS, MemoryLog, seal, verified


class Writer:
    """A producer: appends its KEY, reads back, and only then sends data."""

    def __init__(self, log: MemoryLog, incarnation: bytes) -> None:
        self.log = log
        self.incarnation = incarnation
        self.queue: list[bytes] = []
        self.head: Head | None = None

    def start(self, generation: int) -> None:
        value, after = seal(
            true_head(self.log), RecordKind.KEY, incarnation=self.incarnation, generation=generation
        )
        self.log.append(value)
        self.head = after

    def send(self, rng: random.Random) -> None:
        if self.head is None:
            return
        value, self.head = seal(
            self.head,
            RecordKind.DATA,
            incarnation=self.incarnation,
            body=rng.randbytes(3),
            resume_lsn=self.head.resume_lsn + rng.randrange(3),
        )
        self.queue.append(value)

    def flush_one(self) -> None:
        if self.queue:
            self.log.append(self.queue.pop(0))


def fold(log: MemoryLog, head: Head, start: int) -> Head:
    for fetched in log.read(start, log.bounds()[1]):
        try:
            record = decode_record(fetched.value)
        except IntegrityError:
            continue
        generation = verified(record)
        if generation:
            head = head.link(record.header, record.hash, generation) or head
    return head


def true_head(log: MemoryLog) -> Head:
    return fold(log, GENESIS, 0)


def every_counting(log: MemoryLog) -> Iterator[tuple[bytes, Head]]:
    """What has counted, one after the other, and the head with each."""
    head = GENESIS
    for fetched in log.read(*log.bounds()):
        record = record_or_none(fetched.value)
        if record is not None and (linked := head.link(record.header, record.hash, verified(record))):
            head = linked
            yield fetched.value, head


def first(log: MemoryLog, wanted: Callable[[SealedRecord], bool]) -> int | None:
    """The first offset of a signed record that is wanted."""
    for fetched in log.read(*log.bounds()):
        try:
            record = decode_record(fetched.value)
        except IntegrityError:
            continue
        if verified(record) and wanted(record):
            return fetched.offset
    return None


def first_key(log: MemoryLog, head: Head) -> int | None:
    """Where the head's incarnation begins."""
    return first(
        log, lambda record: record.header.kind is RecordKind.KEY and record.header.incarnation == head.incarnation
    )


def steal(rng: random.Random, log: MemoryLog) -> None:
    """Whoever has the key of a producer that was succeeded pretends to have taken over."""
    head = true_head(log)
    if head.generation == 1:
        return
    ahead = head._replace(sequence=head.sequence + rng.randrange(50))
    incarnation = rng.randbytes(16)
    value, after = seal(
        ahead, RecordKind.KEY, incarnation=incarnation, generation=rng.randint(1, head.generation - 1)
    )
    log.append(value)
    value, _ = seal(after, RecordKind.DATA, incarnation=incarnation)
    log.append(value)


def random_log(rng: random.Random, steps: int) -> tuple[MemoryLog, list[Head]]:  # noqa: C901 - whatever may happen
    log = MemoryLog()
    writers = [Writer(log, rng.randbytes(16))]
    generation = 1
    writers[0].start(generation)
    heads = [GENESIS]
    for _ in range(steps):
        choice = rng.random()
        writer = rng.choice(writers[-3:])
        if choice < 0.08:
            writers.append(Writer(log, rng.randbytes(16)))
            generation = min(4, generation + (rng.random() < 0.2))
            writers[-1].start(generation)
        elif choice < 0.5:
            writer.send(rng)
        elif choice < 0.85:
            writer.flush_one()
        elif choice < 0.88 and writer.queue:
            writer.queue.pop(0)
        elif choice < 0.92:
            log.append(rng.choice(log.values))
        elif choice < 0.94:  # a KEY that a slipped-in record outran: its producer sends nothing more
            behind = rng.choice(heads)
            outrun, _ = seal(
                behind,
                RecordKind.KEY,
                incarnation=rng.randbytes(16),
                generation=max(behind.generation, generation),
            )
            if decode_record(outrun).header.previous != heads[-1].hash:
                log.append(outrun)
        elif choice < 0.955:
            steal(rng, log)
        elif choice < 0.97:
            forged, _ = seal(true_head(log), RecordKind.KEY, incarnation=rng.randbytes(16), signature=b"forged")
            log.append(forged)
        else:
            log.append(rng.randbytes(rng.randrange(40)))
        heads.append(true_head(log))
    return log, heads


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 120))
@example(seed=0, steps=600)
def test_the_head_found_is_the_head(seed: int, steps: int) -> None:
    log, _ = random_log(random.Random(seed), steps)
    found = find_head(log, verified, GENESIS)
    assert found is not None
    assert found.head == true_head(log)
    assert found.key_record is not None
    assert found.key_record.header.incarnation == found.head.incarnation
    assert fold(log, found.head, found.next_offset) == found.head


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 120), share=st.floats(0, 1))
@example(seed=9931, steps=36, share=0.125)  # the first KEY is gone, a copy of it stands behind what followed it
def test_after_retention_the_head_found_is_the_head_or_none_is(seed: int, steps: int, share: float) -> None:
    log, _ = random_log(random.Random(seed), steps)
    truth = true_head(log)
    original = first_key(log, truth)
    log.truncate_front(int(len(log.values) * share))
    # Retention is far longer than a producer's incarnation. Of a topic that it has passed over up to the copies behind
    # the head nobody can tell; the slot can: its position contradicts an older head (producers.continuity).
    assume(original is not None and original >= log.base)
    try:
        found = find_head(log, verified, GENESIS)
    except IntegrityError as error:
        assert "cannot be found" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert found is None or found.head == truth


@pytest.mark.parametrize("low", [0, 1, 5, 11, 12])
def test_where_retention_has_taken_the_beginning_only_the_head_is_found(low: int) -> None:
    """As in every stream that is older than its topic's retention, whenever a producer starts."""
    log = MemoryLog()
    for incarnation in (b"a" * 16, b"b" * 16, b"c" * 16):
        writer = Writer(log, incarnation)
        writer.start(1)
        for _ in range(5):
            writer.send(random.Random(0))
            writer.flush_one()
    truth = true_head(log)
    log.truncate_front(low)
    found = find_head(log, verified, GENESIS)
    assert found is not None
    assert (found.head, found.next_offset) == (truth, 18)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 120), runs=st.integers(1, 6), share=st.floats(0, 1))
def test_a_carrier_whose_requests_are_lost_carries_everything(
    seed: int, steps: int, runs: int, share: float
) -> None:
    """As `bridge.forwarder` does: what it sends may be lost here and there, but no KEY goes out before all in front of it
    is acknowledged."""
    rng = random.Random(seed)
    home, _ = random_log(rng, steps)
    counting = list(every_counting(home))
    places = {head.hash: place for place, (_, head) in enumerate(counting, start=1)}
    foreign, followed = MemoryLog(), GENESIS
    for loss in [rng.random() / 2 for _ in range(runs)] + [0.0]:
        try:
            found = find_head(foreign, verified, GENESIS, repeats=True)
        except IntegrityError:
            assert foreign.base  # else it can always be told
            return
        place = 0 if found is None else places[found.head.hash]
        missing = False
        for value, _ in counting[place : rng.randint(place, len(counting)) if loss else None]:
            if missing and decode_record(value).header.kind is RecordKind.KEY:
                break
            lost = rng.random() < loss
            missing = missing or lost
            if not lost:
                foreign.append(value)
        followed = fold(foreign, followed, foreign.base)
        if loss:
            foreign.truncate_front(int(rng.random() * share * len(foreign.values)))
    assert followed == true_head(home)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 120), share=st.floats(0, 1))
def test_a_carrier_that_finds_nothing_to_go_on_from_carries_all_that_home_still_holds(
    seed: int, steps: int, share: float
) -> None:
    """From its first record or the oldest KEY that is proven; and the next time it finds its place."""
    rng = random.Random(seed)
    home = home_log(rng, steps)
    counting = [value for value, _ in every_counting(home)]
    truth = true_head(home)
    home.truncate_front(int(len(home.values) * share))
    proven = proven_keys(home.values)
    head, offset = beginning(home, verified, GENESIS)
    if counting[:1] == [value for value in home.values if value in counting][:1]:
        assert head == GENESIS
    elif not proven:
        assert (head, offset) == (GENESIS, home.base)
        return
    else:
        assert head.sequence in proven
    assert fold(home, head, offset) == truth
    foreign = MemoryLog(base=rng.choice((0, 7)), values=counting[head.sequence :])
    if proven_keys(foreign.values):  # else it begins there once more
        found = find_head(foreign, verified, GENESIS, repeats=True)
        assert found is not None
        assert found.head == truth


def proven_keys(values: Sequence[bytes]) -> list[int]:
    """The sequence numbers before the KEYs that a DATA record of their own incarnation names."""
    records = [decode_record(value) for value in values]
    named = {(r.header.previous, r.header.incarnation) for r in records if r.header.kind is RecordKind.DATA}
    return [
        r.header.sequence - 1
        for r in records
        if r.header.kind is RecordKind.KEY and (r.hash, r.header.incarnation) in named
    ]


def home_log(rng: random.Random, steps: int) -> MemoryLog:
    """What producers leave at home, paused ones included: nobody copies anything there."""
    log = MemoryLog()
    writers: list[Writer] = []
    for _ in range(steps):
        if not writers or rng.random() < 0.1:
            writers.append(Writer(log, rng.randbytes(16)))
            writers[-1].start(1)
        writer = rng.choice(writers[-3:])
        writer.send(rng)
        if rng.random() < 0.8:
            writer.flush_one()
    return log


@pytest.mark.parametrize("low", [0, 3])
@pytest.mark.parametrize("lost", [0, 4, 9])
def test_a_gap_in_the_last_incarnation_holds_up_no_carrier(low: int, lost: int) -> None:
    """A connection broke: the first of the requests that were on the way was lost, and what was behind it came."""
    log, writer = MemoryLog(), None
    for incarnation in (b"a" * 16, b"b" * 16):
        writer = Writer(log, incarnation)
        writer.start(1)
        for _ in range(10):
            writer.send(random.Random(0))
            writer.flush_one()
    assert writer is not None
    for _ in range(10):
        writer.send(random.Random(0))
    del writer.queue[lost]
    while writer.queue:
        writer.flush_one()
    truth = true_head(log)
    log.truncate_front(low)
    found = find_head(log, verified, GENESIS, repeats=True)
    assert found is not None
    assert found.head == truth
    assert truth.sequence == 22 + lost


@pytest.mark.parametrize("keys", [1, 2])
def test_behind_earlier_reigns_the_first_key_is_the_head(keys: int) -> None:
    """The producer ended between its KEY and its first record; a second one's KEY at the same place counts nowhere."""
    log = MemoryLog(values=[b"of another reign"] * 5)
    log.truncate_front(3)
    first_key, expected = seal(GENESIS, RecordKind.KEY, incarnation=b"1" * 16)
    second_key, _ = seal(GENESIS, RecordKind.KEY, incarnation=b"2" * 16)
    for value in (first_key, second_key)[:keys]:
        log.append(value)
    found = find_head(log, verified, GENESIS)
    assert found is not None
    assert (found.head, found.next_offset) == (expected, 6)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 120), pick=st.floats(0, 1), hinted=st.booleans())
def test_reading_on_from_a_known_head_reaches_the_truth(seed: int, steps: int, pick: float, hinted: bool) -> None:  # noqa: FBT001
    log, heads = random_log(random.Random(seed), steps)
    head = heads[int(pick * (len(heads) - 1))]
    at = first(log, lambda record: record.hash == head.hash)
    offset = locate(log, head, verified, at + 1 if hinted and at is not None else None)
    assert fold(log, head, offset) == true_head(log)


def test_an_empty_topic_has_no_head() -> None:
    assert find_head(MemoryLog(), verified, GENESIS) is None


def test_a_topic_of_garbage_has_no_head() -> None:
    log = MemoryLog(values=[b"", b"garbage", b"\x00" * 100])
    assert find_head(log, verified, GENESIS) is None
