"""Tables that hold rows before their stream begins, and tables that are copied anew, while they are written to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.lab import databases
from tests.harness.meanwhile import meanwhile
from tests.harness.pipeline import MakePipeline, Pipeline, poll_until

_SCHEMA = """
CREATE TABLE public.person (
    id bigint PRIMARY KEY, code text NOT NULL UNIQUE, note text, biography text, born date,
    upper_code text GENERATED ALWAYS AS (upper(code)) STORED
);
ALTER TABLE public.person ALTER biography SET STORAGE EXTERNAL;
CREATE TABLE public.word (word text, lang char(2), meaning text, PRIMARY KEY (lang, word));
CREATE TABLE public.entry (at timestamptz, amount numeric, what text);
CREATE TABLE public.parcel (region int, id int, area box, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE public.parcel_1 PARTITION OF public.parcel FOR VALUES IN (1);
CREATE TABLE public.parcel_2 PARTITION OF public.parcel FOR VALUES IN (2);
GRANT ALL ON ALL TABLES IN SCHEMA public TO registry_owner;
"""
_ROWS = """
INSERT INTO public.person
SELECT i, 'c' || i, CASE WHEN i % 3 = 0 THEN
    E'tab\\t, \\\\ and\\nline' END, repeat(md5(i::text), 100), date '1970-01-01' + i
FROM generate_series(1, 600) i;
INSERT INTO public.word SELECT 'wört' || i, (ARRAY['et', 'lv', 'Zz'])[1 + i % 3], 'm' || i
FROM generate_series(1, 600) i;
INSERT INTO public.entry SELECT now(), i / 7.0, 'same' FROM generate_series(1, 600) i, generate_series(1, 2);
INSERT INTO public.parcel SELECT 1 + i % 2, i, box(point(i, i), point(0, 0)) FROM generate_series(1, 600) i;
"""
_CHURN = (
    "UPDATE public.person SET note = 'n' || random() WHERE id = 1 + (random() * 600)::int",
    # a key that changes, and the large value is not sent
    """UPDATE public.person SET id = (SELECT least(min(id), 0) - 1 FROM public.person)
       WHERE id = (SELECT max(id) - (random() * 400)::int FROM public.person)""",
    "DELETE FROM public.person WHERE id = (SELECT id FROM public.person ORDER BY random() LIMIT 1)",
    "INSERT INTO public.person SELECT max(id) + 1, 'n' || random(), 'new', repeat('b', 5000) FROM public.person",
    "UPDATE public.word SET meaning = meaning || '!' WHERE word = 'wört' || (random() * 600)::int",
    "UPDATE public.word SET word = word || 'x' WHERE word = 'wört' || (random() * 600)::int",
    "UPDATE public.entry SET amount = amount + 1 WHERE ctid = (SELECT min(ctid) FROM public.entry)",
    "INSERT INTO public.entry VALUES (now(), 1, 'more')",
    "UPDATE public.parcel SET region = 3 - region WHERE id = (random() * 600)::int",
)
_TUNING = {
    "producer": {
        "copy_chunk_bytes": 20_000,
        "confirm_delay_seconds": 0,
        "rotate_seconds": 2,
        "batch_bytes": 50_000,
    },
    "consumer": {"hold_seconds": 10},
}


@contextmanager
def churning(pipeline: Pipeline) -> Iterator[None]:
    """Write to every table meanwhile."""

    def run(done: threading.Event) -> None:
        with pipeline.source(databases.ADMIN) as connection:
            while not done.wait(0.02):  # no faster: two cores for everything would be left behind
                for statement in _CHURN:
                    connection.execute(statement.encode())

    with meanwhile(run):
        yield


def wait_copied(pipeline: Pipeline) -> None:
    pipeline.wait_replica(
        "SELECT count(*) > 0 AND bool_and(state = 'done') FROM embassy.table_copy", value=True, seconds=90
    )


def test_tables_that_hold_rows_are_copied_while_they_change(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA, _TUNING, provision=False)
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute(_ROWS.encode())
    with churning(pipeline):
        pipeline.provision()
        roles = pipeline.start_all()
        wait_copied(pipeline)
    pipeline.wait_level()
    with pipeline.source(databases.ADMIN) as connection:
        copies = connection.execute(
            "SELECT table_name, rows_copied > 0 FROM embassy.table_copy WHERE from_key IS NULL ORDER BY 1"
        ).fetchall()
    assert copies == [(name, True) for name in ("entry", "parcel_1", "parcel_2", "person", "word")]
    assert all(pipeline.alive(role) for role in roles.values())


def test_a_table_that_differs_is_copied_anew_and_a_halted_stream_goes_on_to_it(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(_SCHEMA, _TUNING)
    roles = pipeline.start_all()
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute(_ROWS.encode())
    pipeline.wait_level()
    with pipeline.replica(databases.ADMIN) as replica:
        replica.execute("SET session_replication_role = replica")
        replica.execute("DELETE FROM public.person WHERE id IN (5, 6)")
        replica.execute("INSERT INTO public.person VALUES (-1, 'only here', 'too many')")
        replica.execute("UPDATE public.person SET code = 'c601' WHERE id = 7")  # home's row 601 will need it
        replica.execute("INSERT INTO public.word VALUES ('wört 5', 'lv', 'too many')")
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute("UPDATE public.person SET note = 'changed' WHERE id = 5")
        connection.execute("INSERT INTO public.person VALUES (601, 'c601')")
    poll_until(
        lambda: "IntegrityError" in roles["consumer"].tail() or "halt" in roles["consumer"].tail(), "a halt"
    )
    pipeline.kill(roles["consumer"])
    misspelt = pipeline.embassy_command("home-admin", "resync", "persn", "--reason", "test")
    assert (misspelt.returncode, "did you mean public.person?" in misspelt.stderr) == (5, True), misspelt.stderr
    done = pipeline.embassy_command("home-admin", "--json", "resync", "--all", "--reason", "test")
    assert done.returncode == 0, done.stderr
    assert '"done": true' in done.stdout
    with pipeline.source(databases.ADMIN) as connection:  # a range that the replica may sort otherwise
        connection.execute("SELECT embassy.request_copy('public', 'word', '{lv,wört 4}', '{lv,wört 6}')")
    assert pipeline.embassy_command("embassy-admin", "resync", "--reason", "test").returncode == 2
    done = pipeline.embassy_command("embassy-admin", "resync", "--all", "--reason", "test")
    assert "public.person: the replica awaits a copy" in done.stdout, done.stderr
    seen = pipeline.embassy_command("embassy-admin", "status")
    assert "still being copied: " in seen.stdout
    assert "public.person" in seen.stdout
    roles["consumer"] = pipeline.start("consumer")
    pipeline.wait_level()
    assert all(pipeline.alive(role) for role in roles.values())
