"""Fixtures for every test come from the plugins of the harness."""

from __future__ import annotations

pytest_plugins = [
    "tests.harness.lab",
    "tests.harness.kafka",
    "tests.harness.pipeline",
    "tests.harness.logs",
    "tests.harness.two_databases",
    "tests.harness.plain_postgres",
]
