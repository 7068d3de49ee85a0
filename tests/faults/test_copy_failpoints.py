"""kill -9 in every window of a copy: rows neither lost nor doubled, and little is read again."""

from __future__ import annotations

from deploy.lab import databases
from embassy.runtime import failpoints
from tests.harness.pipeline import MakePipeline, Pipeline, RoleProcess, Stage, poll_until

_SCHEMA = """
CREATE TABLE public.account (id bigint PRIMARY KEY, owner text NOT NULL UNIQUE, scan text);
ALTER TABLE public.account ALTER scan SET STORAGE EXTERNAL;
CREATE TABLE public.entry (account bigint, amount numeric);
GRANT ALL ON ALL TABLES IN SCHEMA public TO registry_owner;
"""
ONCE = (failpoints.PRODUCER_AFTER_ROW_REQUESTED,)
_TUNING = {
    "producer": {"copy_chunk_bytes": 20_000, "batch_bytes": 50_000, "rotate_seconds": 60},
    "consumer": {"hold_seconds": 10},
}


def change(pipeline: Pipeline, round_: int) -> None:
    """Move a row to a copied range without sending all of it; swap unique values; touch the rest."""
    with pipeline.source(databases.ADMIN) as connection, connection.transaction():
        connection.execute("UPDATE public.account SET id = -%s WHERE id = 900 - %s", (round_, round_))
        connection.execute("UPDATE public.account SET owner = 'x' WHERE id = 500")
        connection.execute("UPDATE public.account SET owner = 'owner 500' WHERE id = 501")
        connection.execute("UPDATE public.account SET owner = 'owner 501' WHERE id = 500")
        connection.execute("UPDATE public.account SET owner = 'owner 500', id = id WHERE id = 501")
        connection.execute("DELETE FROM public.account WHERE id = %s", (round_ * 10,))
        connection.execute("INSERT INTO public.account VALUES (%s, %s, 'new')", (2000 + round_, f"new {round_}"))
        connection.execute("UPDATE public.entry SET amount = amount + 1 WHERE account = %s", (round_,))


def ask(pipeline: Pipeline) -> None:
    """Ask for a copy of both tables."""
    with pipeline.source(databases.ADMIN) as connection:
        for table in ("account", "entry"):
            connection.execute("SELECT embassy.request_copy('public', %s, reason => 'test')", (table,))


def test_kill_9_in_every_window_of_a_copy(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, _TUNING, provision=False)
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute(
            """INSERT INTO public.account SELECT i, 'owner ' || i, repeat(md5(i::text), 80)
               FROM generate_series(1, 900) i;
               INSERT INTO public.entry SELECT 1 + i % 50, i / 3.0 FROM generate_series(1, 2000) i,
                                        generate_series(1, 2)"""
        )
    pipeline.provision()
    roles = pipeline.start_all()
    for round_, name in enumerate(failpoints.COPYING, 1):
        stage: Stage = "consumer" if name.startswith("consumer") else "producer"
        pipeline.kill(roles[stage])
        ask(pipeline)
        victim = pipeline.start(stage, failpoint=f"{name}:{1 if name in ONCE else 3}")
        until_dead(pipeline, victim, round_)
        roles[stage] = pipeline.start(stage)
    wait_copied(pipeline)
    change(pipeline, 300)
    pipeline.wait_level()
    assert all(pipeline.alive(role) for role in roles.values())


def until_dead(pipeline: Pipeline, victim: RoleProcess, round_: int) -> None:
    """Change rows until the window is reached."""
    moved = iter(range(round_ * 20, round_ * 20 + 20))

    def dead() -> bool:
        if pipeline.alive(victim) and (number := next(moved, None)) is not None:
            change(pipeline, number)
        return not pipeline.alive(victim)

    poll_until(dead, f"{victim.stage} reaches its failpoint")
    assert victim.exit_code() == -9, victim.tail()


def wait_copied(pipeline: Pipeline) -> None:
    """Wait until nothing is left to be copied."""
    pipeline.wait_replica("SELECT bool_and(state = 'done') FROM embassy.table_copy", value=True)
