"""What a broken connection leaves in the foreign topic, and retention takes from it, stops no bridge."""

from __future__ import annotations

from embassy.wire.record_codec import decode_record
from tests.faults.test_attacks import carry, commit, home_values, sealed_at_home, shown
from tests.faults.test_continuity import keys, pass_over
from tests.faults.test_outages import get
from tests.harness.kafka import read_values
from tests.harness.pipeline import MakePipeline, poll_until

_SCHEMA = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);"


def test_a_gap_is_mended_although_the_beginning_is_gone(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA)
    sealed_at_home(pipeline, 2)
    producer = pipeline.start("producer")
    commit(pipeline, 3, 1)
    poll_until(lambda: len(keys(home_values(pipeline))) == 2, "the second producer's KEY is in the home topic")
    key = keys(home_values(pipeline))[1]
    poll_until(lambda: len(home_values(pipeline)) > key + 3, "three records are behind it")
    pipeline.stop(producer)
    values = home_values(pipeline)
    address = pipeline.folder / "address"
    consumer = pipeline.start("consumer", EMBASSY_ADDRESS_FILE=str(address))
    carry(pipeline, [*values[: key + 2], *values[key + 3 :]])
    poll_until(lambda: shown(pipeline)[:2] == [1, 2], "the replica has what was in front of the KEY")
    missing = f"record {decode_record(values[key + 2]).header.sequence} is missing"
    poll_until(lambda: missing in get(address, "/readyz")[1], "the consumer is not ready")
    assert pipeline.stop(consumer) == 0, "it holds on, for what is missing may still come"
    pass_over(pipeline, pipeline.embassy, key)
    abroad = pipeline.lab.client_config(pipeline.embassy, "admin")
    bridge = pipeline.start("bridge")
    poll_until(lambda: values[key + 2] in read_values(abroad, pipeline.topic), "what was lost is carried", 40)
    pipeline.start("consumer", EMBASSY_ADDRESS_FILE=str(address))
    pipeline.start("producer")
    commit(pipeline, 4, 2)
    pipeline.wait_level()
    assert shown(pipeline) == [1, 2, 3, 4, 5]
    assert pipeline.alive(bridge)
    assert get(address, "/readyz")[0] == 200
