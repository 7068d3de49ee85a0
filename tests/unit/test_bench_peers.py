"""The chain of other people's parts in the benchmark, as far as it needs no servers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks import __main__ as bench
from benchmarks import chain, chain_settings, native, ours
from benchmarks.contest import CatchUp, Response, Results
from benchmarks.java_clients import properties
from benchmarks.java_programs import only
from benchmarks.jvm import root_cause
from benchmarks.latency import Latency, is_torn
from benchmarks.plots import plots
from benchmarks.record import markdown
from benchmarks.report import as_json, show
from benchmarks.workloads import QUICK
from embassy.model.errors import ConfigurationError

SVG = "{http://www.w3.org/2000/svg}"
TLS = {"sslmode": "verify-full", "sslkey": "/keys/owner.pk8"}


def latency(p50: float, *, torn: int) -> Latency:
    return Latency(p50, 2 * p50, 3 * p50, 4 * p50, 150, 100.0, {"64": 100, "inf": 50}, looks=900, torn=torn)


def results(contestants: Sequence[str]) -> Results:
    found = Results()
    for index, name in enumerate(contestants):
        found.catch_ups.append(
            CatchUp(
                name,
                "w1",
                0,
                1200,
                1.0,
                2.0 * (index + 1),
                {f"{name} part": 10.0},
                {"foreign topic": 60.0},
                0.1,
                0.0,
            )
        )
        found.responses.append(
            Response(name, 0, latency(10.0 * (index + 1), torn=7 * index), {"part": 1.0}, 0.3, 0.0)
        )
        found.tables[name] = {"person": 5}
    return found


def test_a_third_contestant_adds_to_the_results_and_changes_none() -> None:
    two = as_json(results([ours.NAME, native.NAME]), QUICK, rounds=1, postgres="18")
    three = as_json(results([ours.NAME, native.NAME, chain.NAME]), QUICK, rounds=1, postgres="18")
    assert two["w1"] == {"ours": 600, "native": 300, "ratio": 2.0}
    assert three["w1"] == {**two["w1"], "chain": 200, "chain_ratio": 3.0}
    for key, value in two["w4"].items():
        if isinstance(value, dict):
            assert value.items() <= three["w4"][key].items()
        else:
            assert value == three["w4"][key]
    assert three["w4"]["chain"]["p50_ms"] == 30
    assert three["w4"]["chain_ratio"] == pytest.approx(0.33)
    assert three["w4"]["torn"] == {
        "ours": {"looks": 900, "torn": 0},
        "native": {"looks": 900, "torn": 7},
        "chain": {"looks": 900, "torn": 14},
    }
    assert three["chain_cpu_us_per_change"] == {"w1": {"chain part": 10.0}}
    assert three["chain_bytes_per_change"] == {"w1": {"foreign topic": 60.0}}
    assert two.keys() <= three.keys()


@pytest.mark.parametrize("names", [[ours.NAME, native.NAME], [ours.NAME, native.NAME, chain.NAME]])
def test_what_was_found_is_told_of_everyone(names: list[str]) -> None:
    found = results(names)
    found.different = {names[-1]: ["round 1: person, 5 rows at the source, 4 at the replica"]}
    for catch_up in found.catch_ups:
        catch_up.cpu_us_per_change.update(dict.fromkeys(("producer", "bridge", "consumer"), 1.0))
    said = Console(file=StringIO(), width=200)
    show(found, as_json(found, QUICK, rounds=1, postgres="18"), said)
    assert isinstance(said.file, StringIO)
    text = said.file.getvalue()
    for name in names:
        assert f"{name} part" in text
    assert "4 at the replica" in text
    assert "600" in text


def test_each_table_that_the_source_publishes_has_one_sink() -> None:
    sinks = chain_settings.sinks(port=1, user="owner", tls=TLS, registry="http://127.0.0.1:2")
    topics = [topic for sink in sinks for topic in sink["topics"].split(",")]
    assert sorted(topics) == sorted(map(chain_settings.topic, chain_settings.TABLES))
    (by_array,) = (sink for sink in sinks if "dialect.postgres.unnest.insert.enabled" in sink)
    assert chain_settings.topic("person") not in by_array["topics"]
    assert len({sink["name"] for sink in sinks}) == len(sinks)


def test_nothing_in_the_chain_speaks_without_tls() -> None:
    home, embassy = ({"bootstrap.servers": name, "security.protocol": "SSL"} for name in ("home", "embassy"))
    worker = chain_settings.worker(home, port=1, plugins="/plugins", offsets="/offsets", compression="lz4")
    mirror = chain_settings.mirror(home, embassy)
    for settings in (worker, mirror):
        clients = {
            name.removesuffix("bootstrap.servers") for name in settings if name.endswith("bootstrap.servers")
        }
        assert clients
        assert all(settings[f"{client}security.protocol"] == "SSL" for client in clients)
    source = chain_settings.source(port=1, user="producer", tls=TLS, registry="http://127.0.0.1:2")
    assert source["database.sslmode"] == "verify-full"
    (url,) = {
        sink["connection.url"]
        for sink in chain_settings.sinks(port=1, user="owner", tls=TLS, registry="http://127.0.0.1:2")
    }
    assert "sslmode=verify-full" in url
    assert "sslkey=/keys/owner.pk8" in url


def test_bytes_and_headers_pass_the_mirror_as_they_are() -> None:
    mirror = chain_settings.mirror({}, {})
    assert {mirror[f"{part}.converter"].rpartition(".")[2] for part in ("key", "value", "header")} == {
        "ByteArrayConverter"
    }


def test_a_backslash_survives_a_properties_file() -> None:
    assert properties({"topics": r"chain\.public\..*"}) == "topics=chain\\\\.public\\\\..*\n"


@pytest.mark.parametrize(
    ("newest", "code", "torn"),
    [
        (99, None, False),
        (100, "W4.0:000000001", False),
        (100, None, True),
        (99, "W4.0:000000001", True),
        (141, "W4.0:000000042", False),
        (141, "W4.0:000000041", True),
    ],
)
def test_a_look_is_torn_when_one_table_is_ahead_of_the_other(newest: int, code: str | None, *, torn: bool) -> None:
    assert is_torn(100, newest, code) == torn


def test_a_failed_task_is_told_by_its_last_cause() -> None:
    trace = "org.Outer: it failed\n\tat org.A\nCaused by: org.Middle: because\n\tat org.B\nCaused by: org.Inner: no row\n"
    assert root_cause(trace) == "org.Inner: no row"
    assert root_cause("org.Outer: it failed\n\tat org.A\n") == "org.Outer: it failed"
    assert root_cause("") == "no trace"


def test_an_artifact_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"two\.jar"):
        only([Path("one.jar"), Path("two.jar")], tmp_path)


def test_workloads_that_a_sink_cannot_do_are_refused_before_anything_starts() -> None:
    done = CliRunner().invoke(bench.main, ["--peers", "--workload", "w8"])
    assert done.exit_code == 2
    assert "a sink needs a key" in done.output


def test_the_drawings_and_the_table_that_are_documented_are_what_the_results_give() -> None:
    docs = Path(__file__).parents[2] / "docs"
    file = docs / "plots" / "peers.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    text = (docs / "performance.md").read_text(encoding="utf-8")
    assert markdown(found) in text
    drawn = plots(found)
    assert set(drawn) == {"rate", "cpu", "bytes", "latency"}
    for kind, drawing in drawn.items():
        target = file.with_name(f"peers-{kind}.svg")
        assert target.read_text(encoding="utf-8") == drawing, (
            "run python -m benchmarks.plots docs/plots/peers.json"
        )
        assert f"plots/{target.name}" in text


def bars(drawing: str) -> list[float]:
    """The widths of what is filled, in order."""
    return [float(bar.get("width", "")) for bar in ET.fromstring(drawing).iter(f"{SVG}rect")]


def test_bars_are_as_long_as_what_they_show() -> None:
    found = as_json(results([ours.NAME, native.NAME, chain.NAME]), QUICK, rounds=1, postgres="18")
    drawn = plots(found)
    most, half, third = bars(drawn["rate"])
    assert half == pytest.approx(most / 2, abs=0.1)
    assert third == pytest.approx(most / 3, abs=0.1)
    shares = list(ET.fromstring(drawn["latency"]).iter(f"{SVG}rect"))
    assert [bar.findtext(f"{SVG}title") for bar in shares[:2]] == [
        "66.7% took up to 64 ms",
        "33.3% took longer than any other",
    ]
    assert float(shares[0].get("height", "")) == pytest.approx(2 * float(shares[1].get("height", "")), abs=0.1)


def test_a_part_that_cost_nothing_is_not_drawn() -> None:
    found = as_json(results([ours.NAME, native.NAME]), QUICK, rounds=1, postgres="18")
    found["cpu_us_per_change"]["w1"] = {"producer": 6.0, "kafka home": 0.0, "postgres home": 3.0}
    found["native_cpu_us_per_change"]["w1"] = {"postgres home": 3.0}
    *legend, own, database, native_database = bars(plots(found)["cpu"])
    assert len(legend) == 3
    assert own == pytest.approx(2 * database, abs=0.1)
    assert native_database == pytest.approx(database, abs=0.1)


def test_a_table_of_results_sets_ours_in_relation_to_each_other() -> None:
    found = as_json(results([ours.NAME, native.NAME, chain.NAME]), QUICK, rounds=1, postgres="18")
    rates = next(line for line in markdown(found).splitlines() if "changes/s" in line)
    assert rates == "| W1, small transactions, changes/s | 600 | 300 | 200 | 2.00 | 3.00 |"
    assert "| 0 of 900 | 7 of 900 | 14 of 900 |" in markdown(found)
