"""Logging, left as it was found; and what a service says, as it is said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OURS = logging.getLogger("embassy.log")


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.entries: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        entry = {"event": record.getMessage(), "level": record.levelname.lower()}
        raised = {"raised": record.exc_info[1]} if record.exc_info else {}
        self.entries.append(entry | vars(record)["fields"] | raised)


@contextmanager
def captured_logs() -> Iterator[list[dict[str, Any]]]:
    """What is said meanwhile, and nothing of it is shown: event, level, fields and exception of each line."""
    kept = _Kept()
    before = OURS.handlers[:], OURS.level, OURS.propagate
    OURS.handlers[:], OURS.propagate = [kept], False
    OURS.setLevel(logging.DEBUG)
    try:
        yield kept.entries
    finally:
        OURS.handlers[:], level, OURS.propagate = before
        OURS.setLevel(level)


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """For tests that configure logging."""
    before = [(log, log.handlers[:], log.level, log.propagate) for log in (logging.getLogger(), OURS)]
    yield
    for log, handlers, level, propagate in before:
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)


@pytest.fixture(autouse=True)
def _libraries_may_speak() -> Iterator[None]:
    """A command that was run within the test's process may have silenced them."""
    yield
    logging.getLogger("embassy.kafka").setLevel(logging.NOTSET)
