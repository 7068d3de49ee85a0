"""A role that dies in any window between two effects loses nothing, repeats nothing and tears nothing."""

from __future__ import annotations

import os
import time

import pytest

from deploy.lab import databases
from embassy.runtime import failpoints
from producers.slot_reader import LATE_SECONDS
from tests.harness.pipeline import MakePipeline, Pipeline, Stage, poll_until

_SCHEMA = """
CREATE TABLE public.account (id bigint PRIMARY KEY, owner text NOT NULL UNIQUE, balance numeric(20, 2) NOT NULL);
CREATE TABLE public.scan (id bigint PRIMARY KEY, page bytea NOT NULL);
CREATE TABLE public.entry (at timestamptz NOT NULL, account bigint NOT NULL, amount numeric(20, 2) NOT NULL);
ALTER TABLE public.entry REPLICA IDENTITY FULL;
GRANT ALL ON ALL TABLES IN SCHEMA public TO registry_owner;
"""
_TUNING = {
    # Small batches, so that parts and rotations come soon.
    "producer": {"batch_bytes": 20_000, "record_bytes": 8_192, "rotate_seconds": 1, "confirm_delay_seconds": 0},
    "consumer": {"hold_seconds": 20},
}


_ONCE = (
    failpoints.PRODUCER_AFTER_KEY_APPENDED,
    failpoints.PRODUCER_AFTER_KEY_COUNTED,
    failpoints.PRODUCER_AFTER_GENESIS_MARKED,
    failpoints.CONSUMER_BEFORE_REPLAY,
)
"""Windows that a round of business passes but once."""


def business(pipeline: Pipeline, round_: int) -> None:
    """Small transactions, one far larger than a batch, swapped unique values, a rollback."""
    first = round_ * 10_000
    with pipeline.source(databases.ADMIN) as connection:
        for number in range(first, first + 30):
            with connection.transaction():
                connection.execute("INSERT INTO public.account VALUES (%s, %s, 0)", (number, f"owner {number}"))
                connection.execute(
                    "INSERT INTO public.entry VALUES (now(), %s, 1), (now(), %s, 1)", (number, number)
                )
        with connection.transaction():
            connection.execute(
                "INSERT INTO public.account SELECT i, 'many ' || i, i FROM generate_series(%s::int, %s::int) AS i",
                (first + 1_000, first + 2_500),
            )
            connection.execute("UPDATE public.account SET balance = balance + 1 WHERE id >= %s", (first + 1_000,))
        with connection.transaction():
            connection.execute("UPDATE public.account SET owner = 'swap' WHERE id = %s", (first,))
            connection.execute("UPDATE public.account SET owner = %s WHERE id = %s", (f"owner {first}", first + 1))
            connection.execute("UPDATE public.account SET owner = %s WHERE id = %s", (f"owner {first + 1}", first))
        for number in range(first, first + 4):  # what does not compress: a batch of several records
            connection.execute("INSERT INTO public.scan VALUES (%s, %s)", (number, os.urandom(30_000)))
        with connection.transaction(force_rollback=True):
            connection.execute("DELETE FROM public.account")


@pytest.mark.parametrize("name", failpoints.ALL)
def test_kill_9_at_every_failpoint(name: str, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, _TUNING)
    doomed: Stage = next(stage for stage in ("producer", "bridge", "consumer") if name.startswith(stage))
    nth = 1 if name in _ONCE else 3
    roles = {stage: pipeline.start(stage) for stage in ("producer", "bridge", "consumer") if stage != doomed}
    victim = pipeline.start(doomed, failpoint=f"{name}:{nth}")
    business(pipeline, 1)
    poll_until(lambda: not pipeline.alive(victim), f"{doomed} reaches {name}")
    assert victim.exit_code() == -9, victim.tail()
    roles[doomed] = pipeline.start(doomed)
    business(pipeline, 2)
    pipeline.wait_level()
    assert all(pipeline.alive(role) for role in roles.values())


@pytest.mark.parametrize("name", failpoints.BACKLOG)
def test_kill_9_while_a_backlog_is_read_by_query(name: str, make_pipeline: MakePipeline) -> None:
    tuning = {"producer": {"backlog_bytes": 4096, "batch_bytes": 20_000, "confirm_delay_seconds": 0}}
    pipeline = make_pipeline(_SCHEMA, tuning)
    roles = [pipeline.start(stage) for stage in ("bridge", "consumer")]
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute(
            b"""DO $$ BEGIN FOR i IN 100001..140000 LOOP
                INSERT INTO public.account VALUES (i, 'small ' || i, i); COMMIT;
            END LOOP; END $$"""
        )
    business(pipeline, 1)
    time.sleep(LATE_SECONDS)
    victim = pipeline.start("producer", failpoint=f"{name}:2")  # stretches were taken, and shipped in part
    poll_until(lambda: not pipeline.alive(victim), f"the producer reaches {name}")
    assert victim.exit_code() == -9, victim.tail()
    roles.append(pipeline.start("producer"))
    business(pipeline, 2)
    pipeline.wait_level()
    assert all(pipeline.alive(role) for role in roles)
