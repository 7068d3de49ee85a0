"""Logging, left as it was found."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """For tests that configure logging."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _libraries_may_speak() -> Iterator[None]:
    """A command that was run within the test's process may have silenced them."""
    yield
    logging.getLogger("embassy.kafka").setLevel(logging.NOTSET)
