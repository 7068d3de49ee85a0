from __future__ import annotations

from failover.waiting import Waiting


def test_a_wait_is_told_every_few_seconds_and_a_short_one_never() -> None:
    now = [100.0]
    told: list[str] = []
    waiting = Waiting(lambda: now[0], told.append)
    for _ in range(13):
        waiting.on(lambda: f"{now[0]:g}")
        now[0] += 1
    assert told == ["105", "110"]
