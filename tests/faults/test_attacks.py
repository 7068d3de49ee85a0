"""Records that were altered, repeated, reordered, dropped or borrowed on real topics never count."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from embassy.model.record import RecordKind
from embassy.wire.record_codec import decode_record
from tests.harness.kafka import append_values, read_values
from tests.harness.pipeline import MakePipeline, Pipeline, RoleProcess, poll_until

_SCHEMA = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);"
_HOLD = {"consumer": {"hold_seconds": 1.5}}


def commit(pipeline: Pipeline, first: int, count: int) -> None:
    """Transactions 1, 2, 3…: each adds a row."""
    with pipeline.source() as connection:
        for number in range(first, first + count):
            connection.execute("INSERT INTO public.deed VALUES (%s, %s)", (number, f"owner {number}"))


def sealed_at_home(pipeline: Pipeline, rows: int) -> list[bytes]:
    """Records of the home topic that hold the given number of rows, one a record; the producer has stopped."""
    producer = pipeline.start("producer")
    for number in range(1, rows + 1):
        before = len(home_values(pipeline))
        commit(pipeline, number, 1)
        poll_until(lambda before=before: len(home_values(pipeline)) > before, "the record is in the home topic")  # type: ignore[misc]
    pipeline.stop(producer)
    return home_values(pipeline)


def home_values(pipeline: Pipeline) -> list[bytes]:
    return read_values(pipeline.lab.client_config("home", "admin"), pipeline.topic)


def carry(pipeline: Pipeline, values: list[bytes]) -> None:
    """Append to the foreign topic, as a dishonest carrier would."""
    append_values(pipeline.lab.client_config(pipeline.embassy, "admin"), pipeline.topic, values)


def shown(pipeline: Pipeline) -> list[int]:
    with pipeline.replica() as connection:
        return [row[0] for row in connection.execute("SELECT id FROM public.deed ORDER BY id")]


def flip(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


def carry_until_halted(pipeline: Pipeline, consumer: RoleProcess, values: list[bytes]) -> None:
    """Keep bringing records that do not link, as a stream under load does, until the consumer gives up."""
    end = time.monotonic() + 120
    while pipeline.alive(consumer):
        assert time.monotonic() < end, consumer.tail()
        carry(pipeline, values)
    assert consumer.exit_code() == 9, consumer.tail()


def _tampered(values: list[bytes]) -> list[bytes]:
    victim = values[3]
    return [*values[:3], flip(victim, len(victim) // 2), *values[4:]]


def _signature_changed(values: list[bytes]) -> list[bytes]:
    return [*values[:3], flip(values[3], len(values[3]) - 5), *values[4:]]


def _dropped(values: list[bytes]) -> list[bytes]:
    return values[:3] + values[4:]


def _reordered(values: list[bytes]) -> list[bytes]:
    return [*values[:3], values[4], values[3], *values[5:]]


def _key_dropped(values: list[bytes]) -> list[bytes]:
    return values[1:]


@pytest.mark.parametrize("attack", [_tampered, _dropped, _reordered, _key_dropped])
def test_what_does_not_link_halts_the_stream_and_an_honest_copy_mends_it(
    attack: Callable[[list[bytes]], list[bytes]], make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline(_SCHEMA, _HOLD)
    values = sealed_at_home(pipeline, 6)
    assert decode_record(values[0]).header.kind is RecordKind.KEY
    consumer = pipeline.start("consumer")
    bent = attack(values)
    carry(pipeline, bent)
    carry_until_halted(pipeline, consumer, bent[-2:])
    assert "is missing" in consumer.tail()
    assert pipeline.topic in consumer.tail()
    rows = shown(pipeline)
    assert rows == list(range(1, len(rows) + 1))  # the last good state: a prefix of history
    assert len(rows) < 6
    carry(pipeline, values)
    consumer = pipeline.start("consumer")
    poll_until(lambda: shown(pipeline) == [1, 2, 3, 4, 5, 6], "an honest copy mends the stream")
    assert pipeline.alive(consumer)


def test_a_changed_signature_hides_nothing_that_the_record_behind_it_proves(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, _HOLD)
    values = sealed_at_home(pipeline, 6)
    consumer = pipeline.start("consumer")
    carry(pipeline, _signature_changed(values))
    poll_until(lambda: shown(pipeline) == [1, 2, 3, 4, 5, 6], "what is proven by its successor counts")
    assert pipeline.alive(consumer)


def test_copies_garbage_and_other_streams_records_are_passed_over(make_pipeline: MakePipeline) -> None:
    pipeline, other = make_pipeline(_SCHEMA, _HOLD), make_pipeline(_SCHEMA)
    values, foreign = sealed_at_home(pipeline, 4), sealed_at_home(other, 4)
    consumer = pipeline.start("consumer")
    carry(
        pipeline,
        [b"", b"not a record", *foreign, *values[:2], *values[:2], *foreign, *values, *values[::-1], *values],
    )
    poll_until(lambda: shown(pipeline) == [1, 2, 3, 4], "the stream goes through")
    assert pipeline.alive(consumer)


def test_late_words_of_a_replaced_producer_do_not_count(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, _HOLD)
    old = sealed_at_home(pipeline, 3)
    producer = pipeline.start("producer")  # a new incarnation, behind the old one's words
    poll_until(lambda: len(home_values(pipeline)) > len(old), "the successor's KEY")
    append_values(pipeline.lab.client_config("home", "admin"), pipeline.topic, old)
    commit(pipeline, 4, 3)
    pipeline.start("bridge")
    pipeline.start("consumer")
    pipeline.wait_level()
    assert shown(pipeline) == [1, 2, 3, 4, 5, 6]
    assert pipeline.alive(producer)
    foreign = read_values(pipeline.lab.client_config(pipeline.embassy, "admin"), pipeline.topic)
    assert len(foreign) == len(set(foreign)), "the bridge carried something that does not count"


def test_a_forged_key_neither_stops_the_bridge_nor_the_producer(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, _HOLD)
    values = sealed_at_home(pipeline, 2)
    key = values[0]
    forgeries = [flip(key, at) for at in (15, len(key) // 2, len(key) - 100, len(key) - 3_350)]
    append_values(pipeline.lab.client_config("home", "admin"), pipeline.topic, forgeries)
    for stage in ("producer", "bridge", "consumer"):
        pipeline.start(stage)
    commit(pipeline, 3, 2)
    pipeline.wait_level()
    assert shown(pipeline) == [1, 2, 3, 4]
