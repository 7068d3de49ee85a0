"""The gate, the hour's memory and its drawing, the hops: each by itself."""

from __future__ import annotations

import pytest

from console.chart import HEIGHT, WIDTH, chart_of
from console.gate import Gate, gate_of
from console.history import SPAN_SECONDS, Bucket, History
from console.pipeline import hops_of
from console.seen import Desk
from embassy.model.health import State
from embassy.model.look_words import Shade
from embassy.model.observation import Beat, Observation
from tests.harness.console_looks import OPEN, look_of
from tests.harness.observations import EMBASSY, HOME, NOTHING, NOW, PROGRESS, REPLICA, STALLED, well


def _gate(observation: Observation, desk: Desk | str | None = OPEN) -> Gate:
    (entry,) = look_of({"land": observation}).streams
    return gate_of(entry, desk)


@pytest.mark.parametrize(
    ("observation", "desk", "words", "shade"),
    [
        (well(EMBASSY), OPEN, "open", Shade.GOOD),
        (well(EMBASSY), Desk(("tables are copied",), ()), "blocked", Shade.BAD),
        (STALLED, OPEN, "open, loses 19m05s", Shade.DOUBTFUL),
        (well(EMBASSY), "no such table", "?", Shade.UNKNOWN),
        (well(EMBASSY), None, "?", Shade.UNKNOWN),
        (NOTHING, OPEN, "?", Shade.UNKNOWN),
        (well(HOME), OPEN, "?", Shade.UNKNOWN),
        (well(EMBASSY)._replace(enrolled_epoch=None), OPEN, "?", Shade.UNKNOWN),
        (well(EMBASSY)._replace(enrolled_epoch=2), OPEN, "blocked", Shade.BAD),
        (well(EMBASSY)._replace(replica=REPLICA._replace(progress=None)), OPEN, "blocked", Shade.BAD),
        (
            well(EMBASSY)._replace(replica=REPLICA._replace(progress=PROGRESS._replace(epoch=2))),
            OPEN,
            "passed",
            Shade.DOUBTFUL,
        ),
    ],
)
def test_the_gate_is_green_only_where_a_plan_would_lose_what_may_be_lost(
    observation: Observation, desk: Desk | str | None, words: str, shade: Shade
) -> None:
    gate = _gate(observation, desk)
    assert (gate.words, gate.shade) == (words, shade)
    assert bool(gate.reasons) is (shade is not Shade.GOOD), "it says why"


def test_a_bucket_keeps_the_worst_and_that_something_was_not_known() -> None:
    history = History()
    for observation, later in ((well(EMBASSY), 0), (STALLED, 2), (NOTHING, 4), (well(EMBASSY), 30)):
        history.take(look_of({"land": observation}, later=later))
    (first, second) = history.buckets("land", NOW + 30)
    assert (first.start, first.unknown, second.unknown) == (NOW, True, False)
    assert first.worst_seconds is not None
    assert first.worst_seconds > 1144
    assert history.buckets("land", NOW + SPAN_SECONDS + 1) == (second,)
    assert history.buckets("people", NOW) == ()


def test_changes_are_told_once_each_and_forgotten_after_an_hour() -> None:
    history = History()
    told = [
        history.take(look_of({"land": observation}, later=later))
        for observation, later in ((well(EMBASSY), 0), (well(EMBASSY), 2), (STALLED, 4), (STALLED, 6))
    ]
    assert [len(changes) for changes in told] == [0, 0, 1, 0]
    (change,) = told[2]
    assert (change.before, change.after) == (State.FOLLOWING, State.STALLED)
    assert history.changes(NOW + 6) == told[2]
    assert history.changes(NOW + 6 + SPAN_SECONDS) == ()


def test_a_drawing_has_no_line_where_nothing_is_known() -> None:
    start = NOW - 600
    buckets = [
        Bucket(start, 5.0, unknown=False),
        Bucket(start + 30, None, unknown=True),
        Bucket(start + 60, 90.0, unknown=False),
    ]
    chart = chart_of(buckets, (), target_seconds=60, now=NOW)
    assert len(chart.lines) == 2
    assert chart.gaps == (
        (0.0, WIDTH * (SPAN_SECONDS - 600) / SPAN_SECONDS),
        (404.0, 4.0),
        (412.0, 68.0),
    )
    assert chart.worst == "1m30s, at times ?"
    assert set(chart.cells[:10]) == {"?"}
    assert chart.cells[10] == "?", "in a part of it nothing was known"
    assert 0 < chart.target_y < HEIGHT


def test_what_nobody_looked_at_has_no_figures() -> None:
    chart = chart_of((), (), target_seconds=60, now=NOW)
    assert (chart.lines, chart.worst, set(chart.cells)) == ((), "?", {"?"})
    assert chart.gaps == ((0.0, float(WIDTH)),)


def test_all_that_is_known_throughout_is_a_figure() -> None:
    buckets = [Bucket(NOW - 3600 + i * 30, float(i), unknown=False) for i in range(120)]
    chart = chart_of(buckets, (), target_seconds=60, now=NOW)
    assert chart.gaps == ()
    assert chart.cells[0] == "9.0s"
    assert chart.cells[11] == "1m59s"


def test_what_was_applied_has_passed_the_hops_before() -> None:
    beat = Beat(NOW - 1.2, NOW - 6, NOW - 7)
    (entry,) = look_of({"land": well(EMBASSY)._replace(replica=REPLICA._replace(beat=beat))}).streams
    assert {hop.name: hop.at for hop in hops_of(entry)} == {
        "written": None,
        "captured": NOW - 1.2,
        "published": NOW - 1.2,
        "bridged": NOW - 0.5,
        "applied": NOW - 1.2,
    }


def test_nothing_seen_is_nothing_known_of_any_hop() -> None:
    (entry,) = look_of({"land": NOTHING}).streams
    assert {hop.at for hop in hops_of(entry)} == {None}
