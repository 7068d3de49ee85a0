from __future__ import annotations

from typing import Any

import pytest

from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.pg.replication_session import SourceIdentity
from producers.continuity import check_continuity

GOOD: dict[str, Any] = {
    "last": SourceIdentity(7, 1),
    "now": SourceIdentity(7, 1),
    "resume_lsn": Lsn(100),
    "confirmed_lsn": Lsn(90),
    "flushed_lsn": Lsn(200),
    "switch_points": {},
    "slot": "embassy_x",
}


def test_the_same_source_goes_on() -> None:
    check_continuity(**GOOD)


def test_a_stream_without_records_begins() -> None:
    check_continuity(**GOOD | {"last": None})


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
