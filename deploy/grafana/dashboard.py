"""The Grafana dashboard, written out as JSON: ``python -m deploy.grafana.dashboard``.

Grafana's own model is a page of JSON per panel, nearly all of it the same; here only what differs is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.grafana.panels import ROWS, Panel

FILE = Path(__file__).with_name("embassy.json")
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT = 24, 8


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana imports it."""
    return {
        "uid": "data-embassy",
        "title": "Data embassy",
        "tags": ["embassy"],
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "templating": {"list": [_datasource(), _registry()]},
        "panels": list(_panels()),
    }


def render() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


def _panels() -> Iterator[dict[str, Any]]:
    number = y = 0
    for row in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
            "panels": [],
        }
        y += 1
        x = 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y = 0, y + _HEIGHT
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": _HEIGHT})
            x += panel.width
        y += _HEIGHT


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind in ("table", "stat")
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **_colours(panel)}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
                "instant": instant,
                "range": not instant,
                **({"format": "table"} if panel.kind == "table" else {}),
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _colours(panel: Panel) -> dict[str, Any]:
    if panel.red_from is None:
        return {}
    steps = [
        {"color": "green", "value": None},
        {"color": "orange", "value": panel.red_from / 2},
        {"color": "red", "value": panel.red_from},
    ]
    return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _registry() -> dict[str, Any]:
    query = "label_values(embassy_rpo_target_seconds, registry)"
    return {
        "name": "registry",
        "type": "query",
        "label": "Registry",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "registry"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "sort": 1,
    }


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
