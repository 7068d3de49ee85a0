"""The verdict of the demonstration: its JSON, and everything that must turn it red."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import pytest
from rich.console import Console

from deploy.demo.faults import Action, Fault
from deploy.demo.report import RegistryResult, Report, judged
from deploy.demo.screen import print_verdict
from deploy.demo.supervised_role import Exit
from deploy.workload import catalogue
from deploy.workload.comparison import RowDifference, TableComparison
from deploy.workload.verdict import Verdict

GOOD = Verdict(
    committed=100,
    applied=100,
    lost=0,
    duplicated=0,
    torn=0,
    phantoms=0,
    rolled_back=3,
    resolved=1,
    lost_at_source=0,
    latency_p50_ms=40.123,
    latency_p99_ms=90.0,
    latency_max_ms=120.0,
)
EQUAL = TableComparison('"public"."fact"', 5, 5, equal=True)
DIFFERENT = TableComparison(
    '"public"."bag"', 5, 4, equal=False, first_differences=(RowDifference("source", "(1,x)"),)
)
RECOVERED = Fault(1.234, "kafka home", Action.KILL, 3.456)


def registry(name: str = "treasury", *embassies: str, **changes: Any) -> RegistryResult:
    arguments: dict[str, Any] = {"verdict": GOOD, "tables": [EQUAL], "caught_up": True, "business_expected": True}
    replicas = [judged(embassy, **{**arguments, **changes}) for embassy in embassies or ("embassy-1",)]
    return RegistryResult(name, tuple(replicas))


def report(*registries: RegistryResult, **changes: Any) -> Report:
    whole = Report(seconds=10.04, seed=7, registries=registries or (registry(),), faults=(RECOVERED,), exits=())
    return dataclasses.replace(whole, **changes)


def test_the_json_has_the_promised_shape() -> None:
    idle = registry("notes", verdict=None, tables=[EQUAL, EQUAL], business_expected=False)
    shown = json.loads(json.dumps(report(registry(), idle).to_json()))
    assert shown == {
        "schema": 1,
        "verdict": True,
        "seconds": 10.0,
        "seed": 7,
        "registries": {
            "treasury": {
                "committed": 100,
                "applied": 100,
                "lost": 0,
                "duplicated": 0,
                "torn": 0,
                "tables_compared": 1,
                "tables_mismatched": 0,
                "latency_p50_ms": 40.12,
                "latency_p99_ms": 90.0,
            },
            "notes": {
                "committed": 0,
                "applied": 0,
                "lost": 0,
                "duplicated": 0,
                "torn": 0,
                "tables_compared": 2,
                "tables_mismatched": 0,
                "latency_p50_ms": None,
                "latency_p99_ms": None,
            },
        },
        "faults": [
            {"at_seconds": 1.23, "target": "kafka home", "action": "kill -9", "recovered_seconds": 3.46},
        ],
        "exits": [],
        "complaints": [],
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": dataclasses.replace(GOOD, lost=2, applied=98)}, "2 committed transactions are lost"),
        ({"verdict": dataclasses.replace(GOOD, duplicated=1)}, "more than once"),
        ({"verdict": dataclasses.replace(GOOD, torn=1, torn_evidence=("sum: [(1,)]",))}, "seen: sum: [(1,)]"),
        ({"verdict": dataclasses.replace(GOOD, lost_at_source=1)}, "not even at the source"),
        ({"verdict": dataclasses.replace(GOOD, applied=99)}, "does not agree"),
        ({"verdict": dataclasses.replace(GOOD, committed=0, applied=0)}, "nothing is proven"),
        ({"tables": [EQUAL, DIFFERENT]}, 'table "public"."bag" differs: 5 rows at the source, 4 rows'),
        ({"caught_up": False}, "has not caught up"),
        ({"failures": ["treasury/1: transfer: UniqueViolation"]}, "UniqueViolation"),
    ],
)
def test_whatever_is_wrong_with_a_replica_makes_the_verdict_red_and_is_named(
    changes: dict[str, Any], words: str
) -> None:
    found = report(registry("land_register"), registry("treasury", **changes))
    assert not found.is_true
    assert found.to_json()["verdict"] is False
    assert any(words in complaint for complaint in found.complaints)
    assert all(complaint.startswith("treasury on embassy-1: ") for complaint in found.complaints)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"faults": (dataclasses.replace(RECOVERED, recovered_seconds=None),)}, "did not recover from kill -9"),
        ({"exits": (Exit("consumer embassy-1", 9, "halted: gap", restarted=False),)}, "exit code 9: halted: gap"),
        ({"exits": (Exit("producer", 2, "error: no key", restarted=False),)}, "exit code 2: error: no key"),
        ({"exits": (Exit("bridge embassy-1", 1, "KeyError", restarted=True),)}, "exit code 1: KeyError"),
        ({"exits": (Exit("bridge embassy-1", -11, "", restarted=True),)}, "signal 11: it said nothing"),
        ({"exits": (Exit("producer", 3, "unreachable", restarted=False),)}, "exit code 3"),
        ({"role_complaints": ("producer (treasury): halted",)}, "producer (treasury): halted"),
    ],
)
def test_whatever_is_wrong_with_a_role_or_a_server_makes_the_verdict_red(
    changes: dict[str, Any], words: str
) -> None:
    found = report(**changes)
    assert not found.is_true
    assert len(found.complaints) == 1
    assert words in found.complaints[0]


def test_a_role_that_ended_because_a_server_was_away_and_was_started_again_is_listed_and_excused() -> None:
    found = report(exits=(Exit("consumer embassy-1", 3, "unreachable", restarted=True),))
    assert found.is_true
    assert found.to_json()["exits"][0]["code"] == 3


def test_nothing_demonstrated_is_no_success() -> None:
    assert not dataclasses.replace(report(), registries=()).is_true


def test_several_embassies_are_shown_one_by_one_and_by_the_worst_of_them() -> None:
    slow = dataclasses.replace(GOOD, applied=97, lost=3, torn=1, latency_p99_ms=900.0, latency_p50_ms=None)
    first, second = registry("treasury"), registry("treasury", "embassy-2", verdict=slow, tables=[DIFFERENT])
    both = RegistryResult("treasury", first.replicas + second.replicas)
    shown = both.to_json()
    assert (shown["committed"], shown["applied"], shown["lost"], shown["torn"]) == (100, 97, 3, 1)
    assert (shown["tables_compared"], shown["tables_mismatched"]) == (2, 1)
    assert (shown["latency_p50_ms"], shown["latency_p99_ms"]) == (40.12, 900.0)
    assert shown["embassies"]["embassy-1"]["lost"] == 0
    assert shown["embassies"]["embassy-2"]["lost"] == 3
    assert all("embassy-2" in complaint for complaint in report(both).complaints)


def printed(found: Report, width: int = 80) -> str:
    out = io.StringIO()
    print_verdict(Console(file=out, width=width), found)
    return out.getvalue()


def test_the_verdict_of_ten_registries_fits_into_eighty_columns() -> None:
    slow = dataclasses.replace(GOOD, committed=12_345, applied=12_345, latency_p99_ms=99_999.0)
    text = printed(report(*(registry(name, verdict=slow) for name in catalogue.names())))
    assert "…" not in text
    assert all(name in text for name in catalogue.names())
    assert "all tables are equal" in text
    assert "NOT WELL" not in text


def test_a_red_verdict_says_so_and_why() -> None:
    text = printed(report(registry(tables=[DIFFERENT])), width=200)
    assert "all tables are equal" not in text
    assert "NOT WELL" in text
    assert "only at the source: (1,x)" in text
