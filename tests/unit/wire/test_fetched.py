"""What a broker says beside a record's bytes: nobody has signed it."""

from __future__ import annotations

import pytest
from confluent_kafka import Message

from embassy.model.wording import instant, iso
from embassy.wire.kafka_reader import as_fetched


@pytest.mark.parametrize("claimed_ms", [2**63 - 1, 2**62, 253_402_300_800_000, 1_800_000_000_000, -1, -(2**62)])
def test_a_time_that_no_clock_shows_blinds_nobody_who_looks(claimed_ms: int) -> None:
    message = Message(topic="s", partition=0, offset=7, value=b"x", timestamp=(1, claimed_ms), latency=0.0)
    fetched = as_fetched(message)
    shown = iso(fetched.timestamp_ms / 1000)
    assert instant(fetched.timestamp_ms / 1000, now=1_800_000_000)
    assert (fetched.timestamp_ms == claimed_ms) == (shown == "2027-01-15T08:00:00.000Z")
