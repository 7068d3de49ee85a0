"""A role that dies in any window between two effects loses nothing, repeats nothing and tears nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.lab import databases
from embassy.runtime import failpoints
from producers.slot_reader import LATE_SECONDS, SMALL_TRANSACTIONS
from tests.harness.pipeline import MakePipeline, Pipeline, RoleProcess, Stage, poll_until

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
    failpoints.PRODUCER_AFTER_INCARNATION_NOTED,
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


_SLOW = """
import pathlib, sys, time
from embassy.cli.main import main
from producers import proving, slot_reader

where, folder = sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))
take_again, find_head = slot_reader.SlotReader._take_again, proving.find_head

def rest():
    (folder / f"rests {where}").touch()
    while not (folder / f"goes on {where}").exists():
        time.sleep(0.01)

def interrupted(reader, *place):
    reader.session.close()
    rest()
    take_again(reader, *place)

def looking(*topic):
    rest()
    return find_head(*topic)

if where == "taking again":
    slot_reader.LATE_SECONDS = -60.0     # everything is late,
    slot_reader.pays = lambda *_: True   # and worth it
    slot_reader.SlotReader._take_again = interrupted
else:
    proving.find_head = looking
sys.exit(main())
"""
"""A producer that is slow between two sessions with its slot, or between its looks at the slot and at the topic."""


def test_producers_that_share_a_slot_neither_write_over_each_other_nor_blame_home(
    make_pipeline: MakePipeline,
) -> None:
    tuning = {"producer": {"backlog_bytes": 4096, "confirm_delay_seconds": 0}}
    pipeline = make_pipeline(_SCHEMA, tuning)
    for stage in ("bridge", "consumer"):
        pipeline.start(stage)
    with pipeline.source(databases.ADMIN) as connection:
        for number in range(4 * SMALL_TRANSACTIONS):
            connection.execute("INSERT INTO public.entry VALUES (now(), %s, 1)", (number,))
    slow = _start_slow(pipeline, "taking again")
    poll_until((pipeline.folder / "rests taking again").exists, "the slot is let go")
    other = pipeline.start("producer")
    pipeline.wait_level()
    pipeline.kill(other)
    (pipeline.folder / "goes on taking again").touch()
    poll_until(lambda: "another producer has written" in slow.tail(), "it notices who has written")
    pipeline.wait_level()
    # Who only waits for the slot sees a topic that is ahead of the log that it saw; nothing is wrong with home.
    third = _start_slow(pipeline, "looking")
    poll_until((pipeline.folder / "rests looking").exists, "the slot is looked at")
    pipeline.wait_level()
    (pipeline.folder / "goes on looking").touch()
    poll_until(lambda: "is active for PID" in third.tail() or not pipeline.alive(third), "it waits for the slot")
    assert all(pipeline.alive(role) for role in pipeline.running if role is not other)


def _start_slow(pipeline: Pipeline, where: str) -> RoleProcess:
    script, log = pipeline.folder / f"{where}.py", pipeline.folder / f"{where}.log"
    script.write_text(_SLOW)
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, script, where, pipeline.folder, "-c", pipeline.config("producer"), "producer", "run"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    slow = RoleProcess("producer", popen, log)
    pipeline.running.append(slow)
    return slow
