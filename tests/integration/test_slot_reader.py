"""A backlog that is read by query is, message for message, what a walsender would have sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import psycopg
import pytest

from deploy.lab.databases import ADMIN, PRODUCER
from deploy.lab.lab import Lab
from embassy.model.errors import TransientError
from embassy.model.lsn import Lsn
from embassy.pg.backlog_session import BacklogSession
from embassy.pg.replication_session import ReplicationSession, SourceIdentity
from producers import slot_reader
from producers.pgoutput_decoder import decode_begin, decode_commit
from producers.slot_reader import Patience, SlotReader
from tests.harness.lab import MakeDatabase
from tests.harness.pipeline import poll_until

_TRANSACTIONS = 300
_RELATION, _TYPE = b"RY"


@pytest.fixture
def database(lab: Lab, make_database: MakeDatabase) -> str:
    return make_database("home")


@pytest.fixture
def source(lab: Lab, database: str) -> Iterator[psycopg.Connection[object]]:
    """An administrator of a database with a slot, and small transactions behind it."""
    with lab.home.postgres.connect(ADMIN, database) as connection:
        connection.execute("CREATE TABLE public.entry (id int PRIMARY KEY, said text NOT NULL)")
        connection.execute("CREATE PUBLICATION embassy FOR TABLE public.entry")
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (_slot(database),))
        yield connection


def _slot(database: str) -> str:
    return f"slot_{database}"


def _reader(
    lab: Lab,
    database: str,
    *,
    patience: Patience | None = None,
    clock: Callable[[], float] = time.monotonic,
    decoding_bytes: int = 0,
) -> SlotReader:
    of_slot: dict[str, Any] = {
        "slot": _slot(database),
        "publication": "embassy",
        "application_name": "embassy-test",
    }
    dsn = lab.home.postgres.dsn(PRODUCER, database)
    return SlotReader(
        "registry",
        open_session=partial(ReplicationSession, dsn, **of_slot, decoding_bytes=decoding_bytes),
        open_backlog=partial(BacklogSession, dsn, **of_slot),
        patience=patience or Patience(1),
        clock=clock,
    )


def _write(source: psycopg.Connection[object], first: int) -> None:
    for number in range(first, first + _TRANSACTIONS):
        source.execute("INSERT INTO public.entry VALUES (%s, %s)", (number, "x" * (number % 50)))


def _received(reader: SlotReader, upto: Lsn, most: int = 20_000) -> list[bytes]:
    """What comes until a transaction has ended behind a position, but what is said of tables."""
    found: list[bytes] = []

    def level() -> bool:
        before = len(found)
        while not reader.drain(found.append, most, 8 << 20):
            pass
        commits = [message for message in found[before:] if message[:1] == b"C"]
        return bool(commits) and decode_commit(commits[-1]).end_lsn >= upto

    poll_until(level, f"everything up to {upto}", 20)
    return [message for message in found if message[0] not in (_RELATION, _TYPE)]


def _end(source: psycopg.Connection[object]) -> Lsn:
    source.execute("INSERT INTO public.entry SELECT max(id) + 1, 'the last' FROM public.entry")
    row = source.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    assert isinstance(row, tuple)
    return Lsn(Lsn.parse(row[0]) - 64)  # the commit's record is the last one, or nearly


def _begin(reader: SlotReader, source: psycopg.Connection[object], database: str) -> tuple[Lsn, SourceIdentity]:
    """Take the slot at its position; once a session that has just ended has let go of it."""
    row = source.execute(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", (_slot(database),)
    ).fetchone()
    assert isinstance(row, tuple)
    identity = reader.session.identity()
    reader.session.start(Lsn.parse(row[0]), wait_seconds=10)
    return Lsn.parse(row[0]), identity


def _streamed(lab: Lab, database: str, source: psycopg.Connection[object], upto: Lsn) -> list[bytes]:
    """What a walsender sends from the slot's position on."""
    with closing(_reader(lab, database)) as reader:
        _begin(reader, source, database)
        return _received(reader, upto)


def _copies(source: psycopg.Connection[object]) -> int:
    """How many temporary slots there are."""
    return len(
        source.execute(
            "SELECT FROM pg_replication_slots WHERE database = current_database() AND temporary"
        ).fetchall()
    )


def test_a_backlog_by_query_is_what_a_walsender_would_have_sent(
    lab: Lab, database: str, source: psycopg.Connection[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_reader, "_STRETCH_BYTES", 8_192)
    with closing(_reader(lab, database)) as reader, lab.home.postgres.connect(ADMIN, database) as other:
        resume_lsn, identity = _begin(reader, source, database)
        _write(source, 0)
        with other.transaction():
            other.execute("INSERT INTO public.entry VALUES (-1, 'open'), (-2, 'across'), (-3, 'the seam')")
            _write(source, 1_000)
            reader.late()
            assert reader.turn(resume_lsn, identity), "it pays"
            assert _copies(source) == 1
        source.execute("ALTER TABLE public.entry ADD COLUMN more text DEFAULT 'behind the seam'")
        source.execute("INSERT INTO public.entry SELECT i, 'all of', 'one' FROM generate_series(2000, 2300) AS i")
        upto = _end(source)
        found = _received(reader, upto, most=7)
        poll_until(lambda: _copies(source) == 0, "the copy of the slot is gone")
    assert found == _streamed(lab, database, source, upto)
    begins = [decode_begin(message).final_lsn for message in found if message[:1] == b"B"]
    assert begins == sorted(set(begins))
    assert len(begins) == 2 * _TRANSACTIONS + 3


@pytest.mark.parametrize(("asked", "spills"), [(0, True), (64 << 20, False)])
def test_a_large_transaction_is_decoded_in_the_memory_that_is_asked_for(
    lab: Lab, database: str, source: psycopg.Connection[object], asked: int, *, spills: bool
) -> None:
    source.execute(f"ALTER DATABASE {database} SET logical_decoding_work_mem = '64kB'".encode())

    def spilled() -> object:
        row = source.execute(
            "SELECT total_txns > 0, spill_count > 0 FROM pg_stat_replication_slots WHERE slot_name = %s",
            (_slot(database),),
        ).fetchone()
        assert isinstance(row, tuple)
        return row

    with closing(_reader(lab, database, decoding_bytes=asked)) as reader:
        _begin(reader, source, database)
        source.execute("INSERT INTO public.entry SELECT i, 'one of many' FROM generate_series(1, 5000) AS i")
        _received(reader, _end(source))
    poll_until(lambda: spilled() == (True, spills), "the server has told of its decoding")


def test_the_slot_is_held_while_its_backlog_is_read_by_query(
    lab: Lab, database: str, source: psycopg.Connection[object]
) -> None:
    with closing(_reader(lab, database)) as reader, closing(_reader(lab, database)) as second:
        resume_lsn, identity = _begin(reader, source, database)
        _write(source, 0)
        reader.late()
        assert reader.turn(resume_lsn, identity)
        with pytest.raises(TransientError, match="is active for PID"):
            second.session.start(resume_lsn)
        reader.confirm(resume_lsn)
        assert not _received(reader, _end(source))[0].startswith(b"I"), "whole transactions"


def test_what_cannot_be_read_by_query_is_streamed(
    lab: Lab, database: str, source: psycopg.Connection[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(_reader(lab, database)) as reader:
        resume_lsn, identity = _begin(reader, source, database)
        _write(source, 0)
        reader.late()
        with monkeypatch.context() as refused:
            refused.setattr(
                BacklogSession, "begin", lambda session, _: session._connection.execute("no such thing")
            )
            assert not reader.turn(resume_lsn, identity)
        reader.late()
        assert not reader.turn(resume_lsn, identity), "nor is it tried again at once"
        found = _received(reader, _end(source))
    assert len([message for message in found if message[:1] == b"I"]) == _TRANSACTIONS + 1


def test_a_small_backlog_is_streamed(lab: Lab, database: str, source: psycopg.Connection[object]) -> None:
    with closing(_reader(lab, database, patience=Patience(1 << 30))) as reader:
        resume_lsn, identity = _begin(reader, source, database)
        _write(source, 0)
        reader.late()
        assert not reader.turn(resume_lsn, identity)
        assert _copies(source) == 0


def test_a_query_that_nobody_reads_is_ended_and_not_begun_again_at_once(
    lab: Lab, database: str, source: psycopg.Connection[object]
) -> None:
    """Its snapshot holds back vacuum at the source."""
    now, patience = [1000.0], Patience(1)
    for stuck in (True, False):
        with closing(_reader(lab, database, patience=patience, clock=lambda: now[0])) as reader:
            resume_lsn, identity = _begin(reader, source, database)
            _write(source, 1_000 * len(now))
            reader.late()
            assert reader.turn(resume_lsn, identity) is stuck
            now.append(0)
            now[0] += 61
            if stuck:
                with pytest.raises(TransientError, match="has waited a minute"):
                    reader.confirm(resume_lsn)
            else:
                reader.confirm(resume_lsn)
