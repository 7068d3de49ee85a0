"""What a stretch of a topic tells about its records."""

from __future__ import annotations

import hashlib

from embassy.model.record import Head, RecordKind
from embassy.model.stretch import Entry, Mark, Stretch
from embassy.wire.record_codec import decode_record
from tests.harness.memory_log import GENESIS, seal, verified

A, B, C = (bytes([n]) * 16 for n in (1, 2, 3))


def _key(head: Head, incarnation: bytes) -> tuple[bytes, Head]:
    return seal(head, RecordKind.KEY, incarnation=incarnation)


def _data(head: Head, body: bytes = b"x") -> tuple[bytes, Head]:
    return seal(head, RecordKind.DATA, incarnation=head.incarnation, body=body)


def _run(head: Head, incarnation: bytes, count: int) -> tuple[list[bytes], Head]:
    """A KEY and DATA behind it."""
    value, head = _key(head, incarnation)
    values = [value]
    for number in range(count):
        value, head = _data(head, b"%d" % number)
        values.append(value)
    return values, head


def _judged(values: list[bytes], *, genesis: Head | None = GENESIS) -> tuple[Stretch, list[Entry]]:
    stretch = Stretch(verified, genesis)
    return stretch, [
        stretch.take(offset, 1000 * offset, len(value), decode_record(value))
        for offset, value in enumerate(values)
    ]


def _told(values: list[bytes], *, genesis: Head | None = GENESIS) -> list[tuple[Mark, bool | None]]:
    stretch, entries = _judged(values, genesis=genesis)
    return [(entry.mark, stretch.counts(entry)) for entry in entries]


def test_from_the_start_everything_that_links_is_proven() -> None:
    values, _ = _run(GENESIS, A, 3)
    assert _told(values) == [(Mark.LINKS, True)] * 4


def test_in_the_middle_of_an_incarnation_nothing_is_proven() -> None:
    values, _ = _run(GENESIS, A, 5)
    assert _told(values[2:]) == [(Mark.BEGINS, None)] + [(Mark.LINKS, None)] * 3


def test_a_key_that_a_record_names_proves_what_is_before_it_and_behind_it() -> None:
    first, head = _run(GENESIS, A, 3)
    second, _ = _run(head, B, 2)
    assert _told(first[2:] + second) == [(Mark.BEGINS, True)] + [(Mark.LINKS, True)] * 4


def test_a_key_alone_proves_nothing() -> None:
    first, head = _run(GENESIS, A, 3)
    key, _ = _key(head, B)
    assert _told([*first[3:], key]) == [(Mark.BEGINS, None), (Mark.LINKS, None)]


def test_the_late_words_of_a_fenced_producer_are_strays() -> None:
    first, head = _run(GENESIS, A, 2)
    second, _ = _run(head, B, 2)
    late, late_head = _data(head, b"late")
    later, _ = _data(late_head, b"later")
    told = _told([*first, second[0], late, later, *second[1:]])
    assert told[4:6] == [(Mark.STRAY, False)] * 2
    assert told[6:] == [(Mark.LINKS, True)] * 2


def test_a_stray_whose_root_was_not_read_is_outdone_by_a_proven_chain() -> None:
    _, head = _run(GENESIS, A, 2)
    second, _ = _run(head, B, 3)
    late, _ = _data(head, b"late")
    told = _told([second[0], late, *second[1:]], genesis=None)
    assert told == [(Mark.BEGINS, True), (Mark.BEGINS, False)] + [(Mark.LINKS, True)] * 3


def test_copies_forgeries_and_rubbish_do_not_count() -> None:
    values, head = _run(GENESIS, A, 1)
    forged, _ = seal(head, RecordKind.DATA, incarnation=A, signature=b"forged")
    stretch, entries = _judged([*values, values[0], forged])
    rubbish = stretch.take(9, 0, 5, None)
    assert [(entry.mark, stretch.counts(entry), entry.signed) for entry in [*entries[2:], rubbish]] == [
        (Mark.REPEATED, False, True),
        (Mark.UNSIGNED, False, False),
        (Mark.MALFORMED, False, False),
    ]


def test_a_record_that_names_another_but_does_not_follow_it_is_a_stray() -> None:
    values, head = _run(GENESIS, A, 1)
    skipping, _ = _data(head._replace(sequence=head.sequence + 5))
    assert _told([*values, skipping])[-1] == (Mark.STRAY, False)
    foreign, _ = seal(head, RecordKind.DATA, incarnation=C)
    assert _told([*values, foreign])[-1] == (Mark.STRAY, False)


def test_the_newest_is_the_end_of_the_chain_that_goes_on() -> None:
    first, head = _run(GENESIS, A, 4)
    second, end = _run(head, B, 2)
    late, _ = _data(head, b"late")
    stretch, _ = _judged([*first[2:], *second, late], genesis=None)
    newest = stretch.newest()
    assert newest is not None
    assert (newest.head, newest.offset, newest.timestamp_ms, newest.proven) == (end, 5, 5000, True)


def test_an_unproven_longer_chain_beats_a_lonely_record() -> None:
    values, end = _run(GENESIS, A, 6)
    elsewhere = GENESIS._replace(hash=hashlib.sha256(b"elsewhere").digest(), sequence=90, incarnation=C)
    lonely, _ = _data(elsewhere)
    stretch, _ = _judged([*values[3:], lonely], genesis=None)
    newest = stretch.newest()
    assert newest is not None
    assert newest.head == end


def test_nothing_signed_has_no_newest() -> None:
    stretch = Stretch(verified, GENESIS)
    assert stretch.newest() is None
    stretch.take(0, 0, 3, None)
    assert stretch.newest() is None


def test_bodies_are_not_kept() -> None:
    values, _ = _run(GENESIS, A, 1)
    _, entries = _judged(values)
    assert all(entry.record is not None and entry.record.body == b"" for entry in entries)


def test_a_stretch_without_end_remembers_a_bounded_number() -> None:
    stretch = Stretch(verified, GENESIS)
    value, head = _key(GENESIS, A)
    first = decode_record(value)
    stretch.take(0, 0, 1, first)
    for offset in range(1, 9000):
        value, head = _data(head)
        entry = stretch.take(offset, 0, 1, decode_record(value))
        assert entry.mark is Mark.LINKS
    assert len(stretch._seen) <= 8192
    assert stretch.counts(entry) is True
