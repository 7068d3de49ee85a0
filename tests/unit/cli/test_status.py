"""What is printed of a look, and how the command ends; without servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.text import Text

from embassy.cli.status_report import Thresholds, as_json, verdict
from embassy.cli.status_table import lines
from embassy.cli.watch import Changes
from embassy.model.errors import ConfigurationError, TransientError
from embassy.model.health import State, assess
from embassy.model.look import Look, Observed, Problem
from embassy.model.observation import Absent, Observation, Side, VerifiedSeen
from embassy.runtime.exit_codes import ExitCode
from tests.harness.observations import EMBASSY, HOME, LIMITS, NOTHING, NOW, PROGRESS, REPLICA, STALLED, topic, well

_DOWN = Problem(
    Side.REPLICA, "people", TransientError("refused", place="admin@localhost:1/people", hint="is it up?")
)


def _look(*problems: Problem, **streams: Observation) -> Look:
    seen = tuple(Observed(name, 60, seen, assess(seen, LIMITS)) for name, seen in streams.items())
    sides = frozenset(side for entry in seen for side in entry.observation.sides)
    return Look(NOW, "embassy-1", sides, seen, problems)


def _printed(look: Look, thresholds: Thresholds | None = None, config: str = "admin.toml") -> list[str]:
    return [line.plain.rstrip() for line in lines(look, thresholds or Thresholds(), config=config)]


def test_the_table_says_what_is_known_and_marks_what_is_not() -> None:
    heading, titles, land, people, *notes = _printed(_look(land=well(EMBASSY), people=STALLED))
    assert heading == "OBSERVED 08:00:00Z at embassy-1 · sees foreign Kafka, replica · skew +0.00s"
    assert titles.split()[:6] == ["REGISTRY", "STATE", "EPOCH", "WAL-LAG", "BRIDGE-LAG", "APPLY-LAG"]
    assert titles.split()[6:] == ["LAG", "RPO≤", "VERIFIED"]
    assert land.split() == ["land", "following", "1", "?", "?", "100B", "600ms", "1.9s", "?"]
    assert people.split() == ["people", "stalled", "1", "?", "?", "0B", "?", "19m05s", "?"]
    assert {line.index("1 ") for line in (land, people)} == {titles.index("EPOCH")}
    (note,) = notes
    assert note.startswith(
        "! people: no heartbeat since 07:40:56Z (bridge): nothing has come to the embassy's topic"
    )
    assert " → " in note


def test_every_state_can_be_printed() -> None:
    entry = _look(land=well(EMBASSY)).streams[0]
    for state in State:
        look = Look(NOW, "embassy-1", EMBASSY, (entry._replace(health=entry.health._replace(state=state)),), ())
        assert _printed(look)[2].split()[1] == state.value


@pytest.mark.parametrize(
    ("seen", "told", "style"),
    [
        (None, "?", ""),
        (VerifiedSeen(None, None, 0), "never", "yellow"),
        (VerifiedSeen(NOW - 840, "match", 0), "14m00s OK", "green"),
        (VerifiedSeen(NOW - 90_000, "match", 0), "1d01h OK", "yellow"),
        (VerifiedSeen(NOW - 840, "undecided", 0), "14m00s ?", "yellow"),
        (VerifiedSeen(NOW - 840, "match", 3), "3 DIFFER", "bold red"),
    ],
)
def test_verified_is_green_only_while_it_is_proven(seen: VerifiedSeen | None, told: str, style: str) -> None:
    look = _look(land=well(EMBASSY)._replace(replica=REPLICA._replace(verified=seen)))
    _, titles, land, *_ = lines(look, Thresholds())
    start = titles.plain.index("VERIFIED")
    assert land.plain[start:] == told
    assert [span.style for span in land.spans if span.start == start] == ([style] if style else [])
    found = as_json(look, Thresholds())["registries"]["land"]["verified"]
    assert (found is None) is (seen is None)


def test_a_stream_that_follows_is_not_well_while_rows_are_known_to_differ() -> None:
    def found(rows: int) -> Look:
        verified = VerifiedSeen(NOW - 840, "match", rows)
        return _look(land=well(EMBASSY)._replace(replica=REPLICA._replace(verified=verified)))

    assert verdict(found(0), Thresholds()) == 0
    for rows, told in ((1, "1 row is"), (3, "3 rows are")):
        look = found(rows)
        assert look.streams[0].health.state is State.FOLLOWING
        assert verdict(look, Thresholds()) == 4
        assert as_json(look, Thresholds())["ok"] is False
        assert _printed(look)[3:] == [
            f"! land: {told} not as at home, as last compared → embassy -c admin.toml -r land verify status --keys"
        ]


def test_what_could_not_be_seen_is_told_once_with_its_place_and_the_way_out() -> None:
    printed = _printed(_look(_DOWN, land=well(EMBASSY), people=NOTHING))
    assert printed[3].split() == ["people", "unknown", "1", "?", "?", "?", "?", "?", "?"]
    assert printed[4:] == ["? replica of people not seen: refused [admin@localhost:1/people] → is it up?"]


def test_an_idle_provisioned_replica_says_that_there_is_no_heartbeat_yet() -> None:
    idle = REPLICA._replace(
        beat=None, progress=PROGRESS._replace(sequence=0, applied_at=None, committed_at=None), holder=""
    )
    observation = well(EMBASSY)._replace(replica=idle, foreign=topic(1, 1)._replace(next_offset=0, tail=None))
    assert "! land: no heartbeat yet (bridge): nothing has come" in "\n".join(_printed(_look(land=observation)))


@pytest.mark.parametrize(
    ("observation", "command"),
    [
        (well(HOME)._replace(source=Absent("no schema")), "embassy -c admin.toml -r land provision apply"),
        (
            well(EMBASSY)._replace(replica=REPLICA._replace(beat=None)),
            "at home: embassy doctor home",
        ),
    ],
)
def test_a_command_can_be_run_as_it_is_printed(observation: Observation, command: str) -> None:
    assert any(line.endswith(f" → {command}") for line in _printed(_look(land=observation)))


def test_a_healthy_stream_with_something_amiss_upstream_has_a_note_and_not_a_cry() -> None:
    observation = well(EMBASSY)._replace(foreign=topic(99, 9_900, age=60))
    printed = _printed(_look(land=observation))
    assert printed[2].split()[1] == "following"
    assert printed[3].startswith("note land: (bridge) ")
    assert verdict(_look(land=observation), Thresholds()) is ExitCode.OK


@pytest.mark.parametrize(
    ("look", "thresholds", "code"),
    [
        (_look(land=well(EMBASSY)), Thresholds(), 0),
        (_look(land=well(HOME)), Thresholds(), 0),
        (_look(land=well(EMBASSY), people=STALLED), Thresholds(), 4),
        (_look(land=well(EMBASSY)), Thresholds(rpo_seconds=5, lag_seconds=5), 0),
        (_look(land=well(EMBASSY)), Thresholds(rpo_seconds=1), 4),
        (_look(land=well(EMBASSY)), Thresholds(lag_seconds=0.5), 4),
        (_look(land=well(HOME)), Thresholds(rpo_seconds=1e9), 4),  # not known is not within
        (_look(_DOWN, land=well(EMBASSY), people=NOTHING), Thresholds(), 3),
        (_look(_DOWN, land=STALLED), Thresholds(), 3),
        (_look(Problem(None, "land", ConfigurationError("no such file")), land=NOTHING), Thresholds(), 2),
    ],
)
def test_the_exit_code(look: Look, thresholds: Thresholds, code: int) -> None:
    assert verdict(look, thresholds) == code
    assert as_json(look, thresholds)["ok"] is (code == 0)


def test_json_has_base_units_and_null_for_what_is_not_known() -> None:
    report: dict[str, Any] = json.loads(
        json.dumps(as_json(_look(_DOWN, land=well(EMBASSY), people=NOTHING), Thresholds(1)))
    )
    assert report["schema"] == "embassy.status/1"
    assert report["observed_at"] == "2027-01-15T08:00:00.000Z"
    assert report["sides"] == ["foreign", "replica"]
    land, people = report["registries"]["land"], report["registries"]["people"]
    assert (land["state"], land["healthy"], land["apply_lag_bytes"], land["apply_lag_records"]) == (
        "following",
        True,
        100,
        1,
    )
    assert (land["wal_lag_bytes"], land["slot"], land["topics"]["home"]) == (None, None, None)
    assert land["exceeded"] == ["RPO is 1.9s, the limit is 1s"]
    assert land["rpo_seconds"] == 1.9
    assert (people["state"], people["rpo_seconds"], people["lag_seconds"]) == ("unknown", None, None)
    assert people["exceeded"] == ["RPO is not known, the limit is 1s"]
    assert report["problems"] == [
        {
            "side": "replica",
            "registry": "people",
            "message": "refused",
            "place": "admin@localhost:1/people",
            "hint": "is it up?",
            "exit_code": 3,
        }
    ]


def test_both_renderings_name_the_same_streams_and_states() -> None:
    look = _look(land=well(), people=STALLED, court=NOTHING)
    told = {line.split()[0]: line.split()[1] for line in _printed(look)[2:5]}
    assert told == {name: entry["state"] for name, entry in as_json(look, Thresholds())["registries"].items()}


def test_watch_remembers_changes_of_state_only() -> None:
    changes = Changes()
    for look in (_look(land=well()), _look(land=well()), _look(land=STALLED), _look(land=STALLED)):
        changes.take(look)
    assert [line.plain for line in changes.lines()] == ["CHANGES", "08:00:00Z land: following → stalled"]


def test_nothing_that_a_name_or_an_error_contains_is_taken_as_markup() -> None:
    problem = Problem(Side.HOME, "", TransientError("[red]x[/red]"))
    assert all(isinstance(line, Text) for line in lines(_look(problem, land=well()), Thresholds()))
    assert "[red]x[/red]" in _printed(_look(problem, land=well()))[-1]


def test_nothing_that_an_error_contains_moves_the_cursor() -> None:
    problem = Problem(Side.HOME, "", TransientError("x\x1b[2K\rfollowing"))
    assert "x\\x1b[2K\\rfollowing" in _printed(_look(problem, land=well()))[-1]
