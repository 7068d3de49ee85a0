"""The same work for several registries: what Ctrl-C ends, and what it says."""

from __future__ import annotations

import _thread
import threading
from typing import Any, NamedTuple

import click
import pytest

from embassy.cli import together


class _Registry(NamedTuple):
    name: str


def test_ctrl_c_says_what_it_waits_for_and_begins_with_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    said: list[str] = []
    heard = threading.Event()

    def work(registry: _Registry) -> None:
        begun.append(registry.name)
        _thread.interrupt_main()
        heard.wait(10)

    def echo(text: str, **_options: Any) -> None:
        said.append(text)
        heard.set()

    monkeypatch.setattr(click, "echo", echo)
    registries = [_Registry("land"), _Registry("sea"), _Registry("air")]
    with pytest.raises(KeyboardInterrupt), together.goes_on():
        together.each(registries, work, at_once=1, what="test")
    assert begun == ["land"]
    assert said == [
        "waiting for what is under way to end; Ctrl-C once more does not wait",
        "hint: the same command goes on where it was",
    ]
