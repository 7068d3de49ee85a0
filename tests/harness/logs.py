"""Logging, left as it was found."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that is run within the test's process sets up logging, to a stderr that ends with the test."""
    root, kafka = logging.getLogger(), logging.getLogger("embassy.kafka")
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    kafka.setLevel(logging.NOTSET)
    if structlog.is_configured():
        structlog.reset_defaults()
