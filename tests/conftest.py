"""Fixtures for every test come from the plugins of the harness."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.harness.lab",
    "tests.harness.kafka",
    "tests.harness.pipeline",
    "tests.harness.logs",
    "tests.harness.two_databases",
    "tests.harness.plain_postgres",
]


def pytest_configure() -> None:
    """Let brokers, which live for minutes here, compile quickly rather than well: a start costs 3 s of CPU less.

    And let no property test fail because the machine is busy.
    """
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    # How fast examples are made says something of the machine, beside which brokers start, and nothing of the tests.
    settings.register_profile("beside-brokers", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("beside-brokers")
