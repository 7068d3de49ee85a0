"""What a person who approves a plan is shown."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from embassy.cli.promote_screen import show_terms
from tests.unit.wire.test_promotion_documents import PLAN


@pytest.mark.parametrize(
    ("expires_at", "shown"), [(4_070_952_000, "2099-01-01T12:00:00Z"), (1 << 62, "9999-12-31")]
)
def test_which_stream_until_which_day_and_whose_word_the_report_will_be(expires_at: int, shown: str) -> None:
    (stream,) = PLAN.streams
    plan = replace(PLAN, streams=(stream._replace(expires_at=expires_at),))
    out = io.StringIO()
    show_terms(Console(file=out, width=200), plan, frozenset({"Anna"}))
    for part in (f"until {shown}", stream.stream.hex(), plan.identity.id.hex()):
        assert part in out.getvalue()
