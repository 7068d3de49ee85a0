"""What is looked at again and again takes one exchange, whichever tables are there meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import NoneType
from typing import Any

import psycopg
import pytest
from psycopg.errors import AdminShutdown, UndefinedTable, UniqueViolation
from psycopg.errors import SyntaxError as SyntaxError_

from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.pg import large_objects, promotion_store, replica_schema, source_schema
from embassy.pg.connection import connect
from embassy.pg.exchange import Answer, Errand, Exchange, Question
from embassy.pg.orders import Orders, OrdersLook
from embassy.pg.presence import Look, Part
from embassy.pg.reign import Journal, Standing, StandingLook
from tests.harness.lab import MakeDatabase

_STREAM, _NONCE = b"s" * 16, b"n" * 16
_FENCE = """INSERT INTO embassy.fence (nonce, stream, to_epoch, fenced_at, fenced_by, reason, promoted)
            VALUES (%s, %s, 2, now(), 'riga', 'a test', false)"""
_PROGRESS = """INSERT INTO embassy.progress
               (stream, epoch, sequence, hash, incarnation, resume_lsn, key_record, next_offset)
               VALUES (%s, %s, 5, '', '', '0/0', '', 0)"""


def _errand(
    question: Question, tell: Callable[[Answer], None], takes: type[psycopg.Error] | tuple[()] = ()
) -> Errand:
    def take(answer: Answer) -> bool:
        tell(answer)
        return True

    return Errand(lambda: question, take, takes)


@pytest.fixture
def database(lab: Lab, make_database: MakeDatabase) -> Iterator[psycopg.Connection[Any]]:
    dsn = lab.home.postgres.dsn(databases.ADMIN, make_database("home"))
    with connect(dsn, application_name="embassy-test", autocommit=True) as connection:
        yield connection


def test_a_table_that_comes_is_asked_and_one_that_goes_is_not(database: psycopg.Connection[Any]) -> None:
    look = Look(Part("{one}::int + 1"), Part("(SELECT max(id) FROM public.t)", ("public.t",)), one=1)
    exchange = Exchange(database)
    found: list[tuple[Any, ...]] = []
    errand = look.errand(found.append)

    def both() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        exchange.run([errand])
        return look(database), found[-1]

    assert look(database) == (2, None)
    for _ in range(8):  # the statement is prepared meanwhile
        database.execute("CREATE TABLE public.t AS SELECT 7 AS id")
        assert [both() for _ in range(8)] == [((2, 7), (2, 7))] * 8
        database.execute("DROP TABLE public.t")
        assert both() == ((2, None), (2, None))


def test_what_travels_together_succeeds_and_fails_by_itself(database: psycopg.Connection[Any]) -> None:
    database.execute("CREATE TABLE public.t (id int PRIMARY KEY)")
    exchange = Exchange(database)
    insert, none = (
        Question(b"INSERT INTO public.t VALUES ($1) RETURNING id + 1", (b"1",)),
        Question(b"DO 'BEGIN END'"),
    )
    syntax, missing = Question(b"SELEC"), Question(b"SELECT * FROM public.u")
    for round_ in range(3):  # prepared from the second one on
        first, *answers, last = exchange.ask([insert, syntax, none, missing, insert])
        assert [type(answer) for answer in answers] == [SyntaxError_, NoneType, UndefinedTable]
        assert (first == (2,)) == (round_ == 0)
        assert isinstance(last, UniqueViolation), "the first one was committed although another failed"
    assert database.execute("SELECT count(*) FROM public.t").fetchone() == (1,), "the session is as it was"
    taken: list[Answer] = []
    with pytest.raises(UniqueViolation):
        exchange.run([_errand(insert, taken.append), _errand(none, taken.append)])
    assert taken == [None], "all are told before the error is"
    exchange.run([_errand(insert, taken.append, UniqueViolation)])
    assert isinstance(taken[-1], UniqueViolation), "an answer, where it is taken for one"


def test_a_session_that_is_ended_in_an_exchange_is_an_error(lab: Lab, database: psycopg.Connection[Any]) -> None:
    dsn = lab.home.postgres.dsn(databases.ADMIN, database.info.dbname)
    with connect(dsn, application_name="embassy-test", autocommit=True) as session:
        exchange = Exchange(session)
        assert exchange.ask([Question(b"SELECT 1")]) == [(1,)]
        with pytest.raises(AdminShutdown, match="administrator command"):  # and not what libpq is surprised by
            exchange.ask([Question(b"SELECT pg_terminate_backend(pg_backend_pid())"), Question(b"SELECT 1")])
        with pytest.raises(psycopg.OperationalError):
            exchange.ask([Question(b"SELECT 1")])


def test_a_source_may_be_written_to_until_it_is_shut(database: psycopg.Connection[Any]) -> None:
    standing = StandingLook(_STREAM)
    assert standing(database) == Standing(writable=True, journal=None)
    source_schema.ensure(database, producer_role=databases.OWNER)
    assert standing(database) == Standing(writable=True, journal=None)
    database.execute(_FENCE, (_NONCE, b"another stream.."))
    assert standing(database).writable
    database.execute("UPDATE embassy.fence SET stream = %s", (_STREAM,))
    assert standing(database) == Standing(writable=False, journal=None)


def test_a_replica_may_be_written_to_once_it_is_promoted(database: psycopg.Connection[Any]) -> None:
    standing = StandingLook(_STREAM)
    replica_schema.ensure(database)
    assert standing(database) == Standing(writable=True, journal=None), "it does not know the stream"
    database.execute(_PROGRESS, (_STREAM, 1))
    assert standing(database) == Standing(writable=False, journal=Journal(1, promoted=False, step_begun_at=0.0))
    promotion_store.begin(database, nonce=_NONCE, stream=_STREAM, epochs=(1, 2), document="{}")
    promotion_store.intend(database, _NONCE, "epoch", again=False)
    begun = database.execute("SELECT extract(epoch FROM intent_at)::float8 FROM embassy.promotion").fetchone()
    assert begun is not None
    assert standing(database) == Standing(
        writable=False, journal=Journal(1, promoted=False, step_begun_at=begun[0])
    )
    database.execute("UPDATE embassy.progress SET epoch = 2")
    promotion_store.note_done(database, _NONCE, "epoch", {})
    assert standing(database) == Standing(
        writable=True, journal=Journal(2, promoted=False, step_begun_at=begun[0])
    )
    promotion_store.end(database, _NONCE, "promoted")
    assert standing(database) == Standing(writable=True, journal=Journal(2, promoted=True, step_begun_at=0.0))


def test_orders_at_home_are_seen(database: psycopg.Connection[Any]) -> None:
    look = OrdersLook(_STREAM)
    assert look(database) == Orders(None, copies=False, large_object_changes=look(database).large_object_changes)
    source_schema.ensure(database, producer_role=databases.OWNER)
    assert look(database)[:2] == (None, False)
    asked = source_schema.request_rotation(database, _STREAM)
    assert look(database)[:2] == (asked, False)
    database.execute("CREATE TABLE public.t (id int PRIMARY KEY)")
    database.execute("SELECT embassy.request_copy('public', 't', NULL, NULL, 'a test')")
    assert look(database)[:2] == (asked, True)


def test_commits_wait_for_the_disk_where_the_server_would_be_slow_to_write(
    lab: Lab, database: psycopg.Connection[Any]
) -> None:
    def mode() -> str:
        with connect(
            lab.home.postgres.dsn(databases.ADMIN, database.info.dbname),
            application_name="embassy-test",
            autocommit=True,
        ) as session:
            source_schema.commit_without_disk(session)
            return str((session.execute("SHOW synchronous_commit").fetchone() or ("",))[0])

    assert mode() == "off"
    database.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    try:
        database.execute("SELECT pg_reload_conf()")
        with connect(
            lab.home.postgres.dsn(databases.ADMIN, database.info.dbname),
            application_name="embassy-test",
            autocommit=True,
        ) as session:
            while session.execute("SHOW wal_writer_delay").fetchone() != ("10s",):
                session.execute("SELECT pg_sleep(0.01)")
        assert mode() == "local"
    finally:
        database.execute("ALTER SYSTEM RESET wal_writer_delay")
        database.execute("SELECT pg_reload_conf()")


def test_where_there_are_no_large_objects_a_look_is_asked_along(database: psycopg.Connection[Any]) -> None:
    taken: list[int] = []
    errand = large_objects.LookWhereNone(_STREAM).errand(taken.append)
    exchange = Exchange(database)
    exchange.run([errand])
    assert not taken, "what carries them is not there"
    source_schema.ensure(database, producer_role=databases.OWNER)
    exchange.run([errand])
    assert len(taken) == 1
    state = large_objects.state(database, _STREAM)
    assert state is not None
    assert (state.as_of is not None, state.behind) == (True, 0)

    database.execute("SELECT lo_create(1)")
    exchange.run([errand])
    assert large_objects.state(database, _STREAM) == state, "an object is looked for in a session of its own"
    large_objects.carry_all(database, _STREAM)
    database.execute("SELECT lo_unlink(1)")
    exchange.run([errand])
    assert len(taken) == 1, "the replica is still to be told that it is gone"
    large_objects.carry_all(database, _STREAM)
    exchange.run([errand])
    assert len(taken) == 2
