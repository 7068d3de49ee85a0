"""Provisioning at home: what is made, what is refused, and that home never stops working."""

from __future__ import annotations

import json
import subprocess
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from deploy.lab import databases
from deploy.lab.lab import Lab
from deploy.lab.ports import free_port
from deploy.lab.roles import program
from embassy.model.own_tables import PUBLISHED
from tests.harness.command import embassy
from tests.harness.kafka import MakeTopic
from tests.harness.pipeline import MakePipeline, Pipeline, poll_until
from tests.harness.plain_postgres import MakePlainPostgres

WITHOUT_CAPTURE = "DROP EVENT TRIGGER embassy_2_end"
"""DDL stays with the operators, as where no superuser provisions; applying again makes the trigger again."""
KEYED = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);"
AWKWARD = """
CREATE TABLE public.keyless (a integer, b text);
CREATE TABLE public.deferred (id integer PRIMARY KEY DEFERRABLE, b text);
CREATE TABLE public.nothing (id integer PRIMARY KEY, b text);
ALTER TABLE public.nothing REPLICA IDENTITY NOTHING;
CREATE TABLE public.by_index (a integer NOT NULL, b text);
CREATE UNIQUE INDEX by_index_a ON public.by_index (a);
ALTER TABLE public.by_index REPLICA IDENTITY USING INDEX by_index_a;
CREATE SCHEMA "Odd schema";
CREATE TABLE "Odd schema"."ta.ble %" (a integer, b text);
CREATE TABLE public.parted (a integer, b text) PARTITION BY RANGE (a);
CREATE TABLE public.parted_low PARTITION OF public.parted FOR VALUES FROM (0) TO (100);
CREATE TABLE public.parted_high PARTITION OF public.parted FOR VALUES FROM (100) TO (200) PARTITION BY LIST (a);
CREATE TABLE public.parted_high_rest PARTITION OF public.parted_high DEFAULT;
CREATE TABLE public.parent (a integer, b text);
CREATE TABLE public.child () INHERITS (public.parent);
CREATE UNLOGGED TABLE public.cache (a integer, b text);
"""
ODD = "ta.ble %"
CHANGEABLE = (
    "keyless",
    "deferred",
    "nothing",
    "by_index",
    "parted",
    "parted_low",
    "parent",
    "child",
    "cache",
    ODD,
)


@pytest.fixture
def deeds(make_pipeline: MakePipeline) -> Pipeline:
    """A stream of one empty table that nothing is provisioned for."""
    return make_pipeline(KEYED, provision=False)


def run(pipeline: Pipeline, *arguments: str, role: str = "home-admin", code: int = 0) -> str:
    done = embassy(pipeline.config(role), *arguments, code=code)
    return done.stdout if code == 0 else done.stderr


def report(pipeline: Pipeline, command: str, role: str = "home-admin") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(pipeline, "--json", "provision", command, role=role))
    return found


def rows(pipeline: Pipeline, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
    with pipeline.source(databases.ADMIN) as connection:
        return connection.execute(query, parameters).fetchall()


def at_home(pipeline: Pipeline, statements: LiteralString) -> None:
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute(statements)


def slot_there(pipeline: Pipeline) -> bool:
    return rows(pipeline, "SELECT FROM pg_replication_slots WHERE slot_name = %s", pipeline.slot) != []


def published(pipeline: Pipeline) -> set[str]:
    query: LiteralString = "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'embassy'"
    return {name for (name,) in rows(pipeline, query)}


def identity(pipeline: Pipeline, table: str) -> str:
    ((found,),) = rows(pipeline, "SELECT relreplident::text FROM pg_class WHERE relname = %s", table)
    return str(found)


def begin(pipeline: Pipeline) -> None:
    """What the producer notes when the stream begins."""
    with pipeline.source(databases.PRODUCER) as connection:
        connection.execute("SELECT embassy.mark_genesis(%s)", (bytes.fromhex(pipeline.stream),))


def drop_slot(pipeline: Pipeline) -> None:
    rows(pipeline, "SELECT pg_drop_replication_slot(%s)", pipeline.slot)


def test_a_plan_changes_nothing_and_names_what_applying_makes(deeds: Pipeline) -> None:
    planned = report(deeds, "plan")
    assert planned["unchanged"] == 0
    assert not planned["applied"]
    assert not slot_there(deeds)
    assert rows(deeds, "SELECT FROM pg_namespace WHERE nspname = 'embassy'") == []
    applied = report(deeds, "apply")
    assert applied["applied"]
    assert [step["what"] for step in applied["steps"]] == [step["what"] for step in planned["steps"]]
    assert [step["missing"] for step in applied["steps"]] == [True] * applied["created"]
    assert {f"topic {deeds.topic}", "schema embassy", "publication embassy", f"slot {deeds.slot}"} < {
        step["what"] for step in applied["steps"]
    }


@pytest.mark.parametrize("role", ["home-admin", "embassy-admin"])
def test_applying_again_changes_nothing(deeds: Pipeline, role: str) -> None:
    created = report(deeds, "apply", role)["created"]
    again = report(deeds, "apply", role)
    assert created > 3
    assert (again["created"], again["errors"]) == (0, [])
    assert again["unchanged"] > 2
    assert run(deeds, "provision", "plan", role=role).splitlines() == [
        f"to create 0, unchanged {again['unchanged']}"
    ]


def test_the_producers_role_can_use_what_was_made_and_nobody_else_can(deeds: Pipeline) -> None:
    run(deeds, "provision", "apply")
    with deeds.source(databases.PRODUCER) as connection:
        (beat,) = connection.execute("SELECT embassy.beat(NULL, NULL)").fetchone() or (None,)
        assert connection.execute("SELECT beat_at FROM embassy.heartbeat").fetchall() == [(beat,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE embassy.heartbeat SET beat_at = now()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO embassy.slot_proof SELECT * FROM embassy.slot_proof")
    with deeds.source(databases.OWNER) as connection:
        for query in ("SELECT embassy.beat(NULL, NULL)", "SELECT embassy.mark_genesis('\\x00')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(query.encode())


def test_home_can_change_every_table_before_and_after(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(AWKWARD, provision=False)
    run(pipeline, "provision", "apply")
    full = {"keyless", "deferred", "nothing", "parted_low", "parted_high_rest", "parent", "child", ODD}
    assert {name for name in (*full, "by_index") if identity(pipeline, name) == "f"} == full
    leaves = {*full, "by_index", "sentinel", *PUBLISHED}
    assert published(pipeline) == leaves
    with pipeline.source(databases.OWNER) as connection:
        for name in CHANGEABLE:
            table = sql.Identifier("Odd schema" if name == ODD else "public", name)
            for statement in (
                "INSERT INTO {} VALUES (7, 'x')",
                "UPDATE {} SET b = 'y'",
                "DELETE FROM {}",
                "TRUNCATE {}",
            ):
                connection.execute(sql.SQL(statement).format(table))


COPIES: LiteralString = "SELECT table_name, state, reason FROM embassy.table_copy ORDER BY 1"
BEFORE = "there before the stream"


def test_tables_with_rows_are_asked_for_and_the_producer_may_read_them(deeds: Pipeline) -> None:
    at_home(deeds, "INSERT INTO public.deed VALUES (1, 'anna')")
    run(deeds, "provision", "apply")
    assert rows(deeds, COPIES) == [("deed", "requested", BEFORE)]
    with deeds.source(databases.PRODUCER) as producer:
        assert producer.execute("SELECT count(*) FROM public.deed").fetchone() == (1,)
    run(deeds, "provision", "apply")
    assert len(rows(deeds, COPIES)) == 1


def test_tables_with_rows_that_something_else_has_published_are_refused(deeds: Pipeline) -> None:
    at_home(deeds, "INSERT INTO public.deed VALUES (1, 'anna'); CREATE PUBLICATION embassy FOR TABLE public.deed")
    said = run(deeds, "provision", "apply", code=5)
    assert "public.deed" in said
    assert "DROP TABLE" in said
    assert not slot_there(deeds)
    assert deeds.topic in deeds.lab.admin_client("home").list_topics(timeout=20).topics, "the others go on"
    at_home(deeds, "ALTER PUBLICATION embassy DROP TABLE public.deed")
    run(deeds, "provision", "apply")
    assert rows(deeds, COPIES) == [("deed", "requested", BEFORE)]


def test_an_operators_word_that_the_replica_is_level_is_taken_and_noted(deeds: Pipeline) -> None:
    at_home(deeds, "INSERT INTO public.deed VALUES (1, 'anna')")
    run(deeds, "provision", "apply", "--replica-is-level")
    assert slot_there(deeds)
    assert rows(deeds, "SELECT slot, replica_was_level, made_by FROM embassy.slot_proof") == [
        (deeds.slot, True, databases.ADMIN)
    ]
    run(deeds, "provision", "apply")  # what was accounted for once is not asked again
    with deeds.source(databases.ADMIN) as connection:
        connection.execute("SELECT pg_drop_replication_slot(%s)", (deeds.slot,))
        connection.execute("ALTER PUBLICATION embassy DROP TABLE public.deed")
        connection.execute("ALTER PUBLICATION embassy ADD TABLE public.deed")
    assert rows(deeds, "SELECT embassy.publication_gaps('embassy')") == [(["public.deed"],)]
    run(deeds, "provision", "apply", "--replica-is-level")
    assert rows(deeds, "SELECT embassy.publication_gaps('embassy')") == [([],)], "a new slot has no gaps"


def test_rows_that_commit_while_the_slot_is_made_are_asked_for(deeds: Pipeline) -> None:
    with deeds.source() as writer, writer.transaction():
        writer.execute("INSERT INTO public.deed VALUES (1, 'anna')")
        applying = start_applying(deeds)
        poll_until(lambda: waits_for_transactions(deeds), "the slot waits for the writer")
    assert_applied(applying)
    assert rows(deeds, COPIES) == [("deed", "requested", BEFORE)]


def test_tables_that_come_later_are_published_by_applying_again(deeds: Pipeline) -> None:
    run(deeds, "provision", "apply")
    begin(deeds)
    at_home(
        deeds,
        f"{WITHOUT_CAPTURE}; CREATE TABLE public.later (a integer); CREATE TABLE public.keyed (a integer PRIMARY KEY)",
    )
    said = run(deeds, "provision", "apply")
    assert "table public.later in the publication" in said
    assert said.splitlines()[-1].startswith("created 4,")
    assert identity(deeds, "later") == "f"
    assert {"later", "keyed"} < published(deeds)


def test_later_tables_with_rows_are_asked_for_unless_the_replica_has_them(deeds: Pipeline) -> None:
    run(deeds, "provision", "apply")
    at_home(deeds, f"{WITHOUT_CAPTURE}; CREATE TABLE public.later AS SELECT 1 AS a")
    run(deeds, "provision", "apply", "--replica-is-level")
    assert "later" in published(deeds)
    assert rows(deeds, COPIES) == []
    at_home(
        deeds,
        f"{WITHOUT_CAPTURE}; CREATE TABLE public.cut (a integer) PARTITION BY LIST (a);"
        "CREATE TABLE public.cut_1 PARTITION OF public.cut FOR VALUES IN (1);"
        "CREATE TABLE public.cut_2 PARTITION OF public.cut FOR VALUES IN (2); INSERT INTO public.cut VALUES (2)",
    )
    run(deeds, "provision", "apply")
    assert rows(deeds, COPIES) == [("cut_2", "requested", BEFORE)]


def test_rows_that_commit_while_a_later_table_is_published_are_asked_for(deeds: Pipeline) -> None:
    run(deeds, "provision", "apply")
    at_home(
        deeds,
        f"{WITHOUT_CAPTURE}; CREATE TABLE public.later (a integer PRIMARY KEY);"
        "GRANT ALL ON public.later TO registry_owner",
    )
    with deeds.source() as writer, writer.transaction():
        writer.execute("INSERT INTO public.later VALUES (1)")
        applying = start_applying(deeds)
        poll_until(lambda: waits_for_lock(deeds), "the publication waits for the writer")
    assert_applied(applying)
    assert rows(deeds, COPIES) == [("later", "requested", BEFORE)]


def test_a_new_partition_without_a_key_is_mended_by_applying_again(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(
        "CREATE TABLE public.parted (a integer, b text) PARTITION BY LIST (a);"
        "CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES IN (1);",
        provision=False,
    )
    run(pipeline, "provision", "apply")
    at_home(
        pipeline,
        f"{WITHOUT_CAPTURE}; CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES IN (2);"
        "INSERT INTO public.parted VALUES (2, 'x')",
    )
    run(pipeline, "provision", "apply")
    assert identity(pipeline, "parted_2") == "f"
    at_home(pipeline, "UPDATE public.parted SET b = 'y'")


def test_a_second_slot_is_never_made_for_a_stream_that_has_begun(deeds: Pipeline) -> None:
    run(deeds, "provision", "apply")
    begin(deeds)
    drop_slot(deeds)
    for command in ("plan", "apply"):
        said = run(deeds, "provision", command, "--replica-is-level", code=5)
        assert f"slot {deeds.slot} is gone" in said
        assert "resync the stream under a new enrolment" in said
    assert not slot_there(deeds)


def test_before_the_stream_has_begun_a_lost_slot_is_made_again(deeds: Pipeline) -> None:
    run(deeds, "provision", "apply")
    drop_slot(deeds)
    assert f"slot {deeds.slot}" in run(deeds, "provision", "apply")


@pytest.mark.parametrize("made", ["by hand", "and advanced"])
def test_a_slot_of_unknown_beginning_is_refused(deeds: Pipeline, made: str) -> None:
    if made == "by hand":
        rows(deeds, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", deeds.slot)
    else:
        run(deeds, "provision", "apply")
        at_home(deeds, "INSERT INTO public.deed VALUES (1, 'anna'); DELETE FROM public.deed")
        rows(deeds, "SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", deeds.slot)
    said = run(deeds, "provision", "apply", code=5)
    assert "nothing shows which rows it begins after" in said
    drop_slot(deeds)
    run(deeds, "provision", "apply")


def test_a_slot_of_something_else_is_refused(deeds: Pipeline) -> None:
    with deeds.lab.home.postgres.connect(database="ledger") as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (deeds.slot,))
        try:
            assert "database ledger" in run(deeds, "provision", "apply", code=5)
        finally:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (deeds.slot,))


@pytest.mark.parametrize("begun", [False, True])
def test_a_publication_that_was_made_anew_is_refused(deeds: Pipeline, *, begun: bool) -> None:
    run(deeds, "provision", "apply")
    if begun:
        begin(deeds)
    at_home(deeds, "DROP PUBLICATION embassy")
    assert "publication embassy was dropped" in run(deeds, "provision", "apply", code=5)
    at_home(deeds, "CREATE PUBLICATION embassy FOR TABLE public.deed, public.sentinel")
    said = run(deeds, "provision", "apply", code=5)
    assert "publication embassy was dropped" in said
    assert ("new enrolment" if begun else "pg_drop_replication_slot") in said


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("CREATE PUBLICATION embassy FOR ALL TABLES", "for all tables"),
        ("CREATE PUBLICATION embassy FOR TABLES IN SCHEMA public", "for tables in schema"),
        ("CREATE PUBLICATION embassy FOR TABLE public.deed WITH (publish = 'insert')", "insert, update, delete"),
        ("CREATE PUBLICATION embassy WITH (publish_via_partition_root)", "publish_via_partition_root"),
        ("CREATE PUBLICATION embassy FOR TABLE public.deed WHERE (id > 5)", "leave out changes of public.deed"),
        ("CREATE PUBLICATION embassy FOR TABLE public.deed (id)", "leave out changes of public.deed"),
    ],
)
def test_a_publication_that_leaves_something_out_is_refused(
    deeds: Pipeline, statement: LiteralString, complaint: str
) -> None:
    at_home(deeds, statement)
    said = run(deeds, "provision", "apply", code=5)
    assert complaint in said
    assert "source.publication" in said


def test_a_table_that_home_could_no_longer_update_is_not_published(make_pipeline: MakePipeline, lab: Lab) -> None:
    pipeline = make_pipeline(
        "CREATE TABLE public.area (m2 numeric, ha numeric GENERATED ALWAYS AS (m2 / 10000) STORED);",
        provision=False,
    )
    if int(lab.state.postgres) >= 18:
        at_home(
            pipeline,
            """CREATE TABLE public.root (a int, b int GENERATED ALWAYS AS (a) STORED) PARTITION BY LIST (a);
            CREATE TABLE public.leaf PARTITION OF public.root DEFAULT""",
        )
        said = run(pipeline, "provision", "apply", code=5)
        assert "public.leaf" in said
        assert "primary key of plain columns" in said
        at_home(pipeline, "DROP TABLE public.root")
    said = run(pipeline, "provision", "apply")
    if int(lab.state.postgres) >= 18:
        assert "table public.area left out of the publication until it has a key" in said
        said = run(pipeline, "provision", "apply")
        assert "created 0" in said
        at_home(pipeline, "INSERT INTO public.area (m2) VALUES (5); UPDATE public.area SET m2 = 6")
        at_home(pipeline, "ALTER TABLE public.area ADD COLUMN id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
        assert "left out" not in run(pipeline, "provision", "apply")
    at_home(
        pipeline, "INSERT INTO public.area (m2) VALUES (5); UPDATE public.area SET m2 = 6; DELETE FROM public.area"
    )


def test_a_server_without_wal_level_logical_is_a_matter_of_its_settings(
    deeds: Pipeline, make_plain_postgres: MakePlainPostgres
) -> None:
    server = make_plain_postgres({"wal_level": "replica"})
    point_source_at(deeds, server.dsn())
    said = run(deeds, "provision", "apply", code=2)
    assert "wal_level is replica" in said
    assert "ALTER SYSTEM SET wal_level = logical" in said


def test_a_server_without_a_free_slot_is_a_matter_of_its_settings(
    deeds: Pipeline, make_plain_postgres: MakePlainPostgres
) -> None:
    server = make_plain_postgres({"wal_level": "logical", "max_replication_slots": "1"})
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE ROLE embassy_producer LOGIN REPLICATION")
        connection.execute("SELECT pg_create_physical_replication_slot('taken')")
        point_source_at(deeds, server.dsn())
        assert "raise max_replication_slots" in run(deeds, "provision", "apply", code=2)
        connection.execute("SELECT pg_drop_replication_slot('taken')")
    run(deeds, "provision", "apply")


def test_a_missing_producer_role_is_named(deeds: Pipeline) -> None:
    said = run(deeds, "provision", "apply", "--producer-role", "nobody_there", code=2)
    assert "no role nobody_there" in said
    assert "CREATE ROLE nobody_there LOGIN REPLICATION" in said


def test_a_role_that_may_not_is_told_to_let_an_administrator(deeds: Pipeline) -> None:
    point_source_at(deeds, deeds.lab.home.postgres.dsn(databases.OWNER, deeds.names["home"]))
    assert "administrator" in run(deeds, "provision", "apply", code=2)


def test_one_that_is_unreachable_does_not_keep_the_others_back(deeds: Pipeline) -> None:
    for file in (deeds.config("home-admin"), deeds.config("embassy-admin")):
        text = file.read_text()
        bootstrap = next(line for line in text.splitlines() if line.startswith("bootstrap"))
        file.write_text(text.replace(bootstrap, f'bootstrap = "localhost:{free_port(())}"'))
    said = run(deeds, "provision", "apply", code=3)
    assert "Connection refused" in said
    assert slot_there(deeds)


def test_a_topic_of_another_shape_is_refused(deeds: Pipeline, make_topic: MakeTopic) -> None:
    make_topic("home", deeds.topic, cleanup_policy="compact")
    said = run(deeds, "provision", "apply", code=5)
    assert "cleanup.policy=compact" in said
    assert deeds.topic in said


def test_a_topic_has_what_a_stream_needs(deeds: Pipeline) -> None:
    run(deeds, "provision", "apply", "--retention-hours", "48")
    said = run(deeds, "doctor", "kafka", "--outage-hours", "24")
    assert "KA08" in said  # the lab's single broker, and nothing else
    assert "0 fail, 1 warn" in said
    assert "KA05" in run(deeds, "doctor", "kafka", "--outage-hours", "25")


def point_source_at(pipeline: Pipeline, dsn: str) -> None:
    file = pipeline.config("home-admin")
    lines = [
        f"dsn = {json.dumps(dsn)}" if line.startswith("dsn = ") else line for line in file.read_text().splitlines()
    ]
    file.write_text("\n".join(lines))


def start_applying(pipeline: Pipeline) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program(), "-c", str(pipeline.config("home-admin")), "provision", "apply"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_applied(applying: subprocess.Popen[str]) -> None:
    said, _ = applying.communicate(timeout=180)
    assert applying.returncode == 0, said


def waits_for_transactions(pipeline: Pipeline) -> bool:
    query: LiteralString = """SELECT FROM pg_stat_activity
                              WHERE backend_type = 'walsender' AND wait_event = 'transactionid' AND datname = %s"""
    return rows(pipeline, query, pipeline.names["home"]) != []


def waits_for_lock(pipeline: Pipeline) -> bool:
    return rows(pipeline, "SELECT FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'") != []
