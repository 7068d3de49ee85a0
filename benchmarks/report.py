"""The results as a table for people and as one JSON object for scripts."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import chain, native, ours
from benchmarks.contest import W4, Results
from benchmarks.java_programs import DEBEZIUM_VERSION
from benchmarks.latency import Latency
from benchmarks.record import TITLES
from benchmarks.workloads import Sizes
from deploy.lab.artifacts import KAFKA_VERSION, POSTGRES_VERSIONS

ROLES = ("producer", "bridge", "consumer")
_TITLES = {
    "w1": "W1 small transactions, changes/s",
    "w2": "W2 one transaction of inserts, changes/s",
    "w3": "W3 one transaction of updates, changes/s",
    "w5": "W5 pgbench, scale 1 (hot rows), changes/s",
    "w6": "W6 pgbench, scale 50, changes/s",
    "w7": "W7 wide rows, values out of line, changes/s",
    "w8": "W8 a table without a key, changes/s",
}


def as_json(results: Results, sizes: Sizes, *, rounds: int, postgres: str) -> dict[str, Any]:
    """Medians of what counts; ``ratio`` is ours by native's, so more is better but for latency.

    What a third contestant adds bears its name: ``w1.chain`` and ``w1.chain_ratio`` (ours by its own),
    ``chain_cpu_us_per_change``, ``chain_bytes_per_change``.
    """
    names = results.contestants()
    found: dict[str, Any] = {}
    for workload in _backlogs(results):
        rates = {name: median(_rates(results, workload, name)) for name in names}
        found[workload] = {
            **{name: round(rate) for name, rate in rates.items()},
            **_ratios("ratio", rates, digits=3),
        }
    if results.responses:
        found[W4] = _w4(results)
    return {
        **found,
        **{
            f"{_prefix(name)}cpu_us_per_change": {w: _medians(_cpu(results, w, name)) for w in _backlogs(results)}
            for name in names
        },
        **{
            f"{_prefix(name)}bytes_per_change": {w: _medians(_bytes(results, w, name)) for w in _backlogs(results)}
            for name in names
            if name != native.NAME
        },
        "rss_peak_mb": {name: round(value, 1) for name, value in results.peak_rss_mb.items()},
        "rounds": rounds,
        "sizes": sizes._asdict(),
        "tables_equal": results.tables,
        "tables_different": results.different,
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "python": platform.python_version(),
            "postgres": POSTGRES_VERSIONS[postgres],
            "kafka": KAFKA_VERSION,
            **({"debezium": DEBEZIUM_VERSION} if chain.NAME in names else {}),
            "load_average": os.getloadavg(),
            "foreign_cores": _foreign_cores(results),
        },
        "measurements": results.measurements(),
    }


def _w4(results: Results) -> dict[str, Any]:
    names = results.contestants()
    latencies = {name: _latency(results, name) for name in names}
    return {
        **latencies,
        **_ratios("ratio", {name: latency["p50_ms"] for name, latency in latencies.items()}, digits=2),
        **_ratios("p99_ratio", {name: latency["p99_ms"] for name, latency in latencies.items()}, digits=2),
        "histogram_ms": {name: _histogram(results, name) for name in names},
        "torn": {name: _torn(results, name) for name in names},
        **{
            f"{_prefix(name)}cpu_us_per_transaction": _medians(
                response.cpu_us_per_transaction for response in results.counted_responses(name)
            )
            for name in names
        },
    }


def _prefix(contestant: str) -> str:
    return "" if contestant == ours.NAME else f"{contestant}_"


def _ratios(key: str, of: Mapping[str, float], *, digits: int) -> dict[str, float]:
    """Ours by each other's: the bare key is native's."""
    return {
        f"{'' if name == native.NAME else _prefix(name)}{key}": round(of[ours.NAME] / value, digits)
        for name, value in of.items()
        if name != ours.NAME
    }


def write_json(report: Mapping[str, Any], path: Path) -> None:
    """Write the file that BENCH_JSON names."""
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def show(results: Results, report: Mapping[str, Any], console: Console) -> None:
    """Print what was found."""
    console.print(_contest_table(results, report))
    console.print(_cost_table(results, report))
    different = [f"{name}, {table}" for name, tables in results.different.items() for table in tables]
    console.print(
        f"Tables compared after every round, equal at the end: {sum(map(len, results.tables.values()))}. "
        + (f"Different: {'; '.join(different)}. " if different else "All were equal. ")
        + f"Others on this machine took {_foreign(results)} cores meanwhile."
    )


def _contest_table(results: Results, report: Mapping[str, Any]) -> Table:
    names, spread = results.contestants(), report["rounds"] > 1
    table = Table(title=f"{', '.join(map(TITLES.__getitem__, names))}, {report['rounds']} rounds in turn")
    table.add_column("", no_wrap=True)
    for name in names:
        for heading in (name, *(["from to"] if spread else []), *([] if name == ours.NAME else ["ratio"])):
            table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("counted", justify="right", no_wrap=True)
    for workload in _backlogs(results):
        table.add_row(
            _TITLES[workload],
            *_compared([_rates(results, workload, name) for name in names], ",.0f", spread=spread),
        )
    if results.responses:
        latencies = [_latencies(results, name) for name in names]
        for quantile in ("p50", "p95", "p99"):
            found = [[getattr(latency, quantile) for latency in of_one] for of_one in latencies]
            table.add_row(f"W4 commit to visible, {quantile}, ms", *_compared(found, ",.1f", spread=spread))
        torn = [[float(latency.torn) for latency in of_one] for of_one in latencies]
        table.add_row("W4 looks that saw a part of a transaction", *_compared(torn, ",.0f", spread=spread))
    return table


def _compared(of_all: list[list[float]], spec: str, *, spread: bool) -> list[str]:
    own, *_ = of_all
    found = []
    for values in of_all:
        found += [f"{median(values):{spec}}", *([_range(values, spec)] if spread else [])]
        if values is not own:
            found.append(f"{median(own) / median(values):.2f}" if median(values) else "")
    return [*found, " + ".join(str(len(values)) for values in of_all)]


def _cost_table(results: Results, report: Mapping[str, Any]) -> Table:
    workloads = list(report["cpu_us_per_change"])
    table = Table(title="What a change costs")
    table.add_column("", no_wrap=True)
    for heading in (*workloads, "most memory, MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    if not workloads:
        return table
    for name in results.contestants():
        cpu = report[f"{_prefix(name)}cpu_us_per_change"]
        for part in cpu[workloads[0]]:
            rss = report["rss_peak_mb"].get(part)
            table.add_row(
                f"{name}, {part}, µs of CPU",
                *(f"{cpu[w][part]:.1f}" for w in workloads),
                f"{rss:.0f}" if rss else "",
            )
        if name == ours.NAME:
            roles = [sum(cpu[w][role] for role in ROLES) for w in workloads]
            table.add_row(f"{name}, the three roles, µs of CPU", *(f"{value:.1f}" for value in roles), "")
        table.add_row(f"{name}, all, µs of CPU", *(f"{sum(cpu[w].values()):.1f}" for w in workloads), "")
        table.add_section()
        hops = report.get(f"{_prefix(name)}bytes_per_change", {})
        for hop in hops.get(workloads[0], ()):
            table.add_row(f"{name}, {hop}, bytes", *(f"{hops[w][hop]:.1f}" for w in workloads), "")
        table.add_section()
    return table


def _backlogs(results: Results) -> list[str]:
    return list(dict.fromkeys(catch_up.workload for catch_up in results.catch_ups))


def _rates(results: Results, workload: str, contestant: str) -> list[float]:
    return [catch_up.rate for catch_up in results.counted(workload, contestant)]


def _latencies(results: Results, contestant: str) -> list[Latency]:
    return [response.latency for response in results.counted_responses(contestant)]


def _latency(results: Results, contestant: str) -> dict[str, float]:
    latencies = _latencies(results, contestant)
    return {
        f"{name}_ms": round(median(getattr(latency, name) for latency in latencies), 2)
        for name in ("p50", "p95", "p99", "most")
    }


def _histogram(results: Results, contestant: str) -> dict[str, int]:
    """How many transactions took up to so many milliseconds and longer than the bound before; all rounds that count."""
    total: dict[str, int] = {}
    for latency in _latencies(results, contestant):
        for bound, count in latency.histogram.items():
            total[bound] = total.get(bound, 0) + count
    return total


def _cpu(results: Results, workload: str, contestant: str) -> Iterable[Mapping[str, float]]:
    return (catch_up.cpu_us_per_change for catch_up in results.counted(workload, contestant))


def _bytes(results: Results, workload: str, contestant: str) -> Iterable[Mapping[str, float]]:
    return (
        catch_up.bytes_per_change
        for catch_up in results.catch_ups
        if (catch_up.workload, catch_up.contestant) == (workload, contestant)
    )


def _torn(results: Results, contestant: str) -> dict[str, int]:
    latencies = [response.latency for response in results.responses if response.contestant == contestant]
    return {
        "looks": sum(latency.looks for latency in latencies),
        "torn": sum(latency.torn for latency in latencies),
    }


def _medians(of: Iterable[Mapping[str, float]]) -> dict[str, float]:
    all_of = list(of)
    return {name: round(median(each[name] for each in all_of), 2) for name in all_of[0]} if all_of else {}


def _foreign_cores(results: Results) -> list[float]:
    """The least and the most that others took."""
    taken = [c.foreign_cores for c in results.catch_ups] + [r.foreign_cores for r in results.responses]
    return [round(min(taken), 2), round(max(taken), 2)]


def _foreign(results: Results) -> str:
    return _range(_foreign_cores(results), ".2f")


def _range(values: Sequence[float], spec: str) -> str:
    return f"{min(values):{spec}} to {max(values):{spec}}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
