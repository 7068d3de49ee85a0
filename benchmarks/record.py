"""``python -m benchmarks.record FILE``: a run's results, read back from their JSON file, as a table of Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

W4 = "w4"
NAMES = ("ours", "native", "chain")
TITLES = {
    "ours": "data-embassy",
    "native": "PostgreSQL's own",
    "chain": "Debezium, MirrorMaker 2",
    "w1": "W1, small transactions",
    "w2": "W2, one transaction of inserts",
    "w3": "W3, one transaction of updates",
    "w5": "W5, pgbench, scale 1",
    "w6": "W6, pgbench, scale 50",
    "w7": "W7, wide rows",
    "w8": "W8, a table without a key",
}
"""By contestant, and by workload."""
_SHORT = {"native": "PostgreSQL's", "chain": "Debezium's"}


def workloads(found: Mapping[str, Any]) -> list[str]:
    """The backlogs that were measured."""
    return list(found["cpu_us_per_change"])


def contestants(found: Mapping[str, Any]) -> list[str]:
    """Those that took part."""
    return [name for name in NAMES if name in found["tables_equal"]]


def cpu(found: Mapping[str, Any], name: str, workload: str) -> dict[str, float]:
    """What a change cost a contestant, µs of CPU, by part."""
    prefix = "" if name == NAMES[0] else f"{name}_"
    parts: dict[str, float] = found[f"{prefix}cpu_us_per_change"][workload]
    return parts


def costs(found: Mapping[str, Any], name: str, workload: str) -> list[float]:
    """The same of its own processes, of the brokers and of the databases."""
    parts = cpu(found, name, workload)
    servers = [sum(us for part, us in parts.items() if part.startswith(kind)) for kind in ("kafka", "postgres")]
    return [sum(parts.values()) - sum(servers), *servers]


def memory(found: Mapping[str, Any], name: str, workload: str) -> list[float]:
    """The peak of each of a contestant's own processes that a workload used, in MiB."""
    return [found["rss_peak_mb"][part] for part in cpu(found, name, workload) if part in found["rss_peak_mb"]]


def bytes_over_the_border(found: Mapping[str, Any], name: str, workload: str) -> float | None:
    """What the embassy's broker stores of a change; none of a contestant that uses no broker."""
    prefix = "" if name == NAMES[0] else f"{name}_"
    hops: Mapping[str, float] = found.get(f"{prefix}bytes_per_change", {}).get(workload, {})
    return hops.get("foreign topic")


def markdown(found: Mapping[str, Any]) -> str:
    """The results as a table, its first line the heading."""
    names = contestants(found)
    heading = ["", *(TITLES[name] for name in names), *(f"ratio to {_SHORT[name]}" for name in names[1:])]
    rows = [heading, ["---"] * len(heading), *_rows(found, names)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _rows(found: Mapping[str, Any], names: list[str]) -> Iterator[list[str]]:
    for workload in workloads(found):
        rates = [found[workload][name] for name in names]
        yield [f"{TITLES[workload]}, changes/s", *(f"{rate:,}" for rate in rates), *_by(rates)]
    for workload in workloads(found):
        sums = [sum(costs(found, name, workload)) for name in names]
        split = [" + ".join(f"{part:,.0f}" for part in costs(found, name, workload)) for name in names]
        each = (f"{total:,.0f} ({parts})" for total, parts in zip(sums, split, strict=True))
        yield [f"{workload.upper()}, CPU a change, µs (own processes + brokers + databases)", *each, *_by(sums)]
    for workload in workloads(found):
        sizes = [bytes_over_the_border(found, name, workload) for name in names]
        shown = ("" if size is None else f"{size:,.0f}" for size in sizes)
        yield [f"{workload.upper()}, over the border, bytes a change", *shown, *_by(sizes)]
    if W4 in found:
        for quantile in ("p50", "p95", "p99"):
            waits = [found[W4][name][f"{quantile}_ms"] for name in names]
            yield [f"W4, commit to visible, {quantile}, ms", *(f"{wait:,.1f}" for wait in waits), *_by(waits)]
        torn = (found[W4]["torn"][name] for name in names)
        yield [
            "W4, looks that saw a part of a transaction",
            *(f"{each['torn']:,} of {each['looks']:,}" for each in torn),
            *[""] * (len(names) - 1),
        ]
    if backlogs := workloads(found):
        used = [memory(found, name, backlogs[0]) for name in names]
        yield [
            "most memory of its own processes, MiB",
            *(f"{sum(each):,.0f} ({' + '.join(f'{mb:,.0f}' for mb in each)})" if each else "" for each in used),
            *_by([sum(each) for each in used]),
        ]
    yield [
        "tables equal at the end",
        *(f"{_equal(found, name)} of {len(found['tables_equal'][names[0]])}" for name in names),
        *[""] * (len(names) - 1),
    ]


def _equal(found: Mapping[str, Any], name: str) -> int:
    return len(found["tables_equal"][name])


def _by(values: list[Any]) -> list[str]:
    """The first by each other one."""
    own, *others = values
    return [f"{own / other:.2f}" if own and other else "" for other in others]


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(*, file: Path) -> None:
    """Print FILE's results as a table for docs/performance.md."""
    click.echo(markdown(json.loads(file.read_text(encoding="utf-8"))), nl=False)


if __name__ == "__main__":
    main()
