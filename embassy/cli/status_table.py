"""A look at the streams, as lines for people: a table, and below it what is amiss and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from embassy.cli.status_report import Thresholds
from embassy.model.health import Condition, State
from embassy.model.look import Look, Observed, Problem
from embassy.model.look_words import UNKNOWN, Shade, differing_of, remedy_of, told_of, verified_of
from embassy.model.measures import Behind
from embassy.model.observation import Side
from embassy.model.wording import instant, printable, printable_lines, size, span

_TITLES = ("REGISTRY", "STATE", "EPOCH", "WAL-LAG", "BRIDGE-LAG", "APPLY-LAG", "LAG", "RPO≤", "VERIFIED")
_COLOURS = {
    State.FOLLOWING: "green",
    State.CARRYING: "green",
    State.PUBLISHING: "green",
    State.DELAYED: "cyan",
    State.FROZEN: "bold red",
    State.CATCHING_UP: "yellow",
    State.SNAPSHOTTING: "yellow",
    State.PROVISIONING: "yellow",
    State.STALLED: "red",
    State.PROMOTING: "bold red",
    State.PROMOTED: "bold cyan",
    State.FENCED: "bold cyan",
    State.BROKEN: "bold red",
    State.UNKNOWN: "magenta",
}
_SHADES = {Shade.GOOD: "green", Shade.DOUBTFUL: "yellow", Shade.BAD: "bold red", Shade.UNKNOWN: ""}
_WHICH_ROWS = "embassy verify status --keys"
_GAP = "  "


def lines(look: Look, thresholds: Thresholds, *, config: str = "") -> list[Text]:
    """The whole report. ``config`` is the file to name in commands."""
    return [
        Text(_heading(look), style="dim"),
        *_table(look),
        *_notes(look, thresholds, config),
        *(_problem(problem) for problem in look.problems),
    ]


def _heading(look: Look) -> str:
    sides = ", ".join(side.value for side in Side if side in look.sides) or "nothing"
    skews = [entry.health.measures.skew_seconds for entry in look.streams]
    skew = max((skew for skew in skews if skew is not None), key=abs, default=None)
    told = "?" if skew is None else f"{round(skew, 2) + 0.0:+.2f}s"
    return (
        f"OBSERVED {instant(look.observed_at, now=look.observed_at)} at {look.site} · sees {sides} · skew {told}"
    )


def _table(look: Look) -> Iterator[Text]:
    rows = [_TITLES, *(_row(entry) for entry in look.streams)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    for row, entry in zip(rows, (None, *look.streams), strict=True):
        line = Text()
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            style = "" if entry is None else _style(entry, column)
            line.append(cell.ljust(width) if column < len(row) - 1 else cell, style=style)
            line.append(_GAP if column < len(row) - 1 else "")
        if entry is None:
            line.stylize("bold")
        yield line


def _row(entry: Observed) -> tuple[str, ...]:
    measures = entry.health.measures
    return (
        entry.registry,
        entry.health.state.value,
        UNKNOWN if measures.epoch is None else str(measures.epoch),
        _bytes(measures.wal_lag_bytes),
        _behind(measures.bridge),
        _behind(measures.apply),
        _seconds(measures.lag_seconds),
        _seconds(measures.rpo_seconds),
        verified_of(entry).words,
    )


def _style(entry: Observed, column: int) -> str:
    if column == 1:
        return _COLOURS[entry.health.state]
    return _SHADES[verified_of(entry).shade] if _TITLES[column] == "VERIFIED" else ""


def _notes(look: Look, thresholds: Thresholds, config: str) -> Iterator[Text]:
    for entry in look.streams:
        health = entry.health
        style = "" if health.state.healthy else _COLOURS[health.state]
        lead = "note" if health.state.healthy else "!"
        for cause in health.causes:
            if cause.condition is Condition.UNKNOWN and look.problems and len(health.causes) == 1:
                continue  # the problem itself is told below, and explains nothing else
            told = told_of(entry, cause) if cause is health.cause else f"also ({cause.stage.value}) {cause.text}"
            # reasons and names are the words of whoever may freeze a stream, or make a table
            words = printable(f"{lead} {entry.registry}: {told} → {remedy_of(entry, cause.remedy, config)}")
            yield Text(words, style=style)
        if differing := differing_of(entry):
            words = printable(f"! {entry.registry}: {differing} → {remedy_of(entry, _WHICH_ROWS, config)}")
            yield Text(words, style="bold red")
        for complaint in thresholds.exceeded(entry):
            yield Text(f"! {entry.registry}: {complaint}", style="red")


def _problem(problem: Problem) -> Text:
    error = problem.error
    where = problem.side.value if problem.side is not None else "enrolment"
    of = f" of {problem.registry}" if problem.registry else ""
    place = f" [{error.place}]" if error.place else ""
    hint = f" → {error.hint}" if error.hint else ""
    return Text(printable_lines(f"? {where}{of} not seen: {error.args[0]}{place}{hint}"), style="magenta")


def _behind(behind: Behind) -> str:
    """Records that move no position (parts of a large transaction) are told as records."""
    if behind.records and not behind.size:
        return f"{behind.records} rec"
    return _bytes(behind.size)


def _bytes(count: int | None) -> str:
    return UNKNOWN if count is None else size(count)


def _seconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else span(seconds)
