"""kill -9 in the midst of DDL: each statement is executed once, at its place, with all that belongs to it."""

from __future__ import annotations

from deploy.lab import databases
from embassy.runtime import failpoints
from tests.harness.catalog import catalog_differences
from tests.harness.pipeline import MakePipeline, Pipeline, Stage

_SCHEMA = """
CREATE TYPE public.mood AS ENUM ('calm');
CREATE TABLE public.account (id bigint PRIMARY KEY, owner text NOT NULL UNIQUE, feels public.mood);
INSERT INTO public.account SELECT i, 'owner ' || i FROM generate_series(1, 50) i;
"""
_TUNING = {"consumer": {"hold_seconds": 10}}
_WINDOWS = (
    *failpoints.DDL,
    failpoints.CONSUMER_BEFORE_COMMIT,
    failpoints.CONSUMER_AFTER_COMMIT,
    failpoints.PRODUCER_BEFORE_APPEND,
    failpoints.PRODUCER_AFTER_APPEND,
)


def change(pipeline: Pipeline, n: int) -> None:
    """Statements that would fail if executed twice, in a transaction with rows of before and after, and alone."""
    with pipeline.source() as home, home.transaction():
        home.execute(
            f"""UPDATE account SET owner = owner || '!' WHERE id % 10 = {n % 10};
            ALTER TABLE account ADD COLUMN at_{n} timestamptz DEFAULT clock_timestamp(), ADD COLUMN n_{n} serial;
            INSERT INTO account (id, owner) VALUES ({100 + n}, 'new {n}');
            CREATE TABLE made_{n} AS SELECT id, random() AS r FROM account;
            ALTER TABLE account RENAME COLUMN n_{n} TO number_{n};
            UPDATE account SET number_{n} = -number_{n} WHERE id % 3 = 0;
            DELETE FROM made_{n} WHERE id < 5""".encode()
        )
    with pipeline.source() as home:
        home.execute(f"ALTER TYPE mood ADD VALUE 'mood {n}'".encode())
        home.execute(f"UPDATE account SET feels = 'mood {n}' WHERE id = {n + 1}".encode())
        home.execute(f"ALTER TABLE account DROP COLUMN at_{n}; CREATE INDEX ON account (number_{n})".encode())


def test_kill_9_in_the_midst_of_ddl(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, _TUNING, provision=False)
    pipeline.provision("--replica-is-level")
    roles = pipeline.start_all()
    for number, name in enumerate(_WINDOWS):
        stage: Stage = "consumer" if name.startswith("consumer") else "producer"
        pipeline.kill(roles[stage])
        victim = pipeline.start(stage, failpoint=f"{name}:{1 + number % 3}")
        for n in (2 * number, 2 * number + 1):
            change(pipeline, n)
        assert victim.exit_code() == -9, victim.tail()
        roles[stage] = pipeline.start(stage)
    pipeline.wait_level()
    assert all(pipeline.alive(role) for role in roles.values())
    with pipeline.source(databases.ADMIN) as home, pipeline.replica(databases.ADMIN) as replica:
        assert catalog_differences(home, replica) == []
