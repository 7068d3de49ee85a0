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

from benchmarks import native, ours
from benchmarks.contest import W4, Results
from benchmarks.latency import Latency
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
    """Medians of what counts; ``ratio`` is ours by native's, so more is better but for latency."""
    found: dict[str, Any] = {}
    for workload in _backlogs(results):
        own, other = (median(_rates(results, workload, name)) for name in (ours.NAME, native.NAME))
        found[workload] = {"ours": round(own), "native": round(other), "ratio": round(own / other, 3)}
    if results.responses:
        both = {name: _latency(results, name) for name in (ours.NAME, native.NAME)}
        found[W4] = {
            **both,
            "ratio": round(both[ours.NAME]["p50_ms"] / both[native.NAME]["p50_ms"], 2),
            "histogram_ms": {name: _histogram(results, name) for name in (ours.NAME, native.NAME)},
            "p99_ratio": round(both[ours.NAME]["p99_ms"] / both[native.NAME]["p99_ms"], 2),
            "cpu_us_per_transaction": _medians(
                response.cpu_us_per_transaction for response in results.counted_responses(ours.NAME)
            ),
        }
    return {
        **found,
        "cpu_us_per_change": {w: _medians(_cpu(results, w, ours.NAME)) for w in _backlogs(results)},
        "native_cpu_us_per_change": {w: _medians(_cpu(results, w, native.NAME)) for w in _backlogs(results)},
        "rss_peak_mb": {name: round(value, 1) for name, value in results.peak_rss_mb.items()},
        "bytes_per_change": {
            w: _medians(
                c.bytes_per_change for c in results.catch_ups if (c.workload, c.contestant) == (w, ours.NAME)
            )
            for w in _backlogs(results)
        },
        "rounds": rounds,
        "sizes": sizes._asdict(),
        "tables_equal": results.tables,
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "python": platform.python_version(),
            "postgres": POSTGRES_VERSIONS[postgres],
            "kafka": KAFKA_VERSION,
        },
        "measurements": results.measurements(),
    }


def write_json(report: Mapping[str, Any], path: Path) -> None:
    """Write the file that BENCH_JSON names."""
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def show(results: Results, report: Mapping[str, Any], console: Console) -> None:
    """Print what was found."""
    console.print(_contest_table(results, report))
    console.print(_cost_table(report))
    console.print(
        f"Tables compared after every round, all equal: {sum(map(len, results.tables.values()))}. "
        f"Others on this machine took {_foreign(results)} cores meanwhile."
    )


def _contest_table(results: Results, report: Mapping[str, Any]) -> Table:
    table = Table(title=f"data-embassy and native logical replication, {report['rounds']} rounds in turn")
    table.add_column("", no_wrap=True)
    for heading in ("ours", "from to", "native", "from to", "ratio", "counted"):
        table.add_column(heading, justify="right", no_wrap=True)
    for workload in _backlogs(results):
        table.add_row(
            _TITLES[workload],
            *_compared([_rates(results, workload, name) for name in (ours.NAME, native.NAME)], ",.0f"),
        )
    if results.responses:
        latencies = [_latencies(results, name) for name in (ours.NAME, native.NAME)]
        for quantile in ("p50", "p95", "p99"):
            found = [[getattr(latency, quantile) for latency in of_one] for of_one in latencies]
            table.add_row(f"W4 commit to visible, {quantile}, ms", *_compared(found, ".1f"))
    return table


def _compared(both: list[list[float]], spec: str) -> list[str]:
    own, other = both
    return [
        f"{median(own):{spec}}",
        _range(own, spec),
        f"{median(other):{spec}}",
        _range(other, spec),
        f"{median(own) / median(other):.2f}",
        f"{len(own)} + {len(other)}",
    ]


def _cost_table(report: Mapping[str, Any]) -> Table:
    workloads = list(report["cpu_us_per_change"])
    table = Table(title="What a change costs")
    table.add_column("", no_wrap=True)
    for heading in (*workloads, "most memory, MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    cpu, native_cpu = report["cpu_us_per_change"], report["native_cpu_us_per_change"]
    parts = list(cpu[workloads[0]]) if workloads else []
    for part in parts:
        rss = report["rss_peak_mb"].get(part)
        table.add_row(
            f"ours, {part}, µs of CPU", *(f"{cpu[w][part]:.1f}" for w in workloads), f"{rss:.0f}" if rss else ""
        )
    if workloads:
        roles = [sum(cpu[w][role] for role in ROLES) for w in workloads]
        table.add_row("ours, the three roles, µs of CPU", *(f"{value:.1f}" for value in roles), "")
        table.add_section()
    for part in native_cpu[workloads[0]] if workloads else ():
        table.add_row(f"native, {part}, µs of CPU", *(f"{native_cpu[w][part]:.1f}" for w in workloads), "")
    table.add_section()
    hops = report["bytes_per_change"]
    for hop in hops[workloads[0]] if workloads else ():
        table.add_row(f"ours, {hop}, bytes", *(f"{hops[w][hop]:.1f}" for w in workloads), "")
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


def _medians(of: Iterable[Mapping[str, float]]) -> dict[str, float]:
    all_of = list(of)
    return {name: round(median(each[name] for each in all_of), 2) for name in all_of[0]} if all_of else {}


def _foreign(results: Results) -> str:
    return _range(
        [c.foreign_cores for c in results.catch_ups] + [r.foreign_cores for r in results.responses], ".2f"
    )


def _range(values: Sequence[float], spec: str) -> str:
    return f"{min(values):{spec}} to {max(values):{spec}}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
