"""A stream that begins again reads on, whatever state its predecessor left the partition in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message

from deploy.lab.lab import Lab
from embassy.model.errors import EmbassyError, IntegrityError, TransientError
from embassy.runtime.config import KafkaCluster
from embassy.wire.head_search import Log
from embassy.wire.kafka_ends import Range, TopicEnds
from embassy.wire.kafka_reader import StreamsReader, Subscription, TopicReader, new_consumer, watermarks
from embassy.wire.reader_pool import ReaderPool
from tests.harness.kafka import MakeTopic, append_values
from tests.harness.pipeline import poll_until

_VALUES = [b"%06d" % number * 100 for number in range(2_000)]


@pytest.fixture
def cluster(lab: Lab) -> KafkaCluster:
    files = lab.home.kafka.authority.client("admin")
    return KafkaCluster(
        bootstrap=lab.home.kafka.bootstrap, ca=files.ca, certificate=files.certificate, key=files.key
    )


@pytest.fixture
def reader(cluster: KafkaCluster) -> Iterator[StreamsReader]:
    found = StreamsReader(cluster, "test-reader")
    yield found
    found.close()


def taken(subscription: Subscription, count: int) -> list[bytes]:
    values: list[bytes] = []

    def enough() -> bool:
        values.extend(fetched.value for fetched in subscription.take(0.2))
        return len(values) >= count

    poll_until(enough, f"{count} records", 30)
    return values


def test_a_subscription_that_ended_while_paused_does_not_silence_the_next(
    lab: Lab, reader: StreamsReader, make_topic: MakeTopic
) -> None:
    topic = make_topic("home")
    append_values(lab.client_config("home", "admin"), topic, _VALUES)
    first = reader.subscribe(topic, 0, queue_bytes=1)
    poll_until(lambda: first._paused, "the first subscription is full and pauses")
    reader.unsubscribe(topic)
    second = reader.subscribe(topic, 0, queue_bytes=1 << 20)
    assert taken(second, len(_VALUES)) == _VALUES


def test_a_slow_stream_gets_every_record_through_a_small_queue(
    lab: Lab, reader: StreamsReader, make_topic: MakeTopic
) -> None:
    topic = make_topic("home")
    append_values(lab.client_config("home", "admin"), topic, _VALUES)
    assert taken(reader.subscribe(topic, 0, queue_bytes=2_000), len(_VALUES)) == _VALUES


def test_a_range_is_read_whole(lab: Lab, cluster: KafkaCluster, make_topic: MakeTopic) -> None:
    topic = make_topic("home")
    append_values(lab.client_config("home", "admin"), topic, _VALUES)
    with TopicReader(cluster, topic, "test-range") as log:
        assert log.bounds() == (0, len(_VALUES))
        assert [fetched.value for fetched in log.read(0, len(_VALUES))] == _VALUES
        assert [fetched.offset for fetched in log.read(1_990, 1_995)] == list(range(1_990, 1_995))
        assert list(log.read(5, 5)) == []


def test_many_streams_read_their_topics_with_few_clients(
    lab: Lab, cluster: KafkaCluster, make_topic: MakeTopic
) -> None:
    topics = [make_topic("home") for _ in range(4)]
    for number, topic in enumerate(topics):
        append_values(lab.client_config("home", "admin"), topic, _VALUES[number:])
    pool = ReaderPool(cluster, "test-pool", most=2)
    try:
        with ThreadPoolExecutor(len(topics)) as threads:
            found = list(threads.map(lambda topic: _values(pool.log(topic)), topics))
        assert found == [_VALUES[number:] for number in range(len(topics))]
        # Whoever has seen enough gives the client back: with two of them, three could not have left off like this.
        for topic in topics[:3]:
            assert next(pool.log(topic).read(5, 1_000)).offset == 5
        assert pool.log(topics[0]).bounds() == (0, len(_VALUES))
    finally:
        pool.close()


def test_a_clients_own_word_that_a_topic_is_gone_lets_the_stream_begin_again_and_a_brokers_halts_it(
    lab: Lab, reader: StreamsReader, make_topic: MakeTopic
) -> None:
    """In an outage that lasts, a client says so of topics that are all there."""
    topic = make_topic("home")
    append_values(lab.client_config("home", "admin"), topic, _VALUES[:10])
    families: dict[int, type[EmbassyError]] = {
        KafkaError._UNKNOWN_PARTITION: TransientError,
        KafkaError._UNKNOWN_TOPIC: TransientError,
        KafkaError.UNKNOWN_TOPIC_OR_PART: IntegrityError,
    }
    for code, family in families.items():
        subscription = reader.subscribe(topic, 0, queue_bytes=1 << 20)
        assert taken(subscription, 10) == _VALUES[:10], "whatever was said to the one before"
        reader._hand_out([Message(topic=topic, error=KafkaError(code))])
        with pytest.raises(family) as failed:
            subscription.take(1)
        assert failed.value.place == topic


def test_a_client_that_nobody_borrows_is_closed(lab: Lab, cluster: KafkaCluster, make_topic: MakeTopic) -> None:
    topic = make_topic("home")
    append_values(lab.client_config("home", "admin"), topic, _VALUES[:10])
    before = _client_threads()
    with closing(ReaderPool(cluster, "test-pool", most=2, idle_seconds=0.3)) as pool:
        first = pool.log(topic).read(0, 10)
        assert next(first).value == _VALUES[0]
        one = len(_client_threads() - before)
        assert one
        assert pool.log(topic).bounds() == (0, 10)
        assert len(_client_threads() - before) > one
        poll_until(lambda: len(_client_threads() - before) <= one, "the client that was given back is closed", 10)
        assert [fetched.value for fetched in first] == _VALUES[1:10], "the one that is borrowed is not"
        poll_until(lambda: not _client_threads() - before, "the other one is closed too", 10)
        assert pool.log(topic).bounds() == (0, 10), "whoever looks then gets a new one"


def _client_threads() -> set[str]:
    """The threads that the Kafka library runs in this process."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it may end just then
            if (task / "comm").read_text(encoding="ascii").startswith("rdk:"):
                found.add(task.name)
    return found


def _values(log: Log) -> list[bytes]:
    return [fetched.value for fetched in log.read(*log.bounds())]


def test_a_client_that_was_used_before_takes_a_cluster_that_is_down_for_no_topic_that_is_gone(
    lab: Lab, cluster: KafkaCluster, make_topic: MakeTopic
) -> None:
    topic, gone = make_topic("home"), "s-" + "0" * 32
    append_values(lab.client_config("home", "admin"), topic, _VALUES[:10])
    noticed: list[KafkaError] = []
    pool = ReaderPool(cluster, "test-pool", most=1)
    witness = new_consumer(cluster, "test-witness", noticed.append, eof=True)

    def has_noticed() -> bool:
        """Whether clients have lost their connections; one that is asked a moment earlier waits, as a new one does."""
        witness.poll(0)
        return bool(noticed)

    def leads() -> bool:
        """It answers before: that it is not the leader."""
        try:
            pool.log(topic).bounds()
        except TransientError:
            return False
        return True

    with ExitStack() as stack:
        for client in (pool, witness):
            stack.enter_context(closing(client))
        ends = stack.enter_context(TopicEnds(cluster, "test-ends", timeout_seconds=5))
        assert pool.log(topic).bounds() == (0, 10)
        assert ends.bounds([topic]) == {topic: (0, 10)}
        assert watermarks(witness, topic, 10) == (0, 10)
        assert not has_noticed()
        before = _client_threads()
        short = stack.enter_context(closing(ReaderPool(cluster, "test-short", idle_seconds=1)))
        assert short.log(topic).bounds() == (0, 10)
        others = _client_threads() - before
        assert others
        lab.home.kafka.kill9()
        poll_until(has_noticed, "clients notice that the broker is gone")
        poll_until(lambda: not others & _client_threads(), "one that nobody borrows is closed all the same", 10)
        with pytest.raises(TransientError):
            pool.log(topic).bounds()
        with pytest.raises(TransientError):
            ends.bounds([topic])
        lab.home.kafka.start()
        poll_until(leads, "the broker leads its partitions again")
        assert pool.log(topic).bounds() == (0, 10)
        assert ends.bounds([topic, gone]) == {topic: (0, 10), gone: None}
        with pytest.raises(IntegrityError, match="the topic is gone"):
            pool.log(gone).bounds()


def test_the_end_of_a_topic_that_was_made_anew_is_read(
    lab: Lab, cluster: KafkaCluster, make_topic: MakeTopic
) -> None:
    """Whoever looks for days on end, as the console does, lives through that: the new one's leader epochs begin again."""
    client, topic = lab.client_config("home", "admin"), make_topic("home")
    append_values(client, topic, [b"before"] * 3)
    lab.home.kafka.kill9()
    lab.home.kafka.start()
    admin = lab.admin_client("home")
    with TopicEnds(cluster, "test-ends", timeout_seconds=2) as ends:

        def read() -> list[bytes]:
            with suppress(TransientError):
                return [fetched.value for fetched in ends.read({topic: Range(0, 3)})[topic]]
            return []

        poll_until(lambda: read() == [b"before"] * 3, "its records are read")
        admin.delete_topics([topic])[topic].result(30)
        poll_until(lambda: ends.bounds([topic])[topic] is None, "the topic is gone")
        make_topic("home", topic)
        append_values(client, topic, [b"after"] * 3)
        poll_until(lambda: read() == [b"after"] * 3, "the new one's records are read", 30)
