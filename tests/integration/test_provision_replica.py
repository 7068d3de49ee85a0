"""Provisioning a replica: nobody but the consumer writes to it, nothing fires in it, and it knows where it begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import pytest

from deploy.lab import databases
from embassy.pg import replica_opening
from tests.harness.command import embassy
from tests.harness.pipeline import MakePipeline, Pipeline

SCHEMA = """
CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text);
CREATE TABLE public."De ed" (id bigint PRIMARY KEY, owner text);
CREATE TABLE public.parted (id bigint, owner text) PARTITION BY RANGE (id);
CREATE TABLE public.parted_low PARTITION OF public.parted FOR VALUES FROM (0) TO (100);
CREATE TABLE public.parent (id bigint, owner text);
CREATE TABLE public.child () INHERITS (public.parent);
CREATE UNLOGGED TABLE public.cache (id bigint, owner text);
CREATE VIEW public.shown AS SELECT * FROM public.deed;
"""
_LOGINS_FIRE_VERSION = 170_000
TABLES = ("deed", '"De ed"', "parted", "parted_low", "parent", "child", "cache")
WRITES = {
    "insert": "INSERT INTO public.{} VALUES (7, 'x')",
    "upsert": "INSERT INTO public.{} VALUES (7, 'x') ON CONFLICT DO NOTHING",
    "update": "UPDATE public.{} SET owner = 'y'",
    "update of nothing": "UPDATE public.{} SET owner = 'y' WHERE false",
    "delete": "DELETE FROM public.{}",
    "truncate": "TRUNCATE public.{}",
    "copy": "COPY public.{} FROM STDIN",
    "merge": "MERGE INTO public.{} t USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT VALUES (7, 'x')",
}


@pytest.fixture
def replica(make_pipeline: MakePipeline) -> Pipeline:
    """A stream whose replica is provisioned, and nothing else."""
    pipeline = make_pipeline(SCHEMA, provision=False)
    provision(pipeline)
    return pipeline


def provision(pipeline: Pipeline, code: int = 0) -> str:
    done = embassy(pipeline.config("embassy-admin"), "provision", "apply", code=code)
    return done.stdout if code == 0 else done.stderr


def rows(pipeline: Pipeline, query: LiteralString) -> list[tuple[Any, ...]]:
    with pipeline.replica(databases.ADMIN) as connection:
        return connection.execute(query).fetchall()


def change(pipeline: Pipeline, statements: LiteralString, role: str = databases.ADMIN) -> None:
    with pipeline.replica(role) as connection:
        connection.execute(statements)


@contextmanager
def applying(pipeline: Pipeline) -> Iterator[psycopg.Connection[Any]]:
    """As the consumer writes."""
    with pipeline.replica(databases.CONSUMER) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection


def attempt(connection: psycopg.Connection[Any], write: str, table: str) -> None:
    statement = WRITES[write].format(table).encode()
    if write == "copy":
        with connection.cursor().copy(statement) as copy:
            copy.write_row((7, "x"))
    else:
        connection.execute(statement)


@pytest.mark.parametrize("role", [databases.OWNER, databases.ADMIN])
def test_nobody_writes_to_any_table_and_the_refusal_says_why(replica: Pipeline, role: str) -> None:
    with replica.replica(role) as connection:
        for table in TABLES:
            for write in WRITES:
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as refused:
                    attempt(connection, write, table)
                name = table.strip('"')
                assert refused.value.diag.message_primary == (
                    f"public.{name} is a replica: nobody writes here until it is promoted"
                )
                assert "at home" in (refused.value.diag.message_hint or "")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="deed is a replica"):
            connection.execute("INSERT INTO public.shown VALUES (1, 'x')")


def test_the_consumer_writes_to_every_table(replica: Pipeline) -> None:
    with applying(replica) as connection:
        for table in TABLES:
            for write in WRITES:
                attempt(connection, write, table)
                if write in ("insert", "copy", "merge"):
                    assert connection.execute(f"DELETE FROM public.{table}".encode()).rowcount == 1


def test_the_owner_cannot_pose_as_the_consumer(replica: Pipeline) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        change(replica, "SET session_replication_role = replica", databases.OWNER)


def test_tables_that_come_later_and_guards_that_were_taken_off_are_guarded_by_applying_again(
    replica: Pipeline,
) -> None:
    change(
        replica,
        "CREATE TABLE public.later (id bigint, owner text);"
        "CREATE TABLE public.parted_high PARTITION OF public.parted FOR VALUES FROM (100) TO (200);"
        "ALTER TABLE public.deed DISABLE TRIGGER embassy_guard;"
        "DROP TRIGGER embassy_guard ON public.parent;"
        'CREATE OR REPLACE TRIGGER embassy_guard BEFORE INSERT ON public."De ed"'
        " FOR EACH STATEMENT EXECUTE FUNCTION embassy.refuse_write();"
        "ALTER TABLE public.child ENABLE REPLICA TRIGGER embassy_guard",
    )
    said = provision(replica)
    for table in ("later", "parted_high", "deed", "parent", "De ed", "child"):
        assert f"guard of public.{table}\n" in said
    with replica.replica(databases.ADMIN) as connection:
        for table in (*TABLES, "later", "parted_high"):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                attempt(connection, "delete", table)
    assert provision(replica).startswith("created 0,")


def test_what_would_fire_while_the_stream_is_applied_is_disabled_and_remembered(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(
        SCHEMA
        + """
        CREATE TABLE public.history (table_name text);
        CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.history VALUES (TG_TABLE_NAME); RETURN NULL; END $$;
        CREATE TRIGGER always AFTER INSERT ON public.deed FOR EACH ROW EXECUTE FUNCTION public.note();
        ALTER TABLE public.deed ENABLE ALWAYS TRIGGER always;
        CREATE TRIGGER "in replicas" AFTER INSERT ON public."De ed" FOR EACH ROW EXECUTE FUNCTION public.note();
        ALTER TABLE public."De ed" ENABLE REPLICA TRIGGER "in replicas";
        CREATE TRIGGER on_root AFTER INSERT ON public.parted FOR EACH ROW EXECUTE FUNCTION public.note();
        ALTER TABLE public.parted ENABLE ALWAYS TRIGGER on_root;
        ALTER TABLE public.parted_low ENABLE REPLICA TRIGGER on_root;
        CREATE TRIGGER plain AFTER INSERT ON public.parent FOR EACH ROW EXECUTE FUNCTION public.note();
        CREATE RULE twice AS ON INSERT TO public.parent DO ALSO INSERT INTO public.history VALUES ('rule');
        ALTER TABLE public.parent ENABLE ALWAYS RULE twice;
        """,
        provision=False,
    )
    change(
        pipeline,
        """
        CREATE FUNCTION public.tell() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN INSERT INTO public.history VALUES (TG_TAG); END $$;
        GRANT SELECT ON public.history TO PUBLIC;
        CREATE EVENT TRIGGER "on ddl" ON ddl_command_end EXECUTE FUNCTION public.tell();
        ALTER EVENT TRIGGER "on ddl" ENABLE ALWAYS;
        CREATE EVENT TRIGGER origin ON ddl_command_end EXECUTE FUNCTION public.tell();
        DO $$ BEGIN
            IF current_setting('server_version_num')::int >= 170000 THEN
                CREATE EVENT TRIGGER visitors ON login EXECUTE FUNCTION public.tell();
            END IF;
        END $$;
        """,
    )
    (before,) = rows(pipeline, "SELECT count(*) FROM public.history WHERE table_name <> 'LOGIN'")
    said = provision(pipeline)
    assert "trigger always of public.deed disabled until promotion" in said
    assert "event trigger on ddl disabled until promotion" in said
    with pipeline.replica(databases.ADMIN) as connection:  # nobody is kept out by what a login would write
        logins_fire = connection.info.server_version >= _LOGINS_FIRE_VERSION
    plain = {("", "event trigger", name, "O") for name in ("origin", *(["visitors"] if logins_fire else []))}
    remembered = set(rows(pipeline, "SELECT relation, kind, name, enabled::text FROM embassy.disabled_triggers"))
    assert remembered == {
        ('"public"."deed"', "trigger", "always", "A"),
        ('"public"."De ed"', "trigger", "in replicas", "R"),
        ('"public"."parted"', "trigger", "on_root", "A"),
        ('"public"."parted_low"', "trigger", "on_root", "R"),
        ('"public"."parent"', "rule", "twice", "A"),
        ("", "event trigger", "on ddl", "A"),
        *plain,
    }
    with applying(pipeline) as connection:
        connection.execute("CREATE TEMPORARY TABLE made (id integer)")
        for table in ("deed", '"De ed"', "parted", "parent"):
            attempt(connection, "insert", table)
        assert (
            connection.execute("SELECT count(*) FROM public.history WHERE table_name <> 'LOGIN'").fetchone()
            == before
        )
    assert provision(pipeline).startswith("created 0,")
    with pipeline.replica(databases.ADMIN) as connection:
        assert replica_opening.enable_triggers(connection, "event trigger") == 1 + len(plain)
        enabled = connection.execute(
            "SELECT evtname, evtenabled::text FROM pg_event_trigger ORDER BY 1"
        ).fetchall()
    assert enabled == [("on ddl", "A"), *sorted((name, "O") for _, _, name, _ in plain)]


def test_the_replica_begins_where_the_enrolment_says(replica: Pipeline) -> None:
    found = rows(
        replica,
        "SELECT encode(stream, 'hex'), epoch, sequence, encode(incarnation, 'hex'), resume_lsn::text, key_record,"
        " applied_at FROM embassy.progress",
    )
    assert found == [(replica.stream, 1, 0, "00" * 16, "0/0", b"", None)]
    ((hash_,),) = rows(replica, "SELECT hash FROM embassy.progress")
    assert len(hash_) == 32


def test_a_replica_of_another_enrolment_is_refused_and_left_alone(replica: Pipeline) -> None:
    change(replica, "UPDATE embassy.progress SET hash = sha256('another')")
    said = provision(replica, code=5)
    assert "belongs to another enrolment" in said
    assert rows(replica, "SELECT hash = sha256('another') FROM embassy.progress") == [(True,)]


def test_without_its_enrolment_a_replica_is_not_begun(replica: Pipeline) -> None:
    file = replica.config("embassy-admin")
    lines = [
        'enrolment = "nowhere.json"' if line.startswith("enrolment = ") else line
        for line in file.read_text().splitlines()
    ]
    file.write_text("\n".join(lines))
    assert "nowhere.json" in provision(replica, code=2)


def test_the_published_tables_of_the_product_are_there_with_the_sources_columns(replica: Pipeline) -> None:
    embassy(replica.config("home-admin"), "provision", "apply")
    query: LiteralString = """
        SELECT attrelid::regclass::text, attname::text, atttypid::regtype::text, attnotnull FROM pg_attribute
        WHERE attrelid IN ('embassy.heartbeat'::regclass, 'embassy.stream'::regclass, 'embassy.table_copy'::regclass,
                           'embassy.verify_message'::regclass)
          AND attnum > 0 ORDER BY 1, attnum"""
    with replica.source(databases.ADMIN) as source:
        at_home = source.execute(query).fetchall()
    assert rows(replica, query) == at_home
    assert len(at_home) == 23


def test_a_plan_shows_what_is_missing_as_json(replica: Pipeline) -> None:
    change(replica, "CREATE TABLE public.later (id bigint)")
    done = embassy(replica.config("embassy-admin"), "provision", "plan", "--json")
    found = json.loads(done.stdout)
    assert (found["schema"], found["applied"], found["to_create"]) == ("embassy.provision/1", False, 1)
    assert [step["what"] for step in found["steps"] if step["missing"]] == ["guard of public.later"]


def test_a_replica_that_has_no_table_of_its_registry_is_made_and_warned_of(make_pipeline: MakePipeline) -> None:
    empty = make_pipeline("", provision=False, empty_replica=True)
    said = provision(empty)
    assert "! " in said
    assert "no table of the registry" in said
    assert "provision apply --schema FILE" in said
    change(empty, "CREATE TABLE public.deed (id bigint PRIMARY KEY)")
    assert "no table of the registry" not in provision(empty)
