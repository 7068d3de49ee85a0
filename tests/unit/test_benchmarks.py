"""The benchmarks that take too long for a test: they can be started, and what they need is there."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks import bridging, capacity, delay, flat, idle, pgbench, regress, snapshot
from benchmarks.carrying import LOADS
from benchmarks.flat import Sample, slices
from benchmarks.latency import histogram
from deploy.lab.registries_file import read_registries
from embassy.model.errors import ConfigurationError


@pytest.mark.parametrize(
    "command", [bridging.main, delay.main, flat.main, idle.main, pgbench.main, regress.main, snapshot.main]
)
def test_a_benchmark_explains_itself(command: click.Command) -> None:
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0, done.output


def test_regression_scripts_come_in_the_order_of_their_schedule(tmp_path: Path) -> None:
    (tmp_path / "parallel_schedule").write_text(
        "# first\ntest: test_setup\n\n# together\ntest: boolean char\ntest: enum\n"
    )
    assert regress.schedule(tmp_path) == ["test_setup", "boolean", "char", "enum"]
    with pytest.raises(ConfigurationError, match="cannot read the schedule"):
        regress.schedule(tmp_path / "elsewhere")


def test_each_load_of_the_bridge_has_a_registry() -> None:
    registries = read_registries(Path(bridging.__file__).with_name("bridging.toml"))
    assert {load.name for load in LOADS} == set(registries)


def test_the_capacity_that_is_documented_is_what_the_figures_give() -> None:
    text = (Path(__file__).parents[2] / "docs" / "capacity.md").read_text(encoding="utf-8")
    assert capacity.table() in text


def test_a_rate_that_falls_and_memory_that_grows_show_in_the_slices() -> None:
    def at(seconds: float, changes: float, rss: float) -> Sample:
        return Sample(seconds, changes, {"producer": rss}, busy_seconds=2 * seconds)

    samples = [at(0, 0, 50), *(at(second, 10 * second, 60) for second in range(1, 6))]
    samples += [at(5 + second, 50 + 5 * second, 60 + second) for second in range(1, 11)]
    found = slices(samples, 100, 2)
    assert [piece["changes_per_second"] for piece in found] == [10, 5]
    assert [piece["until_changes"] for piece in found] == [50, 100]
    assert [piece["rss_mb"]["producer"] for piece in found] == [60, 70]
    assert [piece["machine_cores_busy"] for piece in found] == [2, 2]


def test_each_wait_is_in_one_bucket_of_the_histogram() -> None:
    found = histogram([0.4, 1.0, 1.1, 30.0, 5000.0])
    assert {bound: count for bound, count in found.items() if count} == {"1": 2, "1.5": 1, "32": 1, "inf": 1}
