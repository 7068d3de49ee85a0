"""The benchmarks that take too long for a test: they can be started, and what they need is there."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks import bridging, capacity, delay, idle, pgbench, snapshot
from deploy.lab.registries_file import read_registries


@pytest.mark.parametrize("command", [bridging.main, delay.main, idle.main, pgbench.main, snapshot.main])
def test_a_benchmark_explains_itself(command: click.Command) -> None:
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0, done.output


def test_each_load_of_the_bridge_has_a_registry() -> None:
    registries = read_registries(Path(bridging.__file__).with_name("bridging.toml"))
    assert {load.name for load in bridging.LOADS} == set(registries)


def test_the_capacity_that_is_documented_is_what_the_figures_give() -> None:
    text = (Path(__file__).parents[2] / "docs" / "capacity.md").read_text(encoding="utf-8")
    assert capacity.table() in text
