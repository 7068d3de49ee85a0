"""Tables that are altered, renamed, truncated, dropped while their rows are copied, and written to all the while."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from deploy.lab import databases
from tests.harness.meanwhile import meanwhile
from tests.harness.pipeline import Connection, MakePipeline, Pipeline, poll_until

_ROWS = 1_500
_SCHEMA = """
CREATE TABLE public.person (id int PRIMARY KEY, code text NOT NULL, note text, biography text);
ALTER TABLE public.person ALTER biography SET STORAGE EXTERNAL;
CREATE TABLE public.twin (id int PRIMARY KEY, code text NOT NULL, note text, biography text);
CREATE TABLE public.entry (at timestamptz, amount numeric);
CREATE TABLE public.parcel (region int, id int, note text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE public.parcel_1 PARTITION OF public.parcel FOR VALUES IN (1);
CREATE TABLE public.parcel_2 PARTITION OF public.parcel FOR VALUES IN (2);
"""
_PERSONS = f"""
INSERT INTO person SELECT i, 'c' || i, 'n', CASE WHEN i % 10 = 0 THEN repeat(md5(i::text), 80) END
FROM generate_series(1, {_ROWS}) i"""
_FILL = f"""
{_PERSONS};
INSERT INTO twin SELECT i, 'twin ' || i, 'n', 'short' FROM generate_series(1, {_ROWS}) i;
INSERT INTO entry SELECT now(), i FROM generate_series(1, {_ROWS}) i;
INSERT INTO parcel SELECT 1 + i % 2, i, 'n' FROM generate_series(1, {_ROWS}) i;
"""
# What is copied, and what is done to it then; what is dropped goes before its first chunk.
_ALTERED = (
    ("person", "ALTER TABLE person ADD COLUMN grade int; ALTER TABLE person ALTER grade SET DEFAULT 5"),
    (
        "person",
        """ALTER TABLE person ADD COLUMN at timestamptz DEFAULT clock_timestamp(), DROP COLUMN grade;
        ALTER TABLE person RENAME COLUMN note TO remark; ALTER TABLE person RENAME COLUMN id TO number""",
    ),
    (
        "person",
        """ALTER TABLE person ALTER remark TYPE int USING (random() * 1000)::int;
        ALTER TABLE person RENAME COLUMN number TO id""",
    ),
    (
        "person",
        "ALTER TABLE person RENAME remark TO note; ALTER TABLE person ALTER note TYPE text, ALTER id TYPE bigint",
    ),
    ("person", "TRUNCATE person"),
    ("person", "ALTER TABLE person RENAME TO subject; CREATE SCHEMA other; ALTER TABLE subject SET SCHEMA other"),
    (
        "subject",
        """ALTER SCHEMA other RENAME TO another; ALTER TABLE another.subject SET SCHEMA public;
        ALTER TABLE subject RENAME TO person""",
    ),
    ("person", "ALTER TABLE person DROP CONSTRAINT person_pkey, ADD PRIMARY KEY (code)"),
    (
        "person",
        """BEGIN; ALTER TABLE person DROP CONSTRAINT person_pkey; ALTER TABLE person RENAME TO person_old;
        ALTER TABLE twin RENAME TO person; ALTER TABLE person_old RENAME TO twin; COMMIT""",
    ),
    (
        "parcel_1",
        """ALTER TABLE parcel DETACH PARTITION parcel_1;
        ALTER TABLE parcel ATTACH PARTITION parcel_1 FOR VALUES IN (1)""",
    ),
    ("entry", "ALTER TABLE entry ADD COLUMN n serial PRIMARY KEY"),
    ("parcel_2", "DROP TABLE parcel_2"),
)
_CHURN = (
    "UPDATE %s SET note = '7' WHERE id = 1 + (random() * 1500)::int",
    "UPDATE %s SET id = -id, code = code || 'x' WHERE id = 10 * (random() * 150)::int",
    "DELETE FROM %s WHERE id = 1 + (random() * 1500)::int",
    "INSERT INTO %s (id, code, biography) SELECT 5000 + random() * 1e6, 'n' || random(), repeat('b', 5000)",
)
_PAUSE_SECONDS = 0.05
_TUNING = {
    "producer": {"copy_chunk_bytes": 20_000, "confirm_delay_seconds": 0, "rotate_seconds": 3},
    "consumer": {"hold_seconds": 10},
}


@contextmanager
def churning(pipeline: Pipeline) -> Iterator[None]:
    """Write to the tables, whatever they are called, as fast as they let themselves be written."""

    def run(done: threading.Event) -> None:
        with pipeline.source(databases.ADMIN) as connection:
            connection.execute("SET search_path = public, other, another")
            while not done.wait(_PAUSE_SECONDS):
                for name in ("person", "subject", "twin"):
                    for statement in _CHURN:
                        with contextlib.suppress(psycopg.Error):
                            connection.execute(statement.replace("%s", name).encode())
                with contextlib.suppress(psycopg.Error):
                    connection.execute("UPDATE parcel_1 SET id = -id WHERE id = 1 + (random() * 1500)::int")
                    connection.execute("INSERT INTO entry (at, amount) VALUES (now(), 0)")

    with meanwhile(run):
        yield


def request(home: Connection, name: str, *, waiting: bool) -> None:
    """Ask for a copy of a table, whatever schema it is in, and wait for its first chunk if so desired."""
    (copy,) = home.execute(
        """SELECT embassy.request_copy(n.nspname, c.relname, reason => 'test') FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relname = %s AND n.nspname IN ('public', 'other', 'another')""",
        (name,),
    ).fetchone() or (0,)
    begun = "SELECT state <> 'requested' FROM embassy.table_copy WHERE copy = %s"
    if waiting:
        poll_until(lambda: home.execute(begun, (copy,)).fetchone() == (True,), f"a chunk of {name}")


def wait_copied(home: Connection, pipeline: Pipeline, what: str) -> None:
    """Wait until nothing is left to be copied."""
    unfinished = "SELECT schema_name, table_name, reason FROM embassy.table_copy WHERE state <> 'done'"
    end = time.monotonic() + 270
    while left := home.execute(unfinished).fetchall():
        if time.monotonic() > end:
            tails = [f"{role.stage}\n{role.tail()}" for role in pipeline.running]
            pytest.fail(f"{what}: {left[:5]}, {len(left)} copies are left\n" + "\n".join(tails))
        time.sleep(0.05)


def test_a_table_is_altered_while_it_is_copied(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, _TUNING)
    with pipeline.source(databases.ADMIN) as home:
        home.execute("SET search_path = public")
        home.execute(_FILL.encode())
        roles = pipeline.start_all()
        with churning(pipeline):
            for name, statements in _ALTERED:
                request(home, name, waiting="DROP TABLE" not in statements)
                home.execute(statements.encode())
                if "TRUNCATE" in statements:
                    home.execute(f"{_PERSONS} ON CONFLICT DO NOTHING".encode())
                wait_copied(home, pipeline, statements)
        pipeline.wait_level()
        assert all(pipeline.alive(role) for role in roles.values())
        reasons = home.execute("SELECT reason FROM embassy.table_copy WHERE reason LIKE '%(%'").fetchall()
    told = " ".join(reason for (reason,) in reasons)
    assert "begun anew: the key was changed" in told
    assert "ended: the table is gone" in told
