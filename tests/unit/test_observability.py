"""Rules and dashboards speak of series that exist; every alert is explained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # it carries no annotations

from deploy.grafana.dashboard import FILE, dashboard, render
from embassy.runtime import config as settings
from embassy.runtime.metrics import CATALOGUE, Kind, Metric

_ROOT = Path(__file__).parents[2]
_PROMETHEUS = _ROOT / "deploy" / "prometheus"
_DOCS = _ROOT / "docs" / "operations.md"

_BUILT_IN = {"up", "ALERTS", "process_resident_memory_bytes"}
_WORDS = {
    "absent",
    "and",
    "by",
    "count",
    "delta",
    "histogram_quantile",
    "increase",
    "label_values",
    "le",
    "max",
    "max_over_time",
    "min",
    "on",
    "or",
    "predict_linear",
    "rate",
    "registry",
    "sum",
    "time",
    "unless",
    "vector",
}
_EXPOSED = {
    name: metric
    for metric in CATALOGUE
    for name in (
        (metric.name,)
        if metric.kind is not Kind.HISTOGRAM
        else (f"{metric.name}_bucket", f"{metric.name}_count", f"{metric.name}_sum")
    )
}
_STAGES = {"captured", "published", "bridged", "received", "applied"}


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((_PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in _rules() if "alert" in rule}


def _expressions() -> Iterator[tuple[str, str]]:
    for rule in _rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


def _selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each series that an expression names, with the labels that it is selected by."""
    bare = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", expression)
    for match in re.finditer(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?", re.sub(r"\[[^\]]*\]", "", bare)):
        name, labels = match[1], match[2] or ""
        if name not in _WORDS or labels:
            yield name, dict(re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', labels))


EXPRESSIONS = list(_expressions())


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=[place for place, _ in EXPRESSIONS])
def test_an_expression_names_only_series_of_the_catalogue_and_their_labels(place: str, expression: str) -> None:
    recorded = {rule["record"] for rule in _rules() if "record" in rule}
    named = list(_selectors(expression))
    assert named or expression == "vector(1)", place
    for name, labels in named:
        if name in recorded | _BUILT_IN:
            continue
        assert name in _EXPOSED, f"{place}: {name}"
        metric: Metric = _EXPOSED[name]
        assert set(labels) <= {*metric.labels, "job", "instance"}, f"{place}: {name}"
        if (stage := labels.get("stage")) is not None:
            assert stage in _STAGES, place
        if metric.kind is Kind.COUNTER:
            assert re.search(r"(rate|increase)\(", expression), f"{place}: a counter is read as a rate"


@pytest.mark.parametrize(("place", "expression"), EXPRESSIONS, ids=[place for place, _ in EXPRESSIONS])
def test_series_are_grouped_by_labels_that_they_have(place: str, expression: str) -> None:
    known = {"job", "instance", "le"}
    for name, _ in _selectors(expression):
        known |= set(_EXPOSED[name].labels) if name in _EXPOSED else {"registry"}
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",") if label.strip()} <= known, place


def test_the_reader_of_expressions_sees_what_is_there() -> None:
    expression = (
        'max by (registry) (embassy_no_such{stage="applied"}) > on (registry) sum(rate(embassy_other_total[5m]))'
    )
    assert list(_selectors(expression)) == [("embassy_no_such", {"stage": "applied"}), ("embassy_other_total", {})]


def test_every_alert_has_a_name_a_severity_words_and_a_place_in_the_runbook() -> None:
    headings = set(re.findall(r"^#+ (Embassy\w+)$", _DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert headings == set(_alerts())
    for name, rule in _alerts().items():
        assert name.startswith("Embassy")
        assert rule["labels"]["severity"] in {"critical", "warning", "none"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["runbook_url"].endswith(f"#{name.lower()}")


def test_every_alert_is_tried_both_ways() -> None:
    content = yaml.safe_load((_PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))
    cases = [case for test in content["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    quiet = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fires == set(_alerts())
    assert quiet == set(_alerts()) - {"EmbassyWatchdog"}
    for case in cases:
        for expected in case.get("exp_alerts", ()):
            annotations = _alerts()[case["alertname"]]["annotations"]
            assert expected["exp_annotations"]["summary"] == annotations["summary"]


def test_a_service_that_has_halted_is_there_until_every_alert_on_it_has_fired() -> None:
    slowest = 0
    for rule in _alerts().values():
        if re.search(r"embassy_(apply_halted|stream_halted|slot_lost|gaps_total|operation_step)", rule["expr"]):
            minutes = int(rule.get("for", "0m").removesuffix("m"))
            ages = [int(seconds) for seconds in re.findall(r"time\(\) - (\d+)", rule["expr"])]
            slowest = max(slowest, minutes * 60, *ages)
    assert slowest == 600
    assert settings.Metrics().linger_seconds >= slowest + 120


def test_prometheus_scrapes_the_roles_under_the_names_that_the_rules_look_for() -> None:
    content = yaml.safe_load((_PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    assert content["rule_files"] == ["alerts.yml"]
    assert {job["job_name"] for job in content["scrape_configs"]} == {
        "embassy-producer",
        "embassy-bridge",
        "embassy-consumer",
        "embassy-other-site",
    }


def test_what_two_sites_are_compared_by_comes_from_the_other_one_too() -> None:
    """Each site has a Prometheus of its own, and a rule sees nothing but what that one has."""
    content = yaml.safe_load((_PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    (other,) = [job for job in content["scrape_configs"] if job["job_name"] == "embassy-other-site"]
    assert (other["metrics_path"], other["honor_labels"]) == ("/federate", True)
    compared = {
        name for rule in _rules() if "count by (registry)" in rule["expr"] for name, _ in _selectors(rule["expr"])
    }
    assert compared == set(other["params"]["match[]"]) == {"embassy_writable"}


def test_the_dashboard_is_what_its_generator_writes() -> None:
    assert FILE.read_text(encoding="utf-8") == render(), "run python -m deploy.grafana.dashboard"


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    numbers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_each_metric_of_the_catalogue_is_shown_or_alerted_on() -> None:
    text = " ".join(expression for _, expression in EXPRESSIONS)
    unused = {metric.name for metric in CATALOGUE if metric.name not in text}
    assert unused <= {"embassy_slot_limit_bytes"}, unused
