from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from embassy.model.errors import IntegrityError
from embassy.model.incarnation import new_name, says_noted
from embassy.model.lsn import Lsn
from embassy.pg.incarnations import Noted
from embassy.pg.replication_session import SourceIdentity
from producers.continuity import UnknownIncarnationError, check_continuity

NAME = new_name(noted=True)
OLD = Noted((b"\xabcd" * 5, b"\x12\x34" * 8), datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC))

GOOD: dict[str, Any] = {
    "last": SourceIdentity(7, 1),
    "now": SourceIdentity(7, 1),
    "incarnation": NAME,
    "noted": Noted((b"A" * 16, NAME, b"B" * 16), OLD.at),
    "resume_lsn": Lsn(100),
    "confirmed_lsn": Lsn(90),
    "flushed_lsn": Lsn(200),
    "switch_points": {},
    "slot": "embassy_x",
}


def test_the_same_source_goes_on() -> None:
    check_continuity(**GOOD)


def test_a_stream_without_records_begins() -> None:
    check_continuity(**GOOD | {"last": None, "incarnation": bytes(16), "noted": Noted()})


@pytest.mark.parametrize("noted", [Noted(), OLD, Noted(possible=False)])
def test_nothing_follows_from_a_key_that_was_never_noted(noted: Noted) -> None:
    check_continuity(**GOOD | {"incarnation": new_name(noted=False), "noted": noted})


def test_a_promoted_standby_may_lack_the_note() -> None:
    check_continuity(**GOOD | {"now": SourceIdentity(7, 2), "switch_points": {1: Lsn(100)}, "noted": OLD})


@pytest.mark.parametrize(
    ("noted", "words"),
    [
        (OLD, "the last one that it knows is 12341234 of 2026-03-01T04:05:06Z"),
        (Noted(), "it knows no earlier one"),
        (Noted(possible=False), "it knows no earlier one"),
    ],
)
def test_a_source_that_does_not_know_the_newest_key_was_restored(noted: Noted, words: str) -> None:
    with pytest.raises(UnknownIncarnationError, match=words) as caught:
        check_continuity(**GOOD | {"noted": noted})
    assert f"newest data key {NAME.hex()[:8]}, which was noted there" in str(caught.value)
    assert "do not discard it" in (caught.value.hint or "")


def test_names_differ_and_say_whether_they_were_noted() -> None:
    names = [new_name(noted=number % 2 == 0) for number in range(200)]
    assert len(set(names)) == 200
    assert {len(name) for name in names} == {16}
    assert [says_noted(name) for name in names] == [number % 2 == 0 for number in range(200)]


def test_a_standby_promoted_past_the_streams_end_goes_on() -> None:
    check_continuity(**GOOD | {"now": SourceIdentity(7, 3), "switch_points": {1: Lsn(100), 2: Lsn(150)}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"now": SourceIdentity(8, 1)}, "another PostgreSQL cluster"),
        ({"confirmed_lsn": Lsn(101)}, "the slot was recreated"),
        ({"now": SourceIdentity(7, 2), "switch_points": {1: Lsn(99)}}, "promoted at 0/63 of timeline 1"),
        ({"now": SourceIdentity(7, 2), "switch_points": {}}, "does not descend from timeline 1"),
        ({"last": SourceIdentity(7, 2)}, "timeline 1 does not descend from timeline 2"),
        ({"flushed_lsn": Lsn(99)}, "restored from an older state"),
    ],
)
def test_a_source_that_cannot_prove_itself_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        check_continuity(**GOOD | change)
