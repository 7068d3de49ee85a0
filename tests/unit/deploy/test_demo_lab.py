"""Whose lab a demonstration may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.lab.layout import Layout
from deploy.lab.plan import Wish, planned
from deploy.lab.roles import Role, roles
from deploy.lab.waiting import Patience
from embassy.model.errors import RefusedError


def test_a_demonstration_never_takes_a_lab_that_was_made_for_something_else() -> None:
    someones = planned(None, Wish(), "me")
    with pytest.raises(RefusedError, match="not made by the demonstration") as refused:
        planned(someones, Wish(purpose="demo"), "me")
    assert "EMBASSY_LAB_HOME" in refused.value.hint
    own = planned(None, Wish(purpose="demo"), "me")
    assert planned(own, Wish(purpose="demo"), "me") == own
    assert planned(own, Wish(), "me") == own


def test_a_lab_calls_for_one_producer_and_a_bridge_and_a_consumer_of_each_embassy(tmp_path: Path) -> None:
    state = planned(None, Wish(embassies=2), "me")
    found = roles(Layout(tmp_path, tmp_path), state)
    assert [role.name for role in found] == [
        "producer", "bridge embassy-1", "consumer embassy-1", "bridge embassy-2", "consumer embassy-2",
    ]  # fmt: skip
    assert len({role.address for role in found}) == len({role.log for role in found}) == 5


def test_a_role_that_nobody_runs_has_ended(tmp_path: Path) -> None:
    role = Role("producer", tmp_path / "p.toml", "producer", tmp_path)
    assert role.running() == []
    role.end(Patience())
