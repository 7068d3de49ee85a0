"""From what was seen to HTML: a page of sections that can be renewed one by one. The templates escape everything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from console.chart import CELL_SECONDS, HEIGHT, WIDTH, Chart, chart_of
from console.gate import Gate, gate_of
from console.history import SPAN_SECONDS, History
from console.pipeline import HOPS, Hop, hops_of
from console.seen import Seen
from embassy.model.health import Condition, State
from embassy.model.look import Look, Observed, Problem
from embassy.model.look_words import UNKNOWN, Shade, Verified, remedy_of, told_of, verified_of
from embassy.model.observation import Side
from embassy.model.wording import instant, span

SECTIONS = ("verdict", "registries", "operations", "pipeline", "rpo", "changes", "audit")
"""In the page's order; each is a template, and an element's id."""

_GOOD, _DOUBTFUL, _BAD = Shade.GOOD, Shade.DOUBTFUL, Shade.BAD
_SHADES = {
    State.BROKEN: _BAD,
    State.STALLED: _BAD,
    State.FROZEN: _BAD,
    State.PROMOTING: _BAD,
    State.UNKNOWN: Shade.UNKNOWN,
    State.FENCED: _DOUBTFUL,
    State.CATCHING_UP: _DOUBTFUL,
    State.SNAPSHOTTING: _DOUBTFUL,
    State.PROVISIONING: _DOUBTFUL,
    State.PROMOTED: _DOUBTFUL,
    State.DELAYED: _GOOD,
    State.FOLLOWING: _GOOD,
    State.CARRYING: _GOOD,
    State.PUBLISHING: _GOOD,
}
"""Of every state, the worst first: rows stand in this order."""
_ORDER = tuple(_SHADES)
_ICONS = {_GOOD: "✓", _DOUBTFUL: "▲", _BAD: "✖", Shade.UNKNOWN: "?"}
_FIELD_MOST = 300
_NAMED_MOST = 3
_STAMP = 'class="stale stamp"'
"""The mark in each section; hidden while what stands there is fresh."""


class Note(NamedTuple):
    """Something amiss, and what to do."""

    text: str
    command: str
    """To be typed; empty: there is none."""
    otherwise: str
    """What to do besides, or in its place."""


class Row(NamedTuple):
    """One registry."""

    name: str
    anchor: str
    """Of its row, so that focus and order survive a renewal."""
    state: str
    shade: Shade
    icon: str
    lag: str
    rpo: str
    rpo_shade: Shade
    target: str
    verified: Verified
    epoch: str
    gate: Gate
    notes: tuple[Note, ...]
    hops: tuple[Hop, ...]
    chart: Chart


class Unseen(NamedTuple):
    """Places that could not be seen for one reason."""

    what: str
    message: str
    place: str
    """Of the only one; empty if they are several."""
    hint: str


class Page(NamedTuple):
    """What a look is shown as."""

    title: str
    sections: Mapping[str, str]
    """HTML by section; the elements in which they stand are the whole page's."""


class Renderer:
    """Makes pages; the same look and history make the same page."""

    def __init__(self) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("console"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(age=_age, moment=_moment, brief=_brief, details=_details)

    def page(self, seen: Seen, history: History) -> Page:
        """Show a look."""
        now = seen.look.observed_at
        rows = [row for _, row in sorted(_ordered(seen, history))]
        values: dict[str, Any] = {
            "look": seen.look,
            "now": now,
            "rows": rows,
            "seen": seen,
            "sides": ", ".join(side.value for side in Side if side in seen.look.sides) or "nothing",
            "verdict": _verdict(seen.look),
            "unseen": _unseen(seen.look),
            "hop_names": HOPS,
            "history": history,
            "operations": [
                op for desk in seen.desks.values() if not isinstance(desk, str) for op in desk.operations
            ],
            "unasked": sorted(name for name, desk in seen.desks.items() if isinstance(desk, str)),
            "width": WIDTH,
            "height": HEIGHT,
            "cells": [now - SPAN_SECONDS + i * CELL_SECONDS for i in range(int(SPAN_SECONDS / CELL_SECONDS))],
            "icons": _ICONS,
            "unknown": UNKNOWN,
            "state_shades": _SHADES,
        }
        sections = {name: self._templates.get_template(f"{name}.html").render(values) for name in SECTIONS}
        verdict: Verdict = values["verdict"]
        return Page(f"{verdict.icon} {verdict.short} | {seen.look.site}", sections)

    def whole(self, page: Page | None, *, site: str, stale: bool) -> str:
        """A whole document; without a page it says that nothing has been seen yet."""
        sections = page.sections if page is not None else {}
        stale = stale or page is None
        if stale:  # no value can hold this: quotes in values are escaped
            sections = {name: html.replace(f"{_STAMP} hidden", _STAMP) for name, html in sections.items()}
        return self._templates.get_template("page.html").render(
            title=page.title if page is not None else f"? nothing seen yet | {site}",
            sections={name: Markup(sections.get(name, "")) for name in SECTIONS},  # noqa: S704 - escaped when rendered
            empty=page is None,
            stale=stale,
            site=site,
        )


class Verdict(NamedTuple):
    """The page in one line."""

    icon: str
    shade: Shade
    short: str
    words: str
    look_at: str = ""
    """Whose work to look at first, and for how many registries; empty: that is not known, or nothing is amiss."""


def _verdict(look: Look) -> Verdict:
    counts: dict[State, list[str]] = {}
    for entry in look.streams:
        counts.setdefault(entry.health.state, []).append(entry.registry)
    ill = {state: names for state, names in counts.items() if not state.healthy}
    number, total = sum(map(len, ill.values())), len(look.streams)
    if ill.keys() == {State.UNKNOWN}:
        return Verdict(
            "?",
            Shade.UNKNOWN,
            f"{number} of {total} not known",
            f"{number} of {total} registries are not known to be well",
        )
    if ill:
        worst = min(ill, key=_ORDER.index)
        told = "; ".join(f"{len(ill[state])} {state.value}" for state in _ORDER if state in ill)
        words = f"{number} of {total} registries are not well: {told}"
        return Verdict(
            _ICONS[_SHADES[worst]], _SHADES[worst], f"{number} of {total} not well", words, _look_at(look)
        )
    if look.problems:
        return Verdict("?", Shade.UNKNOWN, "not all seen", "Not everything could be seen")
    if Side.REPLICA not in look.sides:
        words = (
            f"{total} of {total} registries are well as far as this can be seen from here; their replicas cannot"
        )
        return Verdict("▲", Shade.DOUBTFUL, "replicas not seen", words)
    return Verdict("✓", Shade.GOOD, f"{total} of {total} well", f"{total} of {total} registries are well")


def _unseen(look: Look) -> list[Unseen]:
    together: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in look.problems:
        side = problem.side.value if problem.side is not None else "enrolment"
        together.setdefault((side, str(problem.error.args[0]), problem.error.hint), []).append(problem)
    return [
        Unseen(
            f"{side} of {', '.join(sorted(names))}"
            if (names := {p.registry for p in found if p.registry})
            else side,
            message,
            found[0].error.place if len(found) == 1 else "",
            hint,
        )
        for (side, message, hint), found in together.items()
    ]


def _look_at(look: Look) -> str:
    """By stage, the most first: ``bridge (land, people)``, or how many registries if they are many."""
    ill: dict[str, list[str]] = {}
    for entry in look.streams:
        cause = entry.health.cause
        if not entry.health.state.healthy and cause is not None and cause.condition is not Condition.UNKNOWN:
            ill.setdefault(cause.stage.value, []).append(entry.registry)
    return "; ".join(
        f"{stage} ({', '.join(names) if len(names) <= _NAMED_MOST else f'{len(names)} registries'})"
        for stage, names in sorted(ill.items(), key=lambda item: -len(item[1]))
    )


def _ordered(seen: Seen, history: History) -> Iterator[tuple[tuple[int, str], Row]]:
    now = seen.look.observed_at
    changes = history.changes(now)
    for number, entry in enumerate(seen.look.streams):
        measures, state = entry.health.measures, entry.health.state
        rpo, target = measures.rpo_seconds, entry.rpo_target_seconds
        chart = chart_of(
            history.buckets(entry.registry, now),
            [change for change in changes if change.registry == entry.registry],
            target_seconds=target,
            now=now,
        )
        rpo_shade = Shade.UNKNOWN if rpo is None else Shade.BAD if rpo > target else Shade.GOOD
        yield (
            (_ORDER.index(state), entry.registry),
            Row(
                entry.registry,
                f"registry-{number}",
                state.value,
                _SHADES[state],
                _ICONS[_SHADES[state]],
                _span(measures.lag_seconds),
                _span(rpo),
                rpo_shade,
                span(target),
                verified_of(entry),
                UNKNOWN if measures.epoch is None else str(measures.epoch),
                gate_of(entry, seen.desks.get(entry.registry)),
                tuple(_notes(entry, seen)),
                hops_of(entry),
                chart,
            ),
        )


def _notes(entry: Observed, seen: Seen) -> Iterator[Note]:
    for cause in entry.health.causes:
        if cause.condition is Condition.UNKNOWN and seen.look.problems:
            continue  # the problem itself is told above
        first = cause is entry.health.cause
        told = told_of(entry, cause) if first else f"also ({cause.stage.value}) {cause.text}"
        remedy = remedy_of(entry, cause.remedy, seen.config)
        command, semicolon, rest = remedy.partition(";")
        if command.startswith("embassy "):
            yield Note(told, command, semicolon + rest)
        else:
            yield Note(told, "", remedy)


def _span(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else span(seconds)


def _age(seconds: float) -> str:
    """Two clocks may disagree by a little; by more, and the time tells it."""
    return f"{span(max(0.0, seconds))} ago"


def _details(details: Mapping[str, Any]) -> str:
    told = ((name, v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)) for name, v in details.items())
    return ", ".join(f"{name}={value}" for name, value in told)


def _moment(at: float, now: float) -> Markup:
    iso = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(iso, instant(at, now=now))


def _brief(text: object) -> str:
    told = str(text)
    return told if len(told) <= _FIELD_MOST else f"{told[:_FIELD_MOST]}…"
