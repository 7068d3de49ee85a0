"""Being told to stop wakes whoever waits elsewhere."""

from __future__ import annotations

from embassy.runtime.stop import Stop


def test_whoever_waits_is_woken_when_it_is_set() -> None:
    stop, woken = Stop(), []
    with stop.waking(lambda: woken.append("a")), stop.waking(lambda: woken.append("b")):
        assert not woken
        stop.set()
        assert stop.is_set()
    assert woken == ["a", "b"]


def test_whoever_comes_too_late_is_woken_at_once() -> None:
    stop, woken = Stop(), []
    stop.set()
    with stop.waking(lambda: woken.append("a")):
        assert woken == ["a"]


def test_whoever_has_gone_is_not_called() -> None:
    stop, woken = Stop(), []
    with stop.waking(lambda: woken.append("a")):
        pass
    stop.set()
    assert not woken
