from __future__ import annotations

from structlog.testing import capture_logs

from embassy.model.batch import Batch, Transaction
from embassy.model.chain import Standing
from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.pg.slots import SlotState
from embassy.runtime import metrics as catalogue
from embassy.runtime.cluster_link import ClusterLink
from embassy.runtime.gauges import (
    BridgeGauges,
    ConsumerGauges,
    LifecycleGauges,
    ProducerGauges,
)
from embassy.runtime.metrics import CATALOGUE, Kind, Metric, Metrics

WALL = 1_700_000_000.0


def _metrics(component: str = "producer") -> Metrics:
    return Metrics(version="1.2", component=component, site="home")


def _value(metrics: Metrics, metric: Metric, **labels: str) -> float | None:
    """A series as a scraper sees it; None if it is not there."""
    wanted = metric.name + "{" + ",".join(f'{key}="{labels[key]}"' for key in sorted(labels)) + "}"
    for line in metrics.exposition()[0].decode().splitlines():
        series, _, value = line.rpartition(" ")
        if series == wanted:
            return float(value)
    return None


def _link(metrics: Metrics) -> ClusterLink:
    return ClusterLink(metrics, catalogue.KAFKA_CONNECTED, component="producer", site="home")


def _batch(*ends: int, complete: bool = True) -> Batch:
    transactions = tuple(
        Transaction(n, Lsn(end - 8), Lsn(end), int((WALL - 2) * 1e6), 3) for n, end in enumerate(ends)
    )
    return Batch((), (), b"", transactions, 0, complete=complete)


def test_the_catalogue_has_each_name_once_with_the_prefix_and_the_suffix_of_its_kind() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(set(names)) == len(names)
    constants = {value for value in vars(catalogue).values() if isinstance(value, Metric)}
    assert constants == set(CATALOGUE)
    for metric in CATALOGUE:
        assert metric.name.startswith("embassy_")
        assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER)
        assert metric.help.endswith(".")


def test_each_role_exposes_metrics_of_the_catalogue_only() -> None:
    metrics = _metrics("consumer")
    ProducerGauges(metrics, "land", link=_link(metrics))
    BridgeGauges(metrics, "land", link=_link(metrics))
    ConsumerGauges(metrics, "land")
    LifecycleGauges(metrics, "consumer", ["land"])
    text = metrics.exposition()[0].decode()
    exposed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE embassy_")}
    assert exposed <= {metric.name for metric in CATALOGUE}
    assert {"embassy_events_total", "embassy_slot_lost", "embassy_apply_halted"} <= exposed
    assert "_created" not in text


def test_what_is_not_known_yet_has_no_series() -> None:
    metrics = _metrics()
    gauges = ProducerGauges(metrics, "land", link=_link(metrics))
    for stage in ("captured", "published"):
        assert _value(metrics, catalogue.HEARTBEAT, registry="land", stage=stage) is None
        assert _value(metrics, catalogue.POSITION, registry="land", stage=stage) is None
    assert _value(metrics, catalogue.SLOT_SAFE, registry="land") is None
    assert _value(metrics, catalogue.EVENTS, registry="land", stage="captured") == 0
    assert gauges.newest_seconds() == 0


def test_a_batch_moves_the_captured_stage_and_its_acknowledgement_the_published_one() -> None:
    metrics = _metrics()
    gauges = ProducerGauges(metrics, "land", link=_link(metrics), wall=lambda: WALL)
    gauges.captured(_batch(100, 200), 5000)
    assert _value(metrics, catalogue.EVENTS, registry="land", stage="captured") == 6
    assert _value(metrics, catalogue.TRANSACTIONS, registry="land", stage="captured") == 2
    assert _value(metrics, catalogue.BYTES, registry="land", stage="captured") == 5000
    assert _value(metrics, catalogue.POSITION, registry="land", stage="captured") == 200
    assert _value(metrics, catalogue.HEARTBEAT, registry="land", stage="captured") == WALL - 2
    assert _value(metrics, catalogue.KAFKA_CONNECTED, site="home") == 0
    gauges.published(Lsn(200), int((WALL - 2) * 1e6), 1234)
    assert _value(metrics, catalogue.POSITION, registry="land", stage="published") == 200
    assert _value(metrics, catalogue.BYTES, registry="land", stage="published") == 1234
    assert _value(metrics, catalogue.KAFKA_CONNECTED, site="home") == 1
    assert gauges.newest_seconds() == WALL - 2


def test_a_part_of_a_transaction_counts_its_changes_and_moves_neither_time_nor_position() -> None:
    metrics = _metrics()
    gauges = ProducerGauges(metrics, "land", link=_link(metrics), wall=lambda: WALL)
    gauges.published(Lsn(100), int((WALL - 60) * 1e6), 1)
    gauges.captured(_batch(900, complete=False), 5000)
    gauges.published(Lsn(100), int((WALL - 1) * 1e6), 1)
    assert _value(metrics, catalogue.EVENTS, registry="land", stage="captured") == 3
    assert _value(metrics, catalogue.TRANSACTIONS, registry="land", stage="captured") == 0
    assert _value(metrics, catalogue.POSITION, registry="land", stage="captured") is None
    assert gauges.newest_seconds() == WALL - 60
    gauges.published(Lsn(900), int((WALL - 1) * 1e6), 1)
    assert gauges.newest_seconds() == WALL - 1


def test_an_empty_batch_without_a_time_keeps_the_last_time() -> None:
    metrics = _metrics()
    gauges = ProducerGauges(metrics, "land", link=_link(metrics), wall=lambda: WALL)
    gauges.published(Lsn(100), int(WALL * 1e6), 1)
    gauges.captured(Batch((), (), b"", (), 0, complete=True), 10)
    gauges.published(Lsn(500), 0, 1)
    assert gauges.newest_seconds() == WALL
    assert _value(metrics, catalogue.POSITION, registry="land", stage="published") == 500


def test_the_slot_shows_what_it_keeps_and_how_much_is_left() -> None:
    metrics = _metrics()
    gauges = ProducerGauges(metrics, "land", link=_link(metrics))
    gauges.slot(SlotState(Lsn(1), Lsn(2), 300, None, "reserved", active=True))
    assert _value(metrics, catalogue.SLOT_RETAINED, registry="land") == 300
    assert _value(metrics, catalogue.SLOT_LIMIT, registry="land") is None, "without limit"
    gauges.slot(SlotState(Lsn(1), Lsn(2), 300, 700, "extended", active=False))
    assert _value(metrics, catalogue.SLOT_SAFE, registry="land") == 700
    assert _value(metrics, catalogue.SLOT_LIMIT, registry="land") == 1000
    assert _value(metrics, catalogue.SLOT_ACTIVE, registry="land") == 0
    gauges.slot_lost()
    assert _value(metrics, catalogue.SLOT_LOST, registry="land") == 1


def test_a_bridge_counts_what_it_carried_and_what_did_not_count() -> None:
    metrics = _metrics("bridge")
    gauges = BridgeGauges(metrics, "00ff", link=_link(metrics), wall=lambda: WALL)
    gauges.carried(3, 900)
    gauges.bridged(Head(b"", 3, 1, b"", Lsn(70)), int(WALL * 1000) - 500)
    gauges.ignored(Standing.REPEATED)
    gauges.ignored(Standing.UNSIGNED)
    assert _value(metrics, catalogue.RECORDS, registry="00ff", stage="bridged") == 3
    assert _value(metrics, catalogue.POSITION, registry="00ff", stage="bridged") == 70
    assert _value(metrics, catalogue.DUPLICATES, registry="00ff") == 1
    assert _value(metrics, catalogue.IGNORED, registry="00ff", standing="unsigned") == 1
    assert _value(metrics, catalogue.IGNORED, registry="00ff", standing="stray") == 0
    assert gauges.newest_seconds() == WALL - 0.5


def test_a_consumer_shows_received_and_applied_apart() -> None:
    metrics = _metrics("consumer")
    gauges = ConsumerGauges(metrics, "land", wall=lambda: WALL)
    gauges.received(Head(b"", 3, 1, b"", Lsn(90)), int(WALL * 1000))
    gauges.applied(2, 40, Lsn(70), int((WALL - 3) * 1e6))
    gauges.applied(1, 2, Lsn(80), int((WALL - 2) * 1e6))
    gauges.replayed("superseded")
    gauges.replayed("superseded")
    assert _value(metrics, catalogue.POSITION, registry="land", stage="received") == 90
    assert _value(metrics, catalogue.POSITION, registry="land", stage="applied") == 80
    assert _value(metrics, catalogue.EVENTS, registry="land", stage="applied") == 42
    assert _value(metrics, catalogue.REPLAYED, registry="land", reason="superseded") == 2
    text = metrics.exposition()[0].decode()
    assert 'embassy_stage_duration_seconds_sum{stage="applied"} 2.0' in text, "the first tells of a predecessor"


def test_a_cluster_that_comes_and_goes_is_logged_once_each_time() -> None:
    metrics = _metrics("bridge")
    with capture_logs() as entries:
        link = ClusterLink(metrics, catalogue.BRIDGE_CONNECTED, component="bridge", site="home")
        assert link.ready().passed, "not heard from yet"
        for up in (True, True, False, False, False, True, True):
            link.heard(up)
            assert link.ready().passed is up
        for up in (True, False, True):
            link.refused(up)
    assert [entry["log_level"] for entry in entries] == ["warning", "info", "warning"]
    assert _value(metrics, catalogue.BRIDGE_CONNECTED, site="home") == 0
