"""Fixtures for every test come from the plugins of the harness."""

from __future__ import annotations

import os

pytest_plugins = [
    "tests.harness.lab",
    "tests.harness.kafka",
    "tests.harness.pipeline",
    "tests.harness.logs",
    "tests.harness.two_databases",
    "tests.harness.plain_postgres",
]


def pytest_configure() -> None:
    """Let brokers, which live for minutes here, compile quickly rather than well: a start costs 3 s of CPU less."""
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
