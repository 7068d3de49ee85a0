"""One stream's consumer between a real topic and a real replica."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from consumers import one_ahead, stream_consumer
from consumers.stream_consumer import StreamConsumer
from deploy.lab import databases, key_material, role_configs
from deploy.lab.lab import Lab
from embassy.model.batch import Batch
from embassy.model.chain import Standing
from embassy.model.control import Point, Suspect
from embassy.model.errors import EmbassyError, IntegrityError, RefusedError, StaleError
from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.pg import control_store, progress_store, replica_schema
from embassy.runtime.config import ConsumerTuning, KafkaCluster, Protection, Replica
from embassy.runtime.stop import Stop
from embassy.runtime.supervised_stream import Finished
from embassy.wire.batch_codec import BatchEncoder
from embassy.wire.enrolment import Enrolment, load_enrolment
from embassy.wire.kafka_reader import StreamsReader
from embassy.wire.keyring import load_identity, load_recipient
from embassy.wire.opening import Opener
from embassy.wire.public_keys import load_public_recipient
from embassy.wire.reader_pool import ReaderPool
from embassy.wire.sealing import Sealer
from embassy.wire.verifying import RecordVerifier
from tests.harness.kafka import MakeTopic
from tests.harness.pipeline import poll_until
from tests.harness.two_databases import MakePair, TwoDatabases

SITE = "embassy-1"


@dataclass
class Recorded:
    """Gauges that remember."""

    head: int = 0
    transactions: int = 0
    others: list[Standing] = field(default_factory=list)
    replays: list[str] = field(default_factory=list)
    freezes: list[bool] = field(default_factory=list)
    awaited: list[str] = field(default_factory=list)

    def received(self, head: Head, timestamp_ms: int) -> None:
        assert timestamp_ms > 0
        self.head = head.sequence

    def applied(self, transactions: int, changes: int, resume_lsn: Lsn, committed_at: int) -> None:
        self.transactions += transactions

    def missing(self, sequence: int | None) -> None:
        pass

    def ignored(self, standing: Standing) -> None:
        self.others.append(standing)

    def replayed(self, reason: str) -> None:
        self.replays.append(reason)

    def frozen(self, *, frozen: bool) -> None:
        self.freezes.append(frozen)

    def awaits(self, holder: str) -> None:
        self.awaited.append(holder)

    def verified(self, rows: Mapping[str, int], succeeded_at: float | None) -> None:
        assert (rows, succeeded_at) == ({}, None)


@dataclass
class Running:
    """A consumer in a thread of its own."""

    thread: threading.Thread
    stop: Stop
    gauges: Recorded
    errors: list[BaseException] = field(default_factory=list)

    def ended(self) -> BaseException:
        poll_until(lambda: not self.thread.is_alive(), "the consumer halts")
        assert self.errors
        return self.errors[0]


@dataclass
class Stream:
    """A stream whose records the test writes, as producer and bridge would."""

    two: TwoDatabases
    lab: Lab
    topic: str
    enrolment: Enrolment
    sealer: Sealer
    head: Head
    make_topic: MakeTopic
    values: list[bytes] = field(default_factory=list)

    def key(self) -> None:
        self._append(self.sealer.key_record(self.head, os.urandom(16), system_identifier=1, timeline=1))

    def batches(self, batches: list[Batch], *, record_bytes: int = 900_000, keep: int | None = None) -> None:
        for batch in batches[:keep]:
            resume_lsn = batch.transactions[-1].end_lsn if batch.complete else self.head.resume_lsn
            for sealed in self.sealer.data_records(
                self.head, BatchEncoder().encode(batch), resume_lsn, record_bytes
            ):
                self._append(sealed)

    def _append(self, sealed: tuple[bytes, Head]) -> None:
        value, self.head = sealed
        self.values.append(value)

    def carry(self, first: int = 0, last: int | None = None) -> None:
        """Append what was sealed to the embassy's topic."""
        producer = Producer({**self.lab.site(SITE).kafka.client_config("bridge"), "log_level": 0, "acks": "all"})
        for value in self.values[first:last]:
            producer.produce(self.topic, value)
        assert producer.flush(30) == 0

    def carry_new(self) -> None:
        self.carry()
        self.values.clear()

    def delete_topic(self) -> None:
        admin: AdminClient = self.lab.admin_client(SITE)
        admin.delete_topics([self.topic])[self.topic].result(30)
        poll_until(lambda: self.topic not in admin.list_topics(timeout=10).topics, "the topic is gone")

    def cluster(self) -> KafkaCluster:
        broker = self.lab.site(SITE).kafka
        files = broker.authority.client("consumer")
        return KafkaCluster(bootstrap=broker.bootstrap, ca=files.ca, certificate=files.certificate, key=files.key)

    @contextmanager
    def consumer(
        self,
        *,
        protection: Protection | None = None,
        until: Point | None = None,
        delay_seconds: float = 0,
        wall: Callable[[], float] = time.time,
        **tuning: float,
    ) -> Iterator[Running]:
        dsn = self.lab.site(SITE).postgres.dsn(databases.CONSUMER, self.two.replica.info.dbname)
        recipient = load_recipient(role_configs.recipient(self.lab.layout, SITE))
        reader = StreamsReader(self.cluster(), f"test-{self.topic}")
        readers = ReaderPool(self.cluster(), f"test-{self.topic}-resume")
        gauges = Recorded()
        ahead = one_ahead.new_executor()
        consumer = StreamConsumer(
            "test",
            topic=self.topic,
            enrolment=self.enrolment,
            signers=RecordVerifier(self.enrolment),
            replica=Replica(dsn=dsn, apply_delay_seconds=delay_seconds),
            readers=readers,
            reader=reader,
            opener=Opener(recipient, self.enrolment),
            tuning=ConsumerTuning.model_validate(tuning),
            gauges=gauges,
            clock=time.monotonic,
            ahead=ahead,
            wall=wall,
            protection=protection,
            until=until,
        )
        stop = Stop()

        def run() -> None:
            try:
                consumer.run(stop, lambda: None)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                running.errors.append(error)

        running = Running(threading.Thread(target=run), stop, gauges)
        running.thread.start()
        try:
            yield running
        finally:
            stop.set()
            running.thread.join(90)
            ahead.shutdown()
            reader.close()
            readers.close()
        assert not running.thread.is_alive()

    def level(self, running: Running) -> None:
        def reached() -> bool:
            assert not running.errors, running.errors
            found = progress_store.read(self.two.replica, self.enrolment.stream)
            return found is not None and found.head == self.head

        poll_until(reached, "the replica is level")
        self.two.compare()


@pytest.fixture
def stream(lab: Lab, pair: MakePair, make_topic: MakeTopic) -> Stream:
    two = pair("CREATE SCHEMA s; CREATE TABLE s.t (id integer PRIMARY KEY, v text);")
    name = os.urandom(16).hex()
    key_material.enrol(lab.layout, name)
    operators: list[Path] = [
        role_configs.public(role_configs.operator(lab.layout, person)) for person in role_configs.OPERATORS
    ]
    enrolment = load_enrolment(
        role_configs.enrolment(lab.layout, name), operators=operators, threshold=2, stream=name
    )
    replica_schema.ensure(two.replica)
    progress_store.enrol(two.replica, enrolment.stream, enrolment.genesis())
    recipient = load_public_recipient(role_configs.public(role_configs.recipient(lab.layout, SITE)))
    sealer = Sealer(load_identity(role_configs.identity(lab.layout)), enrolment, [recipient])
    topic = make_topic(SITE, f"s-{name}")
    return Stream(two, lab, topic, enrolment, sealer, enrolment.genesis(), make_topic)


def insert(stream: Stream, first: int, last: int) -> list[Batch]:
    stream.two.source.execute(
        "INSERT INTO s.t SELECT i, repeat(md5(i::text), 8) FROM generate_series(%s::integer, %s) i", (first, last)
    )
    return stream.two.batches(part_messages=300)


def test_what_is_carried_is_applied_and_a_restart_goes_on(stream: Stream) -> None:
    with stream.consumer() as running:
        stream.key()
        stream.batches(insert(stream, 1, 100))
        stream.carry_new()
        stream.level(running)
        stream.batches(insert(stream, 101, 1200), record_bytes=3_000)
        assert len(stream.values) > 4
        stream.carry_new()
        stream.level(running)
        stream.key()
        stream.batches(insert(stream, 1201, 1300))
        stream.carry_new()
        stream.level(running)
        assert running.gauges.transactions == 3
        assert (running.gauges.others, running.gauges.replays) == ([], [])
    stream.batches(insert(stream, 1301, 1400))
    stream.carry_new()
    with stream.consumer() as running:
        stream.level(running)
        assert running.gauges.transactions == 1


def test_a_backlog_is_opened_ahead_and_a_stop_amid_it_loses_nothing(stream: Stream) -> None:
    stream.key()
    for first in range(1, 9000, 300):
        stream.batches(insert(stream, first, first + 299))
    stream.carry_new()
    with stream.consumer() as running:
        poll_until(lambda: running.gauges.transactions > 0, "something is committed")
    before = running.gauges.transactions
    with stream.consumer() as running:
        stream.level(running)
        assert before + running.gauges.transactions == 30, "each once"
        assert (running.errors, running.gauges.others, running.gauges.replays) == ([], [], [])


def test_what_is_whole_is_kept_if_a_record_behind_it_cannot_be_taken(stream: Stream) -> None:
    stream.key()
    stream.batches(insert(stream, 1, 10))
    good = stream.head
    stream.batches(insert(stream, 11, 1200)[1:])
    stream.carry()
    for _ in range(2):
        halted(stream, "part 1 of a transaction came where part 0 is due")
        found = progress_store.read(stream.two.replica, stream.enrolment.stream)
        assert found is not None
        assert found.head == good
        assert stream.two.replica.execute("SELECT count(*) FROM s.t").fetchone() == (10,)


def test_copies_are_passed_over_and_an_open_transaction_comes_again(stream: Stream) -> None:
    stream.key()
    stream.batches(insert(stream, 1, 10))
    large = insert(stream, 11, 1200)
    stream.batches(large, keep=2)
    stream.carry()
    stream.carry()
    with stream.consumer() as running:
        poll_until(lambda: running.gauges.head == stream.head.sequence, "the parts have come")
        assert stream.two.replica.execute("SELECT count(*) FROM s.t").fetchone() == (10,)
    stream.key()
    stream.batches(large)
    stream.carry()
    with stream.consumer() as running:
        stream.level(running)
        assert set(running.gauges.others) <= {Standing.REPEATED, Standing.STRAY}


def test_a_second_consumer_waits_and_takes_over(stream: Stream) -> None:
    stream.key()
    stream.batches(insert(stream, 1, 10))
    stream.carry_new()
    with stream.consumer() as first:
        stream.level(first)
        with stream.consumer() as second:
            stream.batches(insert(stream, 11, 20))
            stream.carry_new()
            stream.level(first)
            assert second.gauges.head == 0
            first.stop.set()
            first.thread.join(90)
            stream.batches(insert(stream, 21, 30))
            stream.carry_new()
            stream.level(second)
            assert second.gauges.transactions == 1


def test_a_consumer_that_only_waits_stops_when_told(stream: Stream) -> None:
    stream.key()
    stream.carry_new()
    with stream.consumer() as first:
        stream.level(first)
        with stream.consumer() as second:
            second.stop.set()
            second.thread.join(90)
            assert second.errors == []


def halted(stream: Stream, expect: str, hold_seconds: float = 60) -> EmbassyError:
    with stream.consumer(hold_seconds=hold_seconds) as running:
        error = running.ended()
    assert isinstance(error, IntegrityError)
    assert expect in str(error)
    assert error.place.startswith(stream.topic)
    assert error.hint
    return error


def test_a_topic_that_was_emptied_halts_and_one_that_is_filled_again_goes_on(stream: Stream) -> None:
    stream.key()
    stream.batches(insert(stream, 1, 10))
    stream.batches(insert(stream, 11, 20))
    stream.carry()
    with stream.consumer() as running:
        stream.level(running)
    stream.delete_topic()
    stream.make_topic(SITE, stream.topic)
    halted(stream, "holds no record, and the replica has applied up to record 3")
    stream.carry(0, 2)
    halted(stream, "ends at record 2, and the replica has applied up to record 3")
    stream.batches(insert(stream, 21, 30))
    stream.carry(2)
    with stream.consumer() as running:
        stream.level(running)
        assert running.gauges.transactions == 1


def test_a_topic_that_holds_newer_records_only_is_held_and_then_halts(stream: Stream) -> None:
    stream.key()
    stream.batches(insert(stream, 1, 10))
    stream.carry_new()
    with stream.consumer() as running:
        stream.level(running)
    stream.delete_topic()
    stream.make_topic(SITE, stream.topic)
    stream.batches(insert(stream, 11, 20))
    missing, stream.values = stream.values, []
    for i in range(3):
        stream.batches(insert(stream, 100 + i, 100 + i))
    stream.carry()

    def keep_coming(running: Running) -> bool:
        stream.carry(2)
        return not running.thread.is_alive()

    with stream.consumer(hold_seconds=0.5) as running:
        poll_until(lambda: keep_coming(running), "the hold ends")
        assert "is missing" in str(running.ended())
    stream.values = missing + stream.values
    stream.carry()
    with stream.consumer() as running:
        stream.level(running)


def test_a_topic_that_is_gone_halts(stream: Stream) -> None:
    stream.delete_topic()
    halted(stream, "the topic is gone")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("DELETE FROM embassy.progress", "no row in embassy.progress"),
        ("DROP TABLE embassy.progress", "not a replica"),
        ("UPDATE embassy.progress SET epoch = 2", "was promoted to epoch 2"),
        ("UPDATE embassy.progress SET hash = '\\x01'", "another enrolment"),
    ],
)
def test_a_replica_that_is_not_the_streams_is_refused(stream: Stream, spoil: str, said: str) -> None:
    stream.two.replica.execute(spoil.encode())
    with stream.consumer() as running:
        error = running.ended()
    assert isinstance(error, RefusedError)
    assert said in str(error)


def test_a_lost_session_is_tried_again_from_the_progress_row(stream: Stream) -> None:
    stream.key()
    stream.batches(insert(stream, 1, 10))
    stream.carry_new()
    with stream.consumer() as running:
        stream.level(running)
        stream.two.replica.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            (f"embassy-consumer-{stream.topic}",),
        )
        stream.batches(insert(stream, 11, 20))
        stream.carry_new()
        error = running.ended()
        assert type(error).__name__ == "TransientError", error
    with stream.consumer() as running:
        stream.level(running)


def rows(stream: Stream) -> int:
    (found,) = stream.two.replica.execute("SELECT count(*) FROM s.t").fetchone() or (0,)
    return int(found)


def one_by_one(stream: Stream, first: int, last: int) -> None:
    for number in range(first, last):
        stream.two.source.execute("INSERT INTO s.t VALUES (%s, 'v')", (number,))


def lift(stream: Stream, freeze_id: str) -> bool:
    return control_store.unfreeze(
        stream.two.replica,
        stream.enrolment.stream,
        freeze_id=freeze_id,
        by="an order",
        stop_at=None,
        at_once=False,
    )


def test_a_run_ends_at_a_point_within_a_batch_and_the_next_goes_on_behind_it(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.key()
    one_by_one(stream, 0, 10)
    stream.two.source.execute("UPDATE s.t SET v = 'changed' WHERE id = 2")
    (batch,) = batches = stream.two.batches()
    stream.batches(batches)
    stream.carry_new()
    for done in (4, 7):
        with stream.consumer(until=Point(lsn=batch.transactions[done - 1].commit_lsn)) as running:
            assert isinstance(running.ended(), Finished)
        assert rows(stream) == done
    with stream.consumer(until=Point(time=batch.transactions[8].committed_at)) as running:
        running.ended()
    assert rows(stream) == 9
    anywhere = Point(lsn=batch.transactions[0].commit_lsn)
    with stream.consumer() as running:
        stream.level(running)
        monkeypatch.setattr(stream_consumer, "_LEASE_SECONDS", 0.2)
        with stream.consumer(until=anywhere) as beside:
            error = beside.ended()
        assert isinstance(error, StaleError)
        assert "another consumer applies this stream: embassy-consumer-" in str(error)
    assert control_store.freeze(stream.two.replica, stream.enrolment.stream, by="anna", reason="to see")
    with stream.consumer(until=anywhere) as running:
        error = running.ended()
    assert isinstance(error, RefusedError)
    assert "frozen by anna: to see" in str(error)


@pytest.mark.parametrize("part_messages", [10_000, 300])
def test_a_mass_deletion_freezes_the_stream_before_it_until_it_is_let_pass(
    stream: Stream, part_messages: int
) -> None:
    identity = stream.enrolment.stream
    stream.key()
    stream.batches(insert(stream, 1, 500))
    one_by_one(stream, 600, 605)
    stream.two.source.execute("DELETE FROM s.t WHERE id <= 400")
    one_by_one(stream, 700, 705)
    stream.batches(stream.two.batches(part_messages=part_messages))
    stream.carry_new()
    protection = Protection(max_deletes_per_transaction=1000, max_changed_share=0.5, share_from_rows=100)
    with stream.consumer(protection=protection) as running:
        poll_until(lambda: running.gauges.freezes[-1:] == [True] or bool(running.errors), "it freezes")
        assert not running.errors
        freeze = control_store.read(stream.two.replica, identity).freeze
        assert freeze is not None
        assert isinstance(freeze.suspect, Suspect)
        assert "400 rows of s.t" in freeze.reason or "300 rows of s.t" in freeze.reason
        assert rows(stream) == 505
        assert not lift(stream, str(uuid.uuid4()))
        assert lift(stream, freeze.id)
        assert control_store.read(stream.two.replica, identity).lifted_by == "an order"
        stream.level(running)
        assert rows(stream) == 110


def test_a_delayed_replica_applies_nothing_before_its_time_and_freezes_meanwhile(stream: Stream) -> None:
    stream.key()
    stream.batches(insert(stream, 1, 10))
    stream.carry_new()
    now = [time.time()]
    with stream.consumer(delay_seconds=3600, wall=lambda: now[0]) as running:
        poll_until(lambda: running.gauges.head == 2, "the batch has come")
        assert control_store.freeze(stream.two.replica, stream.enrolment.stream, by="anna", reason="to see")
        poll_until(lambda: running.gauges.freezes[-1:] == [True], "it freezes while it waits")
        now[0] += 3700
        assert rows(stream) == 0
        freeze = control_store.read(stream.two.replica, stream.enrolment.stream).freeze
        assert freeze is not None
        assert lift(stream, freeze.id)
        stream.level(running)
