"""Where the source's sequences stand is in the replica, although no change tells of it."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.harness.pipeline import MakePipeline, Pipeline, poll_until

_STATE = """SELECT schema_name, sequence_name, last_value, is_called, increment_by
            FROM embassy.sequence_state ORDER BY 1, 2"""
SCHEMA = """
CREATE TABLE public.deed (id serial PRIMARY KEY, no bigint GENERATED ALWAYS AS IDENTITY);
CREATE SCHEMA "Odd ""one";
CREATE SEQUENCE "Odd ""one"."select" INCREMENT -5 START -7;
CREATE SEQUENCE public.unused;
CREATE SEQUENCE public.given START 1000;
"""


def state(connection: psycopg.Connection[Any]) -> list[Any]:
    return connection.execute(_STATE).fetchall()


def await_state(pipeline: Pipeline, wanted: list[Any]) -> None:
    def level() -> bool:
        with pipeline.replica() as connection:
            return state(connection) == wanted

    poll_until(level, f"the replica's sequence_state is {wanted}")


def test_sequences_travel(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(SCHEMA, {"producer": {"heartbeat_seconds": 0.2}})
    pipeline.start_all()
    with pipeline.source() as connection:
        connection.execute("CREATE TEMPORARY SEQUENCE passing")
        connection.execute("INSERT INTO public.deed DEFAULT VALUES")
        connection.execute("BEGIN; SELECT nextval('public.deed_id_seq'); ROLLBACK")
        connection.execute("""SELECT nextval('"Odd ""one"."select"'), nextval('"Odd ""one"."select"')""")
        connection.execute("SELECT setval('public.given', 77, false)")
    await_state(
        pipeline,
        [
            ('Odd "one', "select", -12, True, -5),
            ("public", "deed_id_seq", 2, True, 1),
            ("public", "deed_no_seq", 1, True, 1),
            ("public", "given", 77, False, 1),
            ("public", "unused", 1, False, 1),
        ],
    )
    with pipeline.source("embassy_admin") as other, pipeline.source() as connection:
        # one that is being dropped is not waited for
        other.execute("BEGIN; DROP SEQUENCE public.unused")
        connection.execute("SELECT nextval('public.given')")
        connection.execute("ALTER SEQUENCE public.deed_id_seq RENAME TO deed_ids")
        connection.execute("TRUNCATE public.deed RESTART IDENTITY")
        wanted = [
            ('Odd "one', "select", -12, True, -5),
            ("public", "deed_ids", 1, False, 1),
            ("public", "deed_no_seq", 1, False, 1),
            ("public", "given", 77, True, 1),
        ]
        await_state(pipeline, [*wanted, ("public", "unused", 1, False, 1)])
        other.execute("COMMIT")
    await_state(pipeline, wanted)
    with pipeline.source("embassy_admin") as connection:
        assert connection.execute("SELECT embassy.sample_sequences()").fetchone() == (0,)
