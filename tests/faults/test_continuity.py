"""A source, slot or topic that is not what it was halts the stream; nothing is skipped and nothing begins twice."""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition

from deploy.lab import databases
from embassy.model.record import RecordKind
from embassy.wire.record_codec import decode_record
from tests.faults.test_attacks import commit, home_values, shown
from tests.faults.test_outages import get
from tests.harness.kafka import MakeTopic, read_values
from tests.harness.pipeline import MakePipeline, Pipeline, poll_until

_SCHEMA = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);"


def pass_over(pipeline: Pipeline, site: str, before: int = -1) -> None:
    """Do what retention does: up to an offset; -1: the high watermark."""
    admin = pipeline.lab.admin_client(site)
    beginning = TopicPartition(pipeline.topic, 0, before)
    admin.delete_records([beginning])[beginning].result(30)


def keys(values: list[bytes]) -> list[int]:
    """Where KEY records are."""
    return [at for at, value in enumerate(values) if decode_record(value).header.kind is RecordKind.KEY]


def recreate_topic(pipeline: Pipeline, site: str, make_topic: MakeTopic) -> None:
    admin = pipeline.lab.admin_client(site)
    admin.delete_topics([pipeline.topic])[pipeline.topic].result(30)
    poll_until(lambda: pipeline.topic not in admin.list_topics(timeout=10).topics, "the topic is gone")
    make_topic(site, pipeline.topic)


def run_a_while(pipeline: Pipeline) -> None:
    roles = pipeline.start_all()
    commit(pipeline, 1, 5)
    pipeline.wait_level()
    for role in roles.values():
        pipeline.stop(role)


def assert_producer_halts(pipeline: Pipeline, *words: str) -> None:
    producer = pipeline.start("producer")
    assert producer.exit_code() == 9, producer.tail()
    for word in words:
        assert word in producer.tail()


def test_an_emptied_home_topic_halts_the_producer(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA)
    run_a_while(pipeline)
    pass_over(pipeline, "home")
    commit(pipeline, 6, 2)
    assert_producer_halts(pipeline, "holds no record of the stream", pipeline.topic)
    assert home_values(pipeline) == []
    assert shown(pipeline) == [1, 2, 3, 4, 5]


def test_a_recreated_home_topic_halts_the_producer(make_pipeline: MakePipeline, make_topic: MakeTopic) -> None:
    pipeline = make_pipeline(_SCHEMA)
    run_a_while(pipeline)
    recreate_topic(pipeline, "home", make_topic)
    assert_producer_halts(pipeline, "holds no record of the stream", pipeline.topic)


def test_a_recreated_foreign_topic_is_filled_again_from_home(
    make_pipeline: MakePipeline, make_topic: MakeTopic
) -> None:
    pipeline = make_pipeline(_SCHEMA)
    run_a_while(pipeline)
    held = len(home_values(pipeline))
    recreate_topic(pipeline, pipeline.embassy, make_topic)
    consumer = pipeline.start("consumer")
    assert consumer.exit_code() == 9, consumer.tail()
    assert "it was emptied or recreated" in consumer.tail()
    bridge = pipeline.start("bridge")
    abroad = pipeline.lab.client_config(pipeline.embassy, "admin")
    poll_until(lambda: len(read_values(abroad, pipeline.topic)) >= held, "the bridge has carried all of it again")
    pipeline.start("consumer")
    commit(pipeline, 6, 2)
    pipeline.start("producer")
    pipeline.wait_level()
    assert shown(pipeline) == [1, 2, 3, 4, 5, 6, 7]

    # What the bridge has to carry next is gone at home.
    pipeline.stop(bridge)
    carried = read_values(abroad, pipeline.topic)[-1]
    missing = f"record {decode_record(carried).header.sequence + 1} is missing, and later ones have come"
    poll_until(lambda: home_values(pipeline)[-1] != carried, "home has more")
    pass_over(pipeline, "home")
    address = pipeline.folder / "address"
    bridge = pipeline.start("bridge", EMBASSY_ADDRESS_FILE=str(address))
    poll_until(address.is_file, "the bridge answers")
    poll_until(lambda: missing in get(address, "/readyz")[1], "the bridge is not ready")
    assert pipeline.alive(bridge)


@pytest.mark.parametrize("loss", ["made anew", "emptied by retention"])
def test_a_foreign_topic_is_filled_again_from_what_home_still_holds(
    loss: str, make_pipeline: MakePipeline, make_topic: MakeTopic
) -> None:
    """The stream's first records are long gone at home; those that the replica lacks are not."""
    pipeline = make_pipeline(_SCHEMA)
    run_a_while(pipeline)
    producer = pipeline.start("producer")
    commit(pipeline, 6, 2)
    poll_until(lambda: len(keys(home_values(pipeline))) == 2, "the second producer's KEY is in the home topic")
    key = keys(home_values(pipeline))[1]
    poll_until(lambda: len(home_values(pipeline)) > key + 2, "records are behind it")
    bridge, consumer = pipeline.start("bridge"), pipeline.start("consumer")
    pipeline.wait_level()
    for role in (consumer, bridge):
        pipeline.stop(role)
    commit(pipeline, 8, 2)
    pass_over(pipeline, "home", key - 1)
    if loss == "made anew":
        recreate_topic(pipeline, pipeline.embassy, make_topic)
    else:
        pass_over(pipeline, pipeline.embassy)
    bridge = pipeline.start("bridge")
    abroad = pipeline.lab.client_config(pipeline.embassy, "admin")
    poll_until(
        lambda: len(read_values(abroad, pipeline.topic)) >= len(home_values(pipeline)) - 2,
        "the bridge has carried from that KEY on",
    )
    pipeline.stop(bridge)
    held = read_values(abroad, pipeline.topic)
    assert keys(held) == [0]
    bridge = pipeline.start("bridge")
    pipeline.start("consumer")
    pipeline.wait_level()
    assert shown(pipeline) == list(range(1, 10))
    assert keys(read_values(abroad, pipeline.topic)) == [0], "it has gone on, and not begun again"
    assert pipeline.alive(bridge)
    pipeline.stop(producer)
    pipeline.start("producer")
    commit(pipeline, 10, 1)
    pipeline.wait_level()
    assert shown(pipeline) == list(range(1, 11)), "a producer, too, finds the head without the stream's beginning"


def test_a_recreated_slot_halts_the_producer(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA)
    run_a_while(pipeline)
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute("SELECT pg_drop_replication_slot(%s)", (pipeline.slot,))
        commit(pipeline, 6, 1)
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pipeline.slot,))
    commit(pipeline, 7, 1)
    assert_producer_halts(pipeline, "the slot was recreated or", pipeline.slot)
    assert shown(pipeline) == [1, 2, 3, 4, 5]


def test_a_dropped_slot_halts_the_producer(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA)
    run_a_while(pipeline)
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute("SELECT pg_drop_replication_slot(%s)", (pipeline.slot,))
    assert_producer_halts(pipeline, "does not exist", pipeline.slot, "resync")


def test_an_altered_publication_halts_the_producer_until_its_tables_are_copied_and_a_new_one_for_good(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(_SCHEMA)
    producer = pipeline.start_all()["producer"]
    commit(pipeline, 1, 5)
    pipeline.wait_level()
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute("ALTER PUBLICATION embassy DROP TABLE public.deed")
        connection.execute("DELETE FROM public.deed WHERE id < 3")
        commit(pipeline, 6, 2)
        connection.execute("ALTER PUBLICATION embassy ADD TABLE public.deed")
    assert producer.exit_code() == 9, producer.tail()
    assert "has not all changes of public.deed" in producer.tail()
    assert_producer_halts(pipeline, "has not all changes of public.deed", "provision apply")
    assert shown(pipeline) == [1, 2, 3, 4, 5]
    pipeline.provision()
    producer = pipeline.start("producer")
    commit(pipeline, 8, 2)
    pipeline.wait_replica("SELECT array_agg(id ORDER BY id) FROM public.deed", [3, 4, 5, 6, 7, 8, 9])
    pipeline.wait_level()
    pipeline.stop(producer)
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute("DROP PUBLICATION embassy")
        commit(pipeline, 10, 2)
        connection.execute("CREATE PUBLICATION embassy FOR TABLE public.deed, public.sentinel")
    assert_producer_halts(pipeline, "not the one that the stream began with", "resync")
