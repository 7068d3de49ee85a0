"""Progress and rows move together, whatever ends the session between any two steps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from consumers.applier import SETTINGS, Applier
from consumers.inbox import BatchOpened, Event, KeyTaken
from consumers.replica_writer import Bounds, ReplicaWriter
from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.model.batch import Batch, Chunk
from embassy.model.errors import IntegrityError, RefusedError, TransientError
from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.pg import progress_store, replica_schema, source_schema
from embassy.pg.apply_session import ApplySession, Call
from embassy.pg.connection import connect
from embassy.pg.lost_session import transient
from embassy.pg.progress_store import Progress
from embassy.pg.stream_lock import CONSUMER_LEASE
from embassy.runtime import failpoints
from embassy.runtime.failpoints import FailpointReached
from tests.harness.lab import MakeDatabase
from tests.harness.memory_log import GENESIS, STREAM
from tests.harness.two_databases import MakePair, TwoDatabases

KEY = b"the KEY record's value" * 300


class Applied:
    """Gauges that remember."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, Lsn, int]] = []

    def applied(self, transactions: int, changes: int, resume_lsn: Lsn, committed_at: int) -> None:
        self.calls.append((transactions, changes, resume_lsn, committed_at))


class Story:
    """A stream of made-up records around real batches."""

    def __init__(self) -> None:
        self.head = GENESIS
        self.offset = 0
        self.incarnation = b"A" * 16

    def key(self, incarnation: bytes, *, rolls_back: bool = False) -> KeyTaken:
        self.incarnation = incarnation
        self._next(self.head.resume_lsn)
        return KeyTaken(self.head, self.offset, incarnation + KEY, rolls_back)

    def batch(self, batch: Batch) -> BatchOpened:
        self._next(batch.transactions[-1].end_lsn if batch.complete else self.head.resume_lsn)
        return BatchOpened(self.head, self.offset, batch, 1000)

    def told(self, batches: Sequence[Batch]) -> list[Event]:
        return [self.key(b"A" * 16), *(self.batch(batch) for batch in batches)]

    def _next(self, resume_lsn: Lsn) -> None:
        self.offset += 1
        link = hashlib.sha256(self.head.hash + bytes([self.offset % 256])).digest()
        self.head = Head(link, self.head.sequence + 1, 1, self.incarnation, Lsn(resume_lsn))


@pytest.fixture
def two(pair: MakePair) -> TwoDatabases:
    found = pair("CREATE SCHEMA s; CREATE TABLE s.t (id integer PRIMARY KEY, n integer);")
    replica_schema.ensure(found.replica)
    assert progress_store.enrol(found.replica, STREAM, GENESIS)
    return found


def writer(two: TwoDatabases, gauges: Applied | None = None, **bounds: int) -> ReplicaWriter:
    progress = progress_store.read(two.session.connection, STREAM)
    assert progress is not None
    return ReplicaWriter(
        two.session,
        two.applier,
        stream=STREAM,
        progress=progress,
        gauges=gauges or Applied(),
        clock=lambda: 100.0,
        bounds=Bounds(**bounds),
    )


def stored(two: TwoDatabases) -> Progress:
    found = progress_store.read(two.replica, STREAM)
    assert found is not None
    return found._replace(applied_at=0)  # whatever the replica's clock says


def rows(two: TwoDatabases) -> int:
    row = two.replica.execute("SELECT count(*) FROM s.t").fetchone()
    assert row is not None
    return int(row[0])


def insert(two: TwoDatabases, first: int, last: int) -> None:
    two.source.execute("INSERT INTO s.t SELECT i, i FROM generate_series(%s::integer, %s) i", (first, last))


def test_the_row_says_what_is_applied(two: TwoDatabases) -> None:
    insert(two, 1, 5)
    insert(two, 6, 7)
    batches = two.batches()
    story, gauges = Story(), Applied()
    target = writer(two, gauges)
    for event in story.told(batches):
        target.take(event)
    assert stored(two).head == GENESIS
    assert rows(two) == 0
    target.commit()
    newest = batches[-1].transactions[-1]
    assert stored(two) == Progress(story.head, b"A" * 16 + KEY, 2, newest.committed_at) == target.progress
    assert gauges.calls == [(2, 7, newest.end_lsn, newest.committed_at)]
    two.compare()
    target.commit()
    assert len(gauges.calls) == 1


def test_a_key_alone_moves_the_row(two: TwoDatabases) -> None:
    story, gauges = Story(), Applied()
    target = writer(two, gauges)
    target.take(story.key(b"A" * 16))
    target.commit()
    target.take(story.key(b"B" * 16))
    target.commit()
    assert stored(two) == Progress(story.head, b"B" * 16 + KEY, 2)
    assert gauges.calls == [(0, 0, Lsn(0), 0)] * 2


def test_an_empty_batch_moves_the_row_and_keeps_the_time(two: TwoDatabases) -> None:
    insert(two, 1, 1)
    story = Story()
    target = writer(two)
    for event in story.told(two.batches()):
        target.take(event)
    target.commit()
    before = stored(two)
    story._next(Lsn(story.head.resume_lsn + 8))
    target.take(BatchOpened(story.head, story.offset, Batch((), (), b"", (), 0, complete=True), 10))
    target.commit()
    assert stored(two) == before._replace(head=story.head, next_offset=3)


def test_batches_that_are_here_share_a_transaction_up_to_the_bounds(two: TwoDatabases) -> None:
    for i in range(10):
        insert(two, i, i)
    gauges = Applied()
    target = writer(two, gauges, batches=4)
    for event in Story().told(two.batches(together=False)):
        target.take(event)
    target.commit()
    assert [transactions for transactions, *_ in gauges.calls] == [4, 4, 2]
    two.compare()


def test_a_chunk_of_a_copy_is_committed_before_the_next(two: TwoDatabases) -> None:
    insert(two, 1, 1)
    (ordinary,) = two.batches()
    gauges, story = Applied(), Story()
    target = writer(two, gauges, chunk_bytes=1000)
    target.take(story.key(b"A" * 16))
    seen = []
    for first, size in ((1, 400), (2, 700), (3, 2000)):
        text = b"%d\t0\n" % first
        chunk = Chunk(
            relation=0,
            by_range=True,
            key=(0,),
            lower=(b"%d" % (first - 1),),
            lower_inclusive=False,
            upper=(b"%d" % first,),
            spared=(),
            rows=1,
            columns=(0, 1),
            copy_text=text,
        )
        story._next(Lsn(story.head.resume_lsn + 8))
        batch = Batch(ordinary.relations, (), b"", (), 0, complete=True, chunk=chunk)
        target.take(BatchOpened(story.head, story.offset, batch, size))
        seen.append(rows(two))
    assert seen == [0, 2, 3]


def test_a_transaction_in_parts_is_committed_with_its_last(two: TwoDatabases) -> None:
    insert(two, 1, 3)
    insert(two, 10, 30)
    insert(two, 40, 41)
    batches = two.batches(part_messages=8)
    assert [batch.part for batch in batches] == [0, 0, 1, 2, 0]
    seen = []
    target = writer(two)
    for event in Story().told(batches):
        target.take(event)
        target.commit()
        seen.append(rows(two))
    assert seen == [0, 3, 3, 3, 24, 26]
    two.compare()


def test_what_was_whole_before_is_committed_before_the_first_part(two: TwoDatabases) -> None:
    insert(two, 1, 3)
    insert(two, 10, 30)
    target = writer(two)
    story = Story()
    for event in story.told(two.batches(part_messages=8))[:3]:
        target.take(event)
    assert rows(two) == 3
    assert stored(two).next_offset == 2


def test_a_new_incarnation_rolls_back_the_parts_only(two: TwoDatabases) -> None:
    insert(two, 1, 3)
    insert(two, 10, 30)
    batches = two.batches(part_messages=8)
    target = writer(two)
    story = Story()
    for event in story.told(batches[:-1]):
        target.take(event)
        target.commit()
    target.take(story.key(b"B" * 16, rolls_back=True))
    target.commit()
    assert rows(two) == 3
    assert stored(two).head == story.head
    for batch in batches[1:]:
        target.take(story.batch(batch))
    target.commit()
    assert stored(two).key_record == b"B" * 16 + KEY
    two.compare()


def test_where_applying_stops_is_on_disk(two: TwoDatabases) -> None:
    insert(two, 1, 3)
    insert(two, 4, 5)
    (batch,) = two.batches(together=True)
    target = writer(two)
    story = Story()
    target.take(story.key(b"A" * 16))
    written: list[str] = []

    def word(connection: psycopg.Connection[Any]) -> None:
        (lsn,) = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone() or ("",)
        written.append(lsn)

    target.stop(story.batch(batch), range(1), word)
    (on_disk,) = two.replica.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone() or ("",)
    assert rows(two) == 3
    assert Lsn.parse(on_disk) >= Lsn.parse(written[0])


def test_plans_are_kept_where_there_is_nothing_to_choose(two: TwoDatabases) -> None:
    two.both("CREATE TABLE s.pairs (a integer, b integer, n integer, PRIMARY KEY (a, b))")
    insert(two, 1, 1)
    two.source.execute("INSERT INTO s.pairs VALUES (1, 1, 1)")
    for _ in range(3):
        two.source.execute("UPDATE s.t SET n = n + 1")
        two.source.execute("UPDATE s.pairs SET n = n + 1")
    follow(two, Story().told(two.batches(together=False)))
    plans = two.session.connection.execute(
        """SELECT split_part(statement, ' AS ', 1), generic_plans > 0, custom_plans > 0 FROM pg_prepared_statements
           WHERE statement ~ '^(UPDATE ONLY|WITH moved)'"""
    ).fetchall()
    assert sorted(plans) == [
        ('UPDATE ONLY "s"."pairs"', False, True),
        ('UPDATE ONLY "s"."t"', True, False),
        ("WITH moved", True, False),
    ]
    two.compare()


def test_a_row_that_someone_else_has_moved_halts(two: TwoDatabases) -> None:
    insert(two, 1, 3)
    target = writer(two)
    for event in Story().told(two.batches()):
        target.take(event)
    other = GENESIS._replace(hash=b"x" * 32, sequence=9)
    someone = ApplySession(two.replica, place="elsewhere", pulse=lambda: None)
    progress_store.advance(someone, STREAM, GENESIS, Progress(other, b"", 0), 0, commit=False)
    with pytest.raises(IntegrityError, match="no longer at record 0"):
        target.commit()
    two.session.connection.execute("ROLLBACK")
    assert rows(two) == 0
    assert stored(two).head == other


def test_the_key_record_is_written_once_an_incarnation(two: TwoDatabases) -> None:
    story = Story()
    target = writer(two)
    size = "SELECT pg_total_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'embassy.progress'::regclass"
    target.take(story.key(b"A" * 16))
    target.commit()
    before = two.replica.execute(size).fetchone()
    for i in range(100):
        insert(two, i, i)
        for batch in two.batches():
            target.take(story.batch(batch))
        target.commit()
    assert two.replica.execute(size).fetchone() == before
    assert stored(two).key_record == b"A" * 16 + KEY


@contextmanager
def armed(monkeypatch: pytest.MonkeyPatch, text: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "_armed", failpoints.parse(text))
        yield


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("window", [name for name in failpoints.ALL if name.startswith("consumer.")])
def test_a_session_that_ends_anywhere_loses_and_repeats_nothing(
    two: TwoDatabases, lab: Lab, monkeypatch: pytest.MonkeyPatch, window: str, nth: int
) -> None:
    two.both("ALTER TABLE s.t ADD u integer UNIQUE")
    for i in range(3):
        insert(two, 100 * i, 100 * i + 20)
        with two.source.transaction():  # cannot be applied but in exact order
            two.source.execute("INSERT INTO s.t VALUES (%s, 0, 77)", (100 * i + 50,))
            two.source.execute("DELETE FROM s.t WHERE id = %s", (100 * i + 50,))
            two.source.execute("UPDATE s.t SET u = 77 WHERE id = %s", (100 * i,))
        two.source.execute("UPDATE s.t SET u = NULL, n = n + 1")
    events = Story().told(two.batches(part_messages=15, together=False))
    assert any(isinstance(event, BatchOpened) and event.batch.part for event in events)
    with armed(monkeypatch, f"{window}:{nth}:raise"), pytest.raises(FailpointReached):
        follow(two, events)
    dsn = lab.site("embassy-1").postgres.dsn(databases.CONSUMER, two.replica.info.dbname)
    two.session.connection.close()
    with connect(
        dsn, application_name="again", autocommit=True, settings={**ApplySession.settings(), **SETTINGS}
    ) as again:
        two.session = ApplySession(again, place="again", pulse=lambda: None)
        two.applier = Applier(two.session, replayed=lambda _: None, pulse=lambda: None)
        follow(two, events)
        assert stored(two).head == events[-1].head
        two.compare()


def follow(two: TwoDatabases, events: Sequence[Event]) -> None:
    target = writer(two)
    done = target.progress.head.sequence
    for event in events[done:]:
        target.take(event)
        target.commit()


@pytest.fixture
def beating(two: TwoDatabases) -> TwoDatabases:
    """With a heart at the source, whose first beat is in the replica."""
    source_schema.ensure(two.source, producer_role=databases.PRODUCER)
    beat(two)
    follow(two, Story().told(two.batches()))
    return two


def beat(two: TwoDatabases) -> None:
    source_schema.beat(two.source)


def hearts(two: TwoDatabases) -> bool:
    """Whether both sides have the same beat."""
    query = "SELECT id, beat_at FROM embassy.heartbeat"
    return two.source.execute(query).fetchall() == two.replica.execute(query).fetchall() != []


@contextmanager
def exchanges(two: TwoDatabases, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many statements travelled together, each time."""
    seen: list[int] = []
    run = two.session.run

    def counted(calls: Sequence[Call] = ()) -> list[int]:
        seen.append(len(calls))
        return run(calls)

    with monkeypatch.context() as patch:
        patch.setattr(two.session, "run", counted)
        yield seen


def later(two: TwoDatabases, batches: Sequence[Batch]) -> list[Event]:
    """The stream goes on from where the replica is."""
    story = Story()
    progress = stored(two)
    story.head, story.offset = progress.head, progress.next_offset
    return [story.batch(batch) for batch in batches]


def test_a_beat_and_its_commit_are_one_exchange(beating: TwoDatabases, monkeypatch: pytest.MonkeyPatch) -> None:
    gauges = Applied()
    for _ in range(3):
        beat(beating)
        (event,) = later(beating, beating.batches())
        target = writer(beating, gauges)
        with exchanges(beating, monkeypatch) as seen:
            target.take(event)
            assert not hearts(beating)
            assert target.commit()
        assert len(seen) == 1
        assert hearts(beating)
        assert stored(beating).head == event.head == target.progress.head
    assert [transactions for transactions, *_ in gauges.calls] == [1, 1, 1]
    assert beating.replays == []


def test_a_beat_is_committed_with_what_comes_behind_it(beating: TwoDatabases) -> None:
    beat(beating)
    insert(beating, 1, 3)
    beat(beating)
    gauges = Applied()
    target = writer(beating, gauges)
    for event in later(beating, beating.batches(together=False)):
        target.take(event)
    target.commit()
    assert [transactions for transactions, *_ in gauges.calls] == [3]
    assert hearts(beating)
    assert rows(beating) == 3


def test_a_beat_that_finds_no_row_moves_nothing(beating: TwoDatabases) -> None:
    beating.replica.execute("DELETE FROM embassy.heartbeat")
    beat(beating)
    before = stored(beating)
    target = writer(beating)
    for event in later(beating, beating.batches()):
        target.take(event)
    with pytest.raises(IntegrityError):
        target.commit()
    beating.session.connection.execute("ROLLBACK")
    assert beating.replays == ["row count"], "it was looked at row by row"
    assert stored(beating) == before


def test_a_beat_moves_nothing_where_someone_else_has_moved_the_row(beating: TwoDatabases) -> None:
    beat(beating)
    target = writer(beating)
    for event in later(beating, beating.batches()):
        target.take(event)
    beating.replica.execute("UPDATE embassy.progress SET hash = 'x'")
    with pytest.raises(IntegrityError, match="no longer at record"):
        target.commit()
    assert not hearts(beating)


@pytest.mark.parametrize("window", [failpoints.CONSUMER_BEFORE_APPLY, failpoints.CONSUMER_BEFORE_COMMIT])
def test_a_beat_that_was_not_committed_comes_again(
    beating: TwoDatabases, monkeypatch: pytest.MonkeyPatch, window: str
) -> None:
    beat(beating)
    events = later(beating, beating.batches())

    def apply() -> None:
        target = writer(beating)
        target.take(events[0])
        target.commit()

    with armed(monkeypatch, f"{window}:1:raise"), pytest.raises(FailpointReached):
        apply()
    assert not hearts(beating)
    apply()
    assert hearts(beating)


def test_one_session_holds_the_lease_and_its_end_frees_it(lab: Lab, make_database: MakeDatabase) -> None:
    name = make_database("embassy-1")
    dsn = lab.site("embassy-1").postgres.dsn(databases.CONSUMER, name)
    with connect(dsn, application_name="second", autocommit=True) as second:
        with connect(dsn, application_name="first", autocommit=True) as first:
            assert CONSUMER_LEASE.try_take(first, STREAM)
            assert not CONSUMER_LEASE.try_take(second, STREAM)
            assert CONSUMER_LEASE.try_take(second, b"\x08" * 16)
            pid = first.info.backend_pid
            assert (
                CONSUMER_LEASE.holder(second, STREAM)
                == f"first at 127.0.0.1, process {pid} of the replica's server"
            )
            second.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        assert CONSUMER_LEASE.holder(second, STREAM) == ""
        assert CONSUMER_LEASE.try_take(second, STREAM)


def test_a_database_that_is_no_replica_is_refused(lab: Lab, make_database: MakeDatabase) -> None:
    dsn = lab.site("embassy-1").postgres.dsn(databases.CONSUMER, make_database("embassy-1"))
    with connect(dsn, application_name="test", autocommit=True) as connection:
        with pytest.raises(RefusedError, match="not a replica"):
            progress_store.read(connection, STREAM)
        replica_schema.ensure(connection)
        assert progress_store.read(connection, STREAM) is None


def test_a_replica_is_enrolled_once(lab: Lab, make_database: MakeDatabase) -> None:
    dsn = lab.site("embassy-1").postgres.dsn(databases.CONSUMER, make_database("embassy-1"))
    with connect(dsn, application_name="test", autocommit=True) as connection:
        replica_schema.ensure(connection)
        assert progress_store.enrol(connection, STREAM, GENESIS)
        assert progress_store.read(connection, STREAM) == Progress(GENESIS, b"", 0)
        assert not progress_store.enrol(connection, STREAM, GENESIS)
        with pytest.raises(RefusedError, match="another enrolment"):
            progress_store.enrol(connection, STREAM, GENESIS._replace(hash=b"y" * 32))
        with pytest.raises(TransientError, match="has not become its replica yet"):
            progress_store.enrol(connection, STREAM, GENESIS._replace(epoch=2))


def test_a_lost_session_is_transient(two: TwoDatabases) -> None:
    insert(two, 1, 3)
    target = writer(two)
    events = Story().told(two.batches())
    target.take(events[0])
    two.replica.execute("SELECT pg_terminate_backend(%s, 10000)", (two.session.connection.info.backend_pid,))
    with pytest.raises(TransientError), transient("the replica"):
        target.take(events[1])
