"""What tests of the command line share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing around says how the product is configured."""
    for name in [name for name in os.environ if name.startswith("EMBASSY_")]:
        monkeypatch.delenv(name)
