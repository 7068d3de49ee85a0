from __future__ import annotations

import pytest

from embassy.model.chain import _REMEMBERED, Follower, Standing, _Counted
from embassy.model.errors import IntegrityError
from embassy.model.record import Head, RecordKind
from embassy.wire.record_codec import decode_record
from tests.harness.memory_log import GENESIS, seal, verified

A, B = b"A" * 16, b"B" * 16


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def follower(clock: Clock | None = None) -> Follower:
    return Follower(GENESIS, topic="s-x", signers=verified, clock=clock or Clock(), hold_seconds=60)


def judge(reader: Follower, value: bytes) -> Standing:
    record = decode_record(value)
    return reader.judge(record, verified(record), 0)


def chain(kinds: str, start: Head = GENESIS, incarnation: bytes = A) -> list[bytes]:
    values, head = [], start
    for index, kind in enumerate(kinds):
        value, head = seal(
            head,
            RecordKind.KEY if kind == "K" else RecordKind.DATA,
            incarnation=incarnation,
            body=b"%d" % index,
            resume_lsn=head.resume_lsn + 1,
        )
        values.append(value)
    return values


def test_a_chain_counts_in_order() -> None:
    reader = follower()
    assert [judge(reader, value) for value in chain("KDDD")] == [Standing.COUNTS] * 4
    assert reader.head.sequence == 4
    assert reader.head.resume_lsn == 4


def test_a_copy_is_passed_over_however_often_it_comes() -> None:
    reader = follower()
    values = chain("KDD")
    for value in values:
        judge(reader, value)
    assert [judge(reader, value) for value in values + values] == [Standing.REPEATED] * 6


def test_an_unsigned_record_is_as_good_as_absent() -> None:
    reader = follower()
    forged, _ = seal(GENESIS, RecordKind.KEY, incarnation=B, signature=b"forged")
    assert judge(reader, forged) is Standing.UNSIGNED
    assert [judge(reader, value) for value in chain("KD")] == [Standing.COUNTS] * 2


def test_data_of_another_incarnation_does_not_count_even_if_it_names_the_head() -> None:
    reader = follower()
    (key,) = chain("K")
    judge(reader, key)
    stray, _ = seal(reader.head, RecordKind.DATA, incarnation=B)
    assert judge(reader, stray) is Standing.STRAY


def test_a_successor_fences_its_predecessor() -> None:
    reader = follower()
    key, after = seal(GENESIS, RecordKind.KEY, incarnation=A)
    successor, after_successor = seal(after, RecordKind.KEY, incarnation=B)
    late, _ = seal(after, RecordKind.DATA, incarnation=A, resume_lsn=9)
    own, _ = seal(after_successor, RecordKind.DATA, incarnation=B, resume_lsn=5)
    assert [judge(reader, v) for v in (key, successor, late, own)] == [
        Standing.COUNTS,
        Standing.COUNTS,
        Standing.STRAY,
        Standing.COUNTS,
    ]
    assert reader.head.resume_lsn == 5


def test_the_resume_position_never_goes_back() -> None:
    key, after = seal(
        GENESIS._replace(resume_lsn=GENESIS.resume_lsn), RecordKind.KEY, incarnation=A, resume_lsn=10
    )
    back, _ = seal(after, RecordKind.DATA, incarnation=A, resume_lsn=9)
    reader = follower()
    assert [judge(reader, v) for v in (key, back)] == [Standing.COUNTS, Standing.STRAY]


def test_two_records_of_one_sequence_in_one_incarnation_halt_at_once() -> None:
    reader = follower()
    key, after = seal(GENESIS, RecordKind.KEY, incarnation=A)
    one, _ = seal(after, RecordKind.DATA, incarnation=A, body=b"one")
    other, _ = seal(after, RecordKind.DATA, incarnation=A, body=b"other")
    judge(reader, key)
    judge(reader, one)
    with pytest.raises(IntegrityError, match="producer was cloned"):
        judge(reader, other)


def test_a_missing_record_halts_after_the_hold_and_not_before() -> None:
    clock = Clock()
    reader = follower(clock)
    values = chain("KDDDD")
    judge(reader, values[0])
    assert judge(reader, values[2]) is Standing.STRAY
    clock.now = 59
    assert judge(reader, values[3]) is Standing.STRAY
    clock.now = 60
    with pytest.raises(IntegrityError, match="record 2 is missing: the last that counted is 1"):
        judge(reader, values[4])
    assert reader.head.sequence == 1


def test_a_record_that_comes_late_ends_the_hold() -> None:
    clock = Clock()
    reader = follower(clock)
    values = chain("KDDDDD")
    judge(reader, values[0])
    judge(reader, values[2])
    clock.now = 59
    assert judge(reader, values[1]) is Standing.COUNTS
    clock.now = 200
    assert judge(reader, values[3]) is Standing.STRAY
    assert judge(reader, values[2]) is Standing.COUNTS


def test_an_incarnation_whose_key_was_lost_is_noticed_too() -> None:
    clock = Clock()
    reader = follower(clock)
    judge(reader, chain("K")[0])
    _, lost = seal(reader.head, RecordKind.KEY, incarnation=B)
    values = chain("DD", start=lost, incarnation=B)
    assert judge(reader, values[0]) is Standing.STRAY
    clock.now = 61
    with pytest.raises(IntegrityError, match="record 2 is missing"):
        judge(reader, values[1])


def test_the_last_records_that_counted_are_remembered_and_older_ones_are_not() -> None:
    counted = _Counted()
    assert counted.of(0) == (b"", b"")
    for sequence in range(7, 7 + _REMEMBERED + 2):
        counted.add(sequence, sequence.to_bytes(16), sequence.to_bytes(32))
    newest = 7 + _REMEMBERED + 1
    for sequence in (9, 10, 4096, newest):
        assert counted.of(sequence) == (sequence.to_bytes(16), sequence.to_bytes(32))
    for sequence in (6, 7, 8, newest + 1, newest + _REMEMBERED):
        assert counted.of(sequence) == (b"", b"")
    counted.add(newest + 5, bytes(16), bytes(32))
    assert counted.of(newest) == counted.of(newest + 4) == (b"", b""), "there is a gap"
    assert counted.of(newest + 5) == (bytes(16), bytes(32))
