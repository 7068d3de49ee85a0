"""``python -m benchmarks.capacity``: from what was measured and what is assumed to what it takes; docs/capacity.md.

No servers: arithmetic, so that each assumption can be replaced.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import click

SUSTAINED = 40_751
"""Changes a second of one stream, small transactions; README, *Measured*."""
MB_A_ROUND_TRIP = 1.8
"""What the bridge moves a round trip and stream, at 200 ms; docs/performance.md."""
IDLE_MS = {"producer": 0.27, "bridge": 0.26, "consumer": 0.36}
"""CPU time of one idle stream's second; docs/performance.md."""
CPU_US = {"producer": 11.5, "bridge": 0.3, "consumer": 1.9}
"""CPU time of one change of a backlog of small transactions; docs/performance.md."""
STREAMS_A_PROCESS = 100
CATCH_UP = 2
"""An outage is caught up within its own length: twice the load while that lasts."""
_DAY = 86_400


class Nation(NamedTuple):
    """What is assumed."""

    name: str
    streams: int
    changes_a_second: float
    """In the busiest hour, all streams."""
    busiest_share: float
    """Of the busiest stream."""
    bytes_a_change: int = 320
    """Single small transactions; benchmarks.stages."""
    days: int = 7
    replicas: int = 3
    mean_of_peak: float = 0.3


class Needs(NamedTuple):
    """What it takes."""

    partitions: int
    processes: int
    """Of each role."""
    cores: dict[str, float]
    busiest_changes_a_second: float
    busiest_share_of_a_stream: float
    """Of what one stream can sustain."""
    border_mbit: float
    disk_gb: float
    """In each cluster."""
    longest_round_trip_ms: float
    """At which the busiest stream still catches up."""


NATIONS = (
    Nation("ten registries of a small nation", 10, 200, 0.4),
    Nation("a nation of 80 million", 10, 200 * 80 / 1.3, 0.4),
    Nation("1,000 databases", 1000, 20_000, 0.01),
)


def needs(nation: Nation) -> Needs:
    """What a nation's registries take, catching up included."""
    rate = nation.changes_a_second * CATCH_UP
    busiest = rate * nation.busiest_share
    return Needs(
        partitions=nation.streams,
        processes=math.ceil(nation.streams / STREAMS_A_PROCESS),
        cores={role: nation.streams * idle / 1000 + rate * CPU_US[role] / 1e6 for role, idle in IDLE_MS.items()},
        busiest_changes_a_second=busiest,
        busiest_share_of_a_stream=busiest / SUSTAINED,
        border_mbit=rate * nation.bytes_a_change * 8 / 1e6,
        disk_gb=nation.changes_a_second
        * nation.mean_of_peak
        * nation.bytes_a_change
        * _DAY
        * nation.days
        * nation.replicas
        / 1e9,
        longest_round_trip_ms=1000 * MB_A_ROUND_TRIP * 1e6 / (busiest * nation.bytes_a_change),
    )


def table() -> str:
    """What follows for each nation, as Markdown."""
    found = [needs(nation) for nation in NATIONS]
    rows = [
        ("", [nation.name for nation in NATIONS]),
        ("topics and partitions, in each cluster", [f"{need.partitions:,}" for need in found]),
        ("processes of each role", [str(need.processes) for need in found]),
        *(
            (f"cores for the {role}s", [f"{need.cores[role]:.2f}" for need in found])
            for role in ("producer", "bridge", "consumer")
        ),
        ("busiest stream, catching up, changes/s", [f"{need.busiest_changes_a_second:,.0f}" for need in found]),
        (
            "of what one stream can sustain",
            [f"{need.busiest_share_of_a_stream:.0%}" for need in found],
        ),
        ("over the border, catching up", [f"{need.border_mbit:.1f} Mbit/s" for need in found]),
        ("disk in each cluster", [f"{need.disk_gb:,.0f} GB" for need in found]),
        (
            "longest round trip for the busiest stream",
            [
                f"{need.longest_round_trip_ms:,.0f} ms" if need.longest_round_trip_ms < 2000 else "over 2 s"
                for need in found
            ],
        ),
    ]
    lines = [f"| {title} | {' | '.join(cells)} |" for title, cells in rows]
    return "\n".join([lines[0], "|---" * (len(NATIONS) + 1) + "|", *lines[1:]])


@click.command()
def main() -> None:
    """Print what follows from the constants of this file; replace them by your own."""
    click.echo(table())


if __name__ == "__main__":
    main()
