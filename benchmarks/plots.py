"""``python -m benchmarks.plots FILE...``: what a benchmark found, as drawings beside its JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import svg
from benchmarks.record import NAMES, TITLES, W4, bytes_over_the_border, costs, workloads

_WIDTH = 760
_LEFT = 214
_RIGHT = 90
_ROOM = _WIDTH - _LEFT - _RIGHT
_BAR, _STEP, _GAP = 18, 24, 34
_TOP = 58
_LAYERS = ("its own processes", "Kafka", "PostgreSQL")
_HISTOGRAM_HEIGHT = 84
_Row = tuple[str, Sequence[float]]
"""A contestant, and what is stacked in its bar."""


def plots(found: Mapping[str, Any]) -> dict[str, str]:
    """By name, the drawings of a run's results."""
    drawn = {}
    if present := workloads(found):
        drawn["rate"] = _bars(
            "Changes a second from the moment the sender is let go, more is better",
            {w: [(name, [found[w][name]]) for name in NAMES if name in found[w]] for w in present},
            "{:,.0f}",
        )
        drawn["cpu"] = _bars(
            "CPU a change, µs, everything, less is better",
            {w: [(name, costs(found, name, w)) for name in NAMES if name in found[w]] for w in present},
            "{:,.0f}",
            layers=_LAYERS,
        )
        drawn["bytes"] = _bars(
            "Bytes a change over the border, less is better",
            {
                w: [(name, [size]) for name in NAMES if (size := bytes_over_the_border(found, name, w))]
                for w in present
            },
            "{:,.0f}",
        )
    if W4 in found:
        drawn["latency"] = _histograms(found[W4])
    return drawn


def _bars(title: str, groups: Mapping[str, Sequence[_Row]], spec: str, layers: Sequence[str] = ()) -> str:
    """Groups of bars, each group on a scale of its own: what is compared is within it."""
    shapes, y = [svg.text(12, 26, title, "title")], _TOP
    if layers:
        x = float(_LEFT)
        for index, layer in enumerate(layers):
            shapes += [svg.bar((x, 40), (12, 12), f"c1 s{index}", layer), svg.text(x + 18, 51, layer, "quiet")]
            x += 40 + 7 * len(layer)
        y += 16
    for group, rows in groups.items():
        shapes.append(svg.text(12, y + 4, TITLES[group], "head"))
        y += 12
        most = max(sum(values) for _, values in rows)
        for name, values in rows:
            shapes.append(svg.text(_LEFT - 10, y + 14, TITLES[name], anchor="end"))
            x, total = float(_LEFT), spec.format(sum(values))
            for index, value in enumerate(values):
                if not value:
                    continue
                width = _ROOM * value / most
                hint = (
                    f"{TITLES[name]}, {layers[index]}: {spec.format(value)}"
                    if layers
                    else f"{TITLES[name]}: {total}"
                )
                shapes.append(svg.bar((x, y), (width, _BAR), f"c{NAMES.index(name)} s{index}", hint))
                x += width
            shapes.append(svg.text(x + 8, y + 14, total))
            y += _STEP
        y += _GAP - 12
    return svg.drawing(_WIDTH, y, title, shapes)


def _histograms(w4: Mapping[str, Any]) -> str:
    """A histogram of each, above the same buckets, whose bounds grow by about a half."""
    title = "From commit at home to visible in the replica, share of transactions"
    shapes, y = [svg.text(12, 26, title, "title")], float(_TOP)
    names = [name for name in NAMES if name in w4["histogram_ms"]]
    bounds = _shown([w4["histogram_ms"][name] for name in names])
    room = _WIDTH - _LEFT - 20
    width = room / len(bounds)
    for name in names:
        counts = w4["histogram_ms"][name]
        total, most = sum(counts.values()), max(counts.values())
        base = y + _HISTOGRAM_HEIGHT - 14
        shapes += [
            svg.text(_LEFT - 10, base - 34, TITLES[name], "head", "end"),
            svg.text(_LEFT - 10, base - 17, f"half within {w4[name]['p50_ms']:,.1f} ms", "quiet", "end"),
            svg.text(_LEFT - 10, base, f"99 % within {w4[name]['p99_ms']:,.1f} ms", "quiet", "end"),
            svg.line(_LEFT, base, _LEFT + room, base),
        ]
        for index, bound in enumerate(bounds):
            count = counts.get(bound, 0)
            if count:
                height = (_HISTOGRAM_HEIGHT - 24) * count / most
                hint = f"{count / total:.1%} took {_upto(bound)}"
                x = _LEFT + index * width
                kind = f"c{NAMES.index(name)}"
                shapes.append(svg.bar((x + 1, base - height), (width - 2, height), kind, hint))
        y += _HISTOGRAM_HEIGHT
    shapes += [
        svg.text(_LEFT + (index + 1) * width, y + 8, "more" if bound == "inf" else bound, "quiet", "end")
        for index, bound in enumerate(bounds)
        if index % 2 == (len(bounds) - 1) % 2
    ]
    shapes.append(svg.text(_LEFT - 10, y + 8, "up to, ms", "quiet", "end"))
    return svg.drawing(_WIDTH, y + 22, title, shapes)


def _shown(histograms: Sequence[Mapping[str, int]]) -> list[str]:
    """The buckets from the first to the last that anybody has something in."""
    bounds = list(histograms[0])
    used = [index for index, bound in enumerate(bounds) if any(each.get(bound) for each in histograms)]
    return bounds[max(0, used[0] - 1) : used[-1] + 1]


def _upto(bound: str) -> str:
    return "longer than any other" if bound == "inf" else f"up to {bound} ms"


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(*, files: tuple[Path, ...]) -> None:
    """Draw each FILE's results: NAME-rate.svg, NAME-cpu.svg, NAME-bytes.svg and NAME-latency.svg beside it."""
    for file in files:
        for kind, drawn in plots(json.loads(file.read_text(encoding="utf-8"))).items():
            target = file.with_name(f"{file.stem}-{kind}.svg")
            target.write_text(drawn, encoding="utf-8")
            click.echo(target)


if __name__ == "__main__":
    main()
