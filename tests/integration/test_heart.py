"""The heart is slow where nothing else is committed, and quick again with the first commit."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.harness.pipeline import MakePipeline, Pipeline, poll_until

_SCHEMA = "CREATE TABLE public.t (id integer PRIMARY KEY)"


@pytest.fixture
def pipeline(make_pipeline: MakePipeline) -> Pipeline:
    return make_pipeline(_SCHEMA, {"producer": {"heartbeat_seconds": 0.2, "idle_heartbeat_seconds": 3}})


class _Heart:
    """The heartbeat row at the source."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._last: datetime | None = None
        self.gap = timedelta()

    def seen(self) -> datetime | None:
        row = self._connection.execute("SELECT beat_at FROM embassy.heartbeat").fetchone()
        beat: datetime | None = row[0] if row is not None else None
        if beat != self._last:
            self.gap = beat - self._last if beat is not None and self._last is not None else timedelta()
            self._last = beat
        return beat


def test_an_idle_heart_is_slow_and_a_commit_makes_it_quick(pipeline: Pipeline) -> None:
    pipeline.start("producer")
    with pipeline.source("embassy_admin") as connection:
        heart = _Heart(connection)
        poll_until(lambda: heart.seen() is not None and heart.gap > timedelta(seconds=2), "beats are 3 s apart")
        looked = connection.execute(
            "SELECT clock_timestamp() FROM (SELECT embassy.look_for_large_objects(stream) FROM embassy.stream) looked"
        ).fetchone()
        assert looked is not None
        poll_until(lambda: (heart.seen() or looked[0]) > looked[0], "a beat behind a look")
        assert heart.gap > timedelta(seconds=2), "a look that finds nothing is no reason to be quick"
        connection.execute("INSERT INTO public.t VALUES (1)")
        committed = connection.execute("SELECT clock_timestamp()").fetchone()
        assert committed is not None
        poll_until(lambda: (heart.seen() or committed[0]) > committed[0], "a beat behind the commit", 2)
        poll_until(
            lambda: heart.seen() is not None and timedelta() < heart.gap < timedelta(seconds=1), "quick beats", 10
        )
