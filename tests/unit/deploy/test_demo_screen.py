"""What a demonstration shows while it runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from deploy.demo.faults import Action, Fault
from deploy.demo.screen import line, rendered
from deploy.demo.snapshot import Pace, Row, Snapshot, State, row
from deploy.workload import catalogue
from deploy.workload.ledger import Moment, Standing

NOW = Moment(0, 100_000_000_000)


def standing(committed: int, unseen: int, lag_seconds: float = 0.0) -> Standing:
    since = Moment(0, NOW.monotonic_ns - int(lag_seconds * 1e9)) if unseen else None
    return Standing(committed, unseen, since)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_pace_is_the_growth_over_the_last_seconds_only() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.read(0) == 0.0
    for second in range(1, 11):
        clock.seconds = float(second)
        rate = pace.read(20 * second if second <= 5 else 100)
        if second in (1, 5):
            assert rate == pytest.approx(20.0)
    assert rate == 0.0


@pytest.mark.parametrize(
    ("situation", "lag_seconds", "state"),
    [
        ({"grows", "loaded"}, 0.5, State.FOLLOWING),
        ({"grows", "loaded"}, 9.0, State.CATCHING_UP),
        ({"loaded"}, 9.0, State.WAITING),
        ({"loaded", "halted"}, 9.0, State.HALTED),
        (set(), 0.0, State.PREPARING),
    ],
)
def test_a_state_is_judged_by_what_readers_see(situation: set[str], lag_seconds: float, state: State) -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.read(70 if "grows" in situation else 90)
    clock.seconds = 1.0
    behind = standing(100, 10, lag_seconds)
    halted, loaded = "halted" in situation, "loaded" in situation
    found = row("treasury", "e", behind, pace, NOW, halted=halted, loaded=loaded)
    assert (found.state, found.committed, found.on_replica, found.in_flight) == (state, 100, 90, 10)
    assert found.lag_seconds == pytest.approx(lag_seconds)


def test_a_registry_without_clients_has_no_counts_but_may_have_halted() -> None:
    idle = row("notes", "e", None, Pace(), NOW, halted=False, loaded=True)
    assert (idle.state, idle.committed, idle.lag_seconds) == (State.NO_CLIENTS, None, None)
    assert row("notes", "e", None, Pace(), NOW, halted=True, loaded=True).state is State.HALTED


def snapshot(*rows: Row, faults: tuple[Fault, ...] = ()) -> Snapshot:
    return Snapshot("load and faults", 31.0, 12.0, rows, faults, faults_planned=20 if faults else 0)


def shown(snapshot: Snapshot, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(rendered(snapshot))
    return out.getvalue()


def test_ten_registries_fit_into_eighty_columns() -> None:
    rows = [
        Row(name, "embassy-1", State.CATCHING_UP, 123_456, 123_400, 56, 123.4, 1234.5)
        for name in catalogue.names()
    ]
    text = shown(snapshot(*rows))
    assert "…" not in text
    assert all(name in text for name in catalogue.names())
    assert "123,456" in text


def test_the_embassy_is_named_where_there_are_several() -> None:
    one = Row("notes", "embassy-1", State.NO_CLIENTS)
    assert "embassy-1" not in shown(snapshot(one))
    assert "embassy-2" in shown(snapshot(one, Row("notes", "embassy-2", State.NO_CLIENTS)))


def test_recent_faults_are_shown_with_their_end() -> None:
    text = shown(
        snapshot(
            faults=(
                Fault(1.0, "producer", Action.KILL, 2.0),
                Fault(2.0, "kafka home", Action.KILL),
                Fault(3.0, "consumer embassy-1", Action.KILL, None, "has given up [place]"),
            )
        ),
        width=120,
    )
    assert "back after 2.0 s" in text
    assert "kafka home  down" in text
    assert "has given up [place]" in text


def test_a_line_tells_the_sum_the_worst_lag_and_what_is_down() -> None:
    text = line(
        snapshot(
            Row("treasury", "e", State.FOLLOWING, 10, 9, 1, 0.5, 3.0),
            Row("business", "e", State.HALTED, 20, 15, 5, 7.25, 0.0),
            Row("notes", "e", State.NO_CLIENTS),
            faults=(Fault(1.0, "producer", Action.KILL, 2.0), Fault(2.0, "kafka home", Action.KILL)),
        )
    )
    assert "committed 30" in text
    assert "on replica 24" in text
    assert "worst lag 7.2 s (business)" in text
    assert "faults 2/20" in text
    assert text.endswith("down: kafka home  halted: 1")
