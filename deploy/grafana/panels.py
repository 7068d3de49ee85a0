"""What the dashboard shows: rows of panels, each with its queries."""

from __future__ import annotations

from typing import NamedTuple

_OF = '{registry=~"$registry"}'


class Query(NamedTuple):
    """One expression and the name of its series."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """One panel."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    description: str = ""
    red_from: float | None = None
    """The value from which it is red; amber begins at half of it."""
    width: int = 8


class Row(NamedTuple):
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


def _age(stage: str) -> str:
    return f'time() - max by (registry) (embassy_heartbeat_timestamp_seconds{{stage="{stage}",registry=~"$registry"}})'


def _position(stage: str) -> str:
    return f'max by (registry) (embassy_position_bytes{{stage="{stage}",registry=~"$registry"}})'


def _rate(metric: str, by: str, selector: str = _OF) -> str:
    return f"sum by ({by}) (rate({metric}{selector}[$__rate_interval]))"


def _quantile(share: float) -> Query:
    rates = "sum by (le, stage) (rate(embassy_stage_duration_seconds_bucket[$__rate_interval]))"
    return Query(f"histogram_quantile({share}, {rates})", f"{{{{stage}}}} p{share * 100:g}")


ROWS = (
    Row(
        "Crisis",
        (
            Panel(
                "What home's loss would cost now",
                (Query(_age("applied"), "{{registry}}"),),
                unit="s",
                kind="stat",
                description="Age of the newest transaction that the replica has; no value: not known.",
                red_from=60,
            ),
            Panel(
                "Age of the replicas, and what it may be",
                (
                    Query(_age("applied"), "{{registry}}"),
                    Query(f"max by (registry) (embassy_rpo_target_seconds{_OF})", "{{registry}} target"),
                ),
                unit="s",
            ),
            Panel(
                "Alerts that fire",
                (
                    Query(
                        'ALERTS{alertname=~"Embassy.+",alertstate="firing",severity!="none"}',
                        "{{alertname}} {{registry}}",
                    ),
                ),
                kind="table",
            ),
        ),
    ),
    Row(
        "Pipeline",
        (
            Panel(
                "Age of the newest past each stage",
                (
                    Query(
                        f"time() - max by (registry, stage) (embassy_heartbeat_timestamp_seconds{_OF})",
                        "{{registry}} {{stage}}",
                    ),
                ),
                unit="s",
                description="The first stage whose age grows is the one to look at. A bridge names streams opaquely.",
            ),
            Panel(
                "Changes",
                (Query(_rate("embassy_events_total", "registry, stage"), "{{registry}} {{stage}}"),),
                "cps",
            ),
            Panel(
                "Transactions",
                (Query(_rate("embassy_transactions_total", "registry, stage"), "{{registry}} {{stage}}"),),
                "cps",
            ),
            Panel(
                "Commit to stage",
                (_quantile(0.5), _quantile(0.99)),
                unit="s",
                description="Stages bridged and received are counted from the record's append.",
            ),
            Panel(
                "Bytes", (Query(_rate("embassy_bytes_total", "registry, stage"), "{{registry}} {{stage}}"),), "Bps"
            ),
            Panel(
                "Loops that turn",
                (
                    Query(
                        f"max by (registry, component) (embassy_stream_running{_OF})", "{{registry}} {{component}}"
                    ),
                ),
                kind="state-timeline",
            ),
        ),
    ),
    Row(
        "Source",
        (
            Panel(
                "Log that slots keep",
                (Query(f"max by (registry) (embassy_slot_retained_bytes{_OF})", "{{registry}}"),),
                "bytes",
            ),
            Panel(
                "Log that may still be written before a slot is lost",
                (Query(f"min by (registry) (embassy_slot_safe_bytes{_OF})", "{{registry}}"),),
                "bytes",
                description="No value: the server sets no limit but its disk.",
            ),
            Panel(
                "Rows of tables that are copied, a second",
                (
                    Query(
                        f"sum by (registry, table) (rate(embassy_snapshot_rows_total{_OF}[1m]))",
                        "{{registry}} {{table}}",
                    ),
                ),
                "ops",
            ),
            Panel(
                "Slots",
                (
                    Query(f"max by (registry) (embassy_slot_active{_OF})", "{{registry}} held"),
                    Query(f"max by (registry) (embassy_slot_lost{_OF})", "{{registry}} lost"),
                ),
                kind="state-timeline",
            ),
        ),
    ),
    Row(
        "Bridge",
        (
            Panel(
                "Connections",
                (
                    Query("max by (site) (embassy_bridge_connected)", "bridge to {{site}}"),
                    Query("max by (site) (embassy_kafka_connected)", "Kafka of {{site}}"),
                ),
                kind="state-timeline",
            ),
            Panel(
                "Records carried",
                (Query(_rate("embassy_records_total", "registry", '{stage="bridged"}'), "{{registry}}"),),
                "cps",
            ),
            Panel(
                "Age of the newest carried",
                (
                    Query(
                        'time() - max by (registry) (embassy_heartbeat_timestamp_seconds{stage="bridged"})',
                        "{{registry}}",
                    ),
                ),
                "s",
            ),
        ),
    ),
    Row(
        "Apply",
        (
            Panel(
                "Received and not yet applied",
                (
                    Query(
                        _position("received") + " - " + _position("applied"),
                        "{{registry}}",
                    ),
                ),
                "bytes",
                description="In bytes of the source's log.",
            ),
            Panel(
                "Batches applied change by change",
                (Query(_rate("embassy_replayed_total", "registry, reason"), "{{registry}} {{reason}}"),),
                "cps",
            ),
            Panel(
                "Halts",
                (
                    Query(
                        f"max by (registry, component, reason) (embassy_stream_halted{_OF}) > 0",
                        "{{component}} of {{registry}}: {{reason}}",
                    ),
                    Query(
                        f"max by (registry, reason) (embassy_apply_halted{_OF}) > 0", "{{registry}}: {{reason}}"
                    ),
                ),
                kind="state-timeline",
            ),
        ),
    ),
    Row(
        "Integrity",
        (
            Panel(
                "Rows that are not as at home",
                (
                    Query(
                        'max by (registry, result) (embassy_verify_rows{result!="matched",registry=~"$registry"})',
                        "{{registry}} {{result}}",
                    ),
                ),
                description="As each table was compared last; in flight: changed each time it was looked at.",
            ),
            Panel(
                "Since all rows were last proven alike",
                (
                    Query(
                        f"time() - max by (registry) (embassy_verify_last_success_timestamp_seconds{_OF})",
                        "{{registry}}",
                    ),
                ),
                unit="s",
                kind="stat",
                description="No value: never.",
                red_from=86_400,
            ),
            Panel(
                "Rows compared",
                (
                    Query(
                        "sum by (registry) (max by (registry, result) "
                        '(embassy_verify_rows{result!="extra",registry=~"$registry"}))',
                        "{{registry}}",
                    ),
                ),
            ),
            Panel(
                "Halts for doubt",
                (Query(f"sum by (registry) (increase(embassy_gaps_total{_OF}[$__range]))", "{{registry}}"),),
                kind="stat",
                red_from=1,
            ),
            Panel(
                "Records that did not count",
                (
                    Query(_rate("embassy_ignored_total", "registry, standing"), "{{registry}} {{standing}}"),
                    Query(_rate("embassy_duplicates_total", "registry"), "{{registry}} copies"),
                ),
                "cps",
            ),
            Panel(
                "Failures",
                (Query(_rate("embassy_errors_total", "component, reason", ""), "{{component}} {{reason}}"),),
                "cps",
            ),
        ),
    ),
    Row(
        "Authority",
        (
            Panel(
                "Who may be written to",
                (Query(f"max by (registry, site) (embassy_writable{_OF})", "{{registry}} {{site}}"),),
                kind="state-timeline",
                description="Home counts as writable until it is fenced.",
            ),
            Panel(
                "Epoch",
                (Query(f"max by (registry, site) (embassy_epoch{_OF})", "{{registry}} {{site}}"),),
                kind="stat",
            ),
            Panel(
                "Age of the step under way",
                (
                    Query(
                        "max by (registry, operation) (time() - (embassy_operation_step_start_timestamp_seconds > 0))",
                        "{{registry}} {{operation}}",
                    ),
                ),
                unit="s",
                kind="stat",
                description="No value: nothing is under way.",
                red_from=600,
            ),
        ),
    ),
    Row(
        "Processes",
        (
            Panel(
                "Versions",
                (Query("max by (component, site, version, instance) (embassy_build_info)", ""),),
                kind="table",
            ),
            Panel(
                "Memory",
                (Query('process_resident_memory_bytes{job=~"embassy-.+"}', "{{job}} {{instance}}"),),
                "bytes",
            ),
            Panel("Scraped", (Query('up{job=~"embassy-.+"}', "{{job}} {{instance}}"),), kind="state-timeline"),
        ),
    ),
)
