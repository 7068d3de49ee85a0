"""The doctor: each thing that is wrong is found, named with its code and place, and has a way out."""

from __future__ import annotations

import json
import shutil
import time
import tomllib
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined] # re-exported without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from psycopg import sql
from psycopg.conninfo import make_conninfo

from deploy.lab import databases, role_configs
from deploy.lab.lab import Lab
from deploy.lab.ports import free_port
from embassy.cli import main
from embassy.cli.key_checks import key_remarks
from embassy.model.diagnosis import CHECKS, Level, Remark, worst_level
from embassy.model.errors import ConfigurationError, TransientError
from embassy.model.lsn import Lsn
from embassy.model.record import Head
from embassy.pg import source_schema
from embassy.pg.replica_checks import ReplicaSubject, replica_remarks
from embassy.pg.source_checks import SourceSubject, source_remarks
from embassy.runtime.config import KafkaCluster, load
from embassy.wire.kafka_checks import ClusterSubject, cluster_remarks
from embassy.wire.keyring import generate_identity
from tests.harness import certificates
from tests.harness.command import embassy
from tests.harness.kafka import MakeTopic
from tests.harness.lab import MakeDatabase
from tests.harness.pipeline import MakePipeline, Pipeline
from tests.harness.plain_postgres import MakePlainPostgres

SCHEMA = """
CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text);
CREATE TABLE public.parcel (id bigint, area numeric);
CREATE TABLE public.scan (id bigint PRIMARY KEY, image oid);
"""
PUBLISH: LiteralString = "ALTER PUBLICATION embassy SET (publish"
UNCAPTURED = "SET application_name = 'embassy-test'"
"""What a superuser then does is the product's own, and not for the stream."""
ALL_WELL = {Level.OK, Level.UNSEEN}


@pytest.fixture
def stream(make_pipeline: MakePipeline) -> Pipeline:
    """A stream that is provisioned on both sides."""
    pipeline = make_pipeline(SCHEMA, provision=False)
    for role in ("home-admin", "embassy-admin"):
        embassy(pipeline.config(role), "provision", "apply")
    return pipeline


def at_home(pipeline: Pipeline, statements: LiteralString) -> None:
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute(statements)


def abroad(pipeline: Pipeline, statements: LiteralString) -> None:
    with pipeline.replica(databases.ADMIN) as connection:
        connection.execute(statements)


def home_subject(pipeline: Pipeline, role: str = databases.PRODUCER) -> SourceSubject:
    dsn = pipeline.lab.home.postgres.dsn(databases.ADMIN, pipeline.names["home"])
    return SourceSubject(dsn, bytes.fromhex(pipeline.stream), pipeline.slot, "embassy", role)


def wrong_at_home(pipeline: Pipeline, role: str = databases.PRODUCER) -> list[Remark]:
    return told(source_remarks(home_subject(pipeline, role)))


def replica_subject(
    pipeline: Pipeline, role: str = databases.CONSUMER, genesis: Head | None = None
) -> ReplicaSubject:
    dsn = pipeline.lab.site(pipeline.embassy).postgres.dsn(databases.ADMIN, pipeline.names[pipeline.embassy])
    return ReplicaSubject(dsn, bytes.fromhex(pipeline.stream), genesis, role)


def wrong_abroad(pipeline: Pipeline, role: str = databases.CONSUMER, genesis: Head | None = None) -> list[Remark]:
    return told(replica_remarks(replica_subject(pipeline, role, genesis)))


def told(remarks: Iterator[Remark]) -> list[Remark]:
    """What is not well, but for what the lab is known for: no slot limit, owners that can log in, one broker."""
    found = list(remarks)
    assert {remark.code for remark in found} <= CHECKS.keys()
    known = {"PG10", "RP07", "KA08"}
    wrong = [r for r in found if r.level not in ALL_WELL and not (r.code in known and r.level is Level.WARN)]
    assert all(remark.fix for remark in wrong)
    return wrong


def codes(remarks: list[Remark]) -> list[tuple[str, str]]:
    return [(remark.code, remark.level.name) for remark in remarks]


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("role", ["home-admin", "embassy-admin", "producer", "consumer", "bridge"])
def test_a_provisioned_stream_is_well_for_every_role(stream: Pipeline, role: str) -> None:
    done = embassy(stream.config(role), "doctor", "--all", "--json")
    report = json.loads(done.stdout)
    assert report["schema"] == "embassy.doctor/1"
    assert report["fail"] == 0
    assert report["ok"] > 5
    assert {remark["code"] for remark in report["remarks"] if remark["level"] == "warn"} <= {
        "PG10",
        "RP07",
        "KA08",
    }
    assert {remark["code"] for remark in report["remarks"]} <= CHECKS.keys()


def test_what_fails_is_one_line_with_code_place_and_way_out(stream: Pipeline) -> None:
    at_home(stream, f"{UNCAPTURED}; ALTER TABLE public.parcel REPLICA IDENTITY DEFAULT")
    done = embassy(stream.config("home-admin"), "doctor", "home", code=4)
    assert (
        'FAIL   PG07 public.parcel: no key → ALTER TABLE "public"."parcel" REPLICA IDENTITY FULL '
        "(embassy provision apply does)"
    ) in done.stdout.splitlines()
    embassy(stream.config("home-admin"), "provision", "apply")
    embassy(stream.config("home-admin"), "doctor", "home")


def test_warnings_fail_only_if_asked(stream: Pipeline) -> None:
    done = embassy(stream.config("home-admin"), "doctor", "kafka")
    assert "WARN   KA08" in done.stdout
    embassy(stream.config("home-admin"), "doctor", "kafka", "--strict", code=4)
    embassy(stream.config("home-admin"), "doctor", "keys", "--strict")


def test_what_is_unreachable_has_its_own_exit_code_and_the_rest_is_examined(stream: Pipeline) -> None:
    file = stream.config("home-admin")
    text = file.read_text()
    dsn = next(line for line in text.splitlines() if line.startswith("dsn"))
    file.write_text(
        text.replace(dsn, dsn.replace(f"port={stream.lab.home.postgres.port}", f"port={free_port(())}"))
    )
    done = embassy(file, "doctor", "home", "keys", "--all", code=3)
    assert "FAIL   PG01" in done.stdout
    assert "Connection refused" in done.stdout
    assert "OK     KY02" in done.stdout


def test_a_role_that_is_not_let_in_is_a_finding(stream: Pipeline) -> None:
    file = stream.config("home-admin")
    file.write_text(file.read_text().replace("dbname=test_", "dbname=no_test_"))
    done = embassy(file, "doctor", "home", code=4)
    assert "does not exist" in done.stdout
    assert "check dbname of the dsn" in done.stdout


def test_a_configuration_without_the_section_is_refused(stream: Pipeline) -> None:
    done = embassy(stream.config("bridge"), "doctor", "home", code=2)
    assert "names nothing of home" in done.stderr


def test_every_check_is_listed_and_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["doctor", "--list"]) == 0
    listed = capsys.readouterr().out
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    for code, text in CHECKS.items():
        assert f"{code}  {text}\n" in listed
        assert f"| {code} | {text} |" in page


def test_the_same_said_of_many_places_is_said_once(stream: Pipeline) -> None:
    at_home(
        stream,
        f"{UNCAPTURED}; CREATE TABLE public.one (id integer PRIMARY KEY);"
        "CREATE TABLE public.two (id integer PRIMARY KEY)",
    )
    done = embassy(stream.config("home-admin"), "doctor", "home", code=4)
    assert "PG09 public.one and 1 more: not in the publication" in done.stdout
    report = json.loads(embassy(stream.config("home-admin"), "--json", "doctor", "home", code=4).stdout)
    assert [r["place"] for r in report["remarks"] if r["code"] == "PG09"] == ["public.one", "public.two"]


# ---------------------------------------------------------------- home


@pytest.mark.parametrize(
    ("statement", "found", "said"),
    [
        ("CREATE UNLOGGED TABLE public.cache (id integer)", ("PG08", "WARN"), "public.cache"),
        (f"{UNCAPTURED}; CREATE TABLE public.later (id integer PRIMARY KEY)", ("PG09", "FAIL"), "public.later"),
        ("ALTER PUBLICATION embassy DROP TABLE public.deed", ("PG09", "FAIL"), "public.deed"),
        (
            "ALTER PUBLICATION embassy SET (publish = 'insert')",
            ("PG06", "FAIL"),
            "insert, update, delete and truncate",
        ),
        (
            "ALTER PUBLICATION embassy SET (publish_via_partition_root)",
            ("PG06", "FAIL"),
            "TRUNCATE of a partition",
        ),
        ("ALTER PUBLICATION embassy ADD TABLES IN SCHEMA public", ("PG06", "FAIL"), "tables in schema"),
        (
            f"{PUBLISH} = 'insert'); {PUBLISH} = 'insert, update, delete, truncate')",
            ("PG06", "FAIL"),
            "was altered by someone else, and has not all changes of embassy.ddl",
        ),
        (f"{UNCAPTURED}; ALTER TABLE public.deed REPLICA IDENTITY NOTHING", ("PG07", "FAIL"), "public.deed"),
        (
            "DROP TRIGGER embassy_large_objects_update ON public.scan",
            ("PG13", "WARN"),
            "public.scan",
        ),
        (
            "ALTER FUNCTION embassy.look_for_large_objects OWNER TO registry_owner; SELECT lo_create(0)",
            ("PG13", "WARN"),
            "1 large objects are not carried",
        ),
        (
            "REVOKE ALL ON FUNCTION embassy.mark_genesis FROM embassy_producer",
            ("PG15", "FAIL"),
            "embassy_producer",
        ),
        ("DROP TABLE embassy.incarnation", ("PG15", "WARN"), "is of an earlier version"),
        ("ALTER FUNCTION embassy.has_key SET search_path = ''", ("PG15", "FAIL"), "of a version in which"),
    ],
)
def test_what_is_wrong_at_home_is_found(
    stream: Pipeline, statement: LiteralString, found: tuple[str, str], said: str
) -> None:
    assert wrong_at_home(stream) == []
    at_home(stream, statement)
    wrong = wrong_at_home(stream)
    assert codes(wrong) == [found]
    assert said in str(wrong[0])


def test_a_database_that_nothing_is_provisioned_for_lacks_everything(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(SCHEMA, provision=False)
    assert codes(wrong_at_home(pipeline)) == [
        ("PG04", "FAIL"),
        ("PG15", "FAIL"),
        ("PG06", "FAIL"),
        ("PG09", "FAIL"),
        ("PG07", "WARN"),
        ("PG09", "FAIL"),
        ("PG09", "FAIL"),
        ("PG09", "FAIL"),
        ("PG19", "WARN"),
    ]


def test_a_slot_that_is_gone_is_told_apart_from_one_that_never_was(stream: Pipeline) -> None:
    with stream.source(databases.ADMIN) as connection:
        connection.execute("SELECT pg_drop_replication_slot(%s)", (stream.slot,))
        (never,) = wrong_at_home(stream)
        assert "the stream has not begun" in never.text
        source_schema.mark_genesis(connection, bytes.fromhex(stream.stream))
        (gone,) = wrong_at_home(stream)
        assert codes([never, gone]) == [("PG04", "FAIL")] * 2
        assert "resync" in gone.fix


def test_a_slot_of_unknown_beginning_and_one_of_another_plugin_are_found(stream: Pipeline) -> None:
    with stream.source(databases.ADMIN) as connection:
        for plugin, said in (("pgoutput", "nothing shows"), ("test_decoding", "plugin test_decoding")):
            connection.execute("SELECT pg_drop_replication_slot(%s)", (stream.slot,))
            connection.execute("SELECT pg_create_logical_replication_slot(%s, %s)", (stream.slot, plugin))
            (wrong,) = wrong_at_home(stream)
            assert (wrong.code, wrong.level) == ("PG04", Level.FAIL)
            assert said in wrong.text


def test_a_begun_stream_whose_slot_nobody_reads_is_a_warning(stream: Pipeline) -> None:
    with stream.source(databases.ADMIN) as connection:
        source_schema.mark_genesis(connection, bytes.fromhex(stream.stream))
    (wrong,) = wrong_at_home(stream)
    assert (wrong.code, wrong.level) == ("PG04", Level.WARN)
    assert "embassy producer run" in wrong.fix


def test_a_publication_that_was_made_anew_is_found(stream: Pipeline) -> None:
    at_home(stream, "DROP PUBLICATION embassy")
    at_home(stream, "CREATE PUBLICATION embassy FOR TABLE public.deed, public.parcel, public.sentinel")
    wrong = wrong_at_home(stream)
    assert ("PG06", "FAIL") in codes(wrong)
    assert "made anew" in str(wrong)


def test_generated_columns_that_rows_are_told_apart_by_are_found(make_pipeline: MakePipeline, lab: Lab) -> None:
    pipeline = make_pipeline(
        "CREATE TABLE public.area (m2 numeric, ha numeric GENERATED ALWAYS AS (m2 / 10000) STORED);"
        "CREATE TABLE public.fine (id integer PRIMARY KEY, twice integer GENERATED ALWAYS AS (id * 2) STORED);",
        provision=False,
    )
    wrong = [remark for remark in wrong_at_home(pipeline) if remark.code == "PG12"]
    if int(lab.state.postgres) >= 18:
        assert [(remark.place, remark.level) for remark in wrong] == [("public.area", Level.FAIL)]
        pipeline.provision()
        assert ("PG12", "FAIL") in codes(wrong_at_home(pipeline))
        with pipeline.source(databases.ADMIN) as home:
            home.execute("INSERT INTO public.area (m2) VALUES (5); UPDATE public.area SET m2 = 6")
            home.execute("ALTER TABLE public.area ADD COLUMN id serial PRIMARY KEY")
        assert ("PG12", "FAIL") not in codes(wrong_at_home(pipeline))
    else:
        embassy(pipeline.config("home-admin"), "provision", "apply")
        (warned,) = wrong_at_home(pipeline)
        assert (warned.code, warned.level, warned.place) == ("PG12", Level.WARN, "public.area")


@pytest.fixture
def make_role(lab: Lab) -> Iterator[Any]:
    """A maker of roles on both sites' servers."""
    made: list[str] = []

    def make(name: str, attributes: LiteralString) -> str:
        made.append(name)
        for site in ("home", "embassy-1"):
            with lab.site(site).postgres.connect() as connection:
                connection.execute(sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(name), sql.SQL(attributes)))
        return name

    yield make
    for name in made:
        for site in ("home", "embassy-1"):
            with lab.site(site).postgres.connect() as connection:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.mark.parametrize(
    ("attributes", "level", "said"),
    [
        ("LOGIN", Level.FAIL, "lacks REPLICATION"),
        ("REPLICATION", Level.FAIL, "lacks LOGIN"),
        ("LOGIN SUPERUSER", Level.WARN, "is a superuser"),
    ],
)
def test_a_producer_role_that_may_too_little_or_too_much_is_found(
    stream: Pipeline, make_role: Any, attributes: LiteralString, level: Level, said: str
) -> None:
    role = make_role("test_doctored", attributes)
    found = next(remark for remark in wrong_at_home(stream, role) if remark.code == "PG05")
    assert found.level is level
    assert said in found.text


def test_a_producer_role_that_is_not_there_is_found(stream: Pipeline) -> None:
    assert codes(wrong_at_home(stream, "nobody_there")) == [("PG05", "FAIL")]


def test_a_server_whose_name_nobody_checks_is_found(stream: Pipeline) -> None:
    subject = home_subject(stream)
    unchecked = subject._replace(dsn=make_conninfo(subject.dsn, sslmode="require"))
    (found,) = told(source_remarks(unchecked))
    assert (found.code, found.level, found.fix) == ("PG01", Level.WARN, "set sslmode=verify-full in the dsn")


def test_a_server_that_cannot_serve_streams_is_found(make_plain_postgres: MakePlainPostgres) -> None:
    server = make_plain_postgres(
        {"wal_level": "replica", "max_wal_senders": "0", "max_replication_slots": "0", "fsync": "off"}
    )
    found = list(source_remarks(SourceSubject(server.dsn(), bytes(16), "embassy_x", "embassy", "")))
    wrong = codes([remark for remark in found if remark.level not in ALL_WELL])
    assert wrong[:6] == [
        ("PG01", "WARN"),  # no TLS
        ("PG02", "FAIL"),  # fsync
        ("PG02", "FAIL"),  # wal_level
        ("PG03", "FAIL"),  # slots
        ("PG03", "FAIL"),  # walsenders
        ("PG04", "FAIL"),
    ]
    assert ("PG05", "WARN") in wrong  # a superuser


def test_limits_that_would_end_the_stream_are_found(make_plain_postgres: MakePlainPostgres, lab: Lab) -> None:
    settings = {
        "wal_level": "logical",
        "max_slot_wal_keep_size": "64MB",
        "wal_keep_size": "0",
        "max_wal_size": "1GB",
    }
    newest = int(lab.state.postgres) >= 18
    if newest:
        settings["idle_replication_slot_timeout"] = "1h"
    server = make_plain_postgres(settings)
    subject = SourceSubject(server.dsn(), bytes(16), "embassy_x", "embassy", "")

    def found(code: str) -> list[Level]:
        return [remark.level for remark in source_remarks(subject) if remark.code == code]

    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('embassy_x', 'pgoutput')")
        assert found("PG10") == [Level.OK]
        assert found("PG11") == ([Level.FAIL] if newest else [])
        for _ in range(5):  # segments of 16 MB
            connection.execute("SELECT pg_logical_emit_message(false, 'test', 'x')")
            connection.execute("SELECT pg_switch_wal()")
        assert found("PG10") == [Level.FAIL]
        for _ in range(4):
            connection.execute("SELECT pg_logical_emit_message(false, 'test', 'x')")
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")
        assert found("PG04") == [Level.FAIL]


def test_standbys_without_the_slot_are_found(stream: Pipeline, lab: Lab) -> None:
    with lab.home.postgres.connect() as connection:
        connection.execute("SELECT pg_create_physical_replication_slot('test_standby')")
        try:
            assert codes(wrong_at_home(stream)) == [("PG17", "WARN")]
            if int(lab.state.postgres) >= 17:
                with stream.source(databases.ADMIN) as source:
                    source.execute("SELECT pg_drop_replication_slot(%s)", (stream.slot,))
                    source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (stream.slot,))
                assert ("PG17", "FAIL") in codes(wrong_at_home(stream))
        finally:
            connection.execute("SELECT pg_drop_replication_slot('test_standby')")


@pytest.mark.parametrize(("ahead", "level"), [(0.0, None), (10.0, Level.WARN), (-100.0, Level.FAIL)])
def test_a_clock_that_differs_is_found(
    stream: Pipeline, monkeypatch: pytest.MonkeyPatch, ahead: float, level: Level | None
) -> None:
    wall = time.time
    monkeypatch.setattr("embassy.pg.server_checks.time.time", lambda: wall() + ahead)
    found = [remark.level for remark in (*wrong_at_home(stream), *wrong_abroad(stream))]
    assert found == ([] if level is None else [level, level])


# ---------------------------------------------------------------- the replica


@pytest.mark.parametrize(
    ("statement", "found", "said"),
    [
        ("CREATE TABLE public.later (id integer)", ("RP03", "FAIL"), "public.later"),
        ("ALTER TABLE public.deed DISABLE TRIGGER embassy_guard", ("RP03", "FAIL"), "public.deed"),
        ("DELETE FROM embassy.progress", ("RP05", "FAIL"), "progress"),
        (
            "CREATE RULE r AS ON INSERT TO public.deed DO ALSO NOTHING; ALTER TABLE public.deed ENABLE ALWAYS RULE r",
            ("RP04", "FAIL"),
            "rule r fires",
        ),
        (
            "ALTER TABLE embassy.large_object_change DISABLE TRIGGER apply_large_object",
            ("RP14", "FAIL"),
            "large objects",
        ),
    ],
)
def test_what_is_wrong_in_a_replica_is_found(
    stream: Pipeline, statement: LiteralString, found: tuple[str, str], said: str
) -> None:
    assert wrong_abroad(stream) == []
    abroad(stream, statement)
    wrong = wrong_abroad(stream)
    assert codes(wrong) == [found]
    assert said in str(wrong[0])
    embassy(stream.config("embassy-admin"), "provision", "apply")
    assert wrong_abroad(stream) == []


def test_a_replica_that_nothing_is_provisioned_for_lacks_everything(make_pipeline: MakePipeline) -> None:
    wrong = wrong_abroad(make_pipeline(SCHEMA, provision=False))
    assert codes(wrong) == [("RP02", "FAIL"), *[("RP03", "FAIL")] * 4]


def test_a_replica_whose_schema_was_not_made_is_found(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline("", provision=False, empty_replica=True)
    embassy(pipeline.config("embassy-admin"), "provision", "apply")
    assert codes(wrong_abroad(pipeline)) == [("RP13", "FAIL")]


def test_a_replica_of_another_enrolment_is_found(stream: Pipeline) -> None:
    other = Head.genesis(bytes(32), 1, Lsn(0))
    (wrong,) = wrong_abroad(stream, genesis=other)
    assert (wrong.code, wrong.level) == ("RP05", Level.FAIL)
    assert "another enrolment" in wrong.text


def test_unlogged_tables_and_other_writers_are_found(stream: Pipeline) -> None:
    abroad(
        stream,
        "CREATE UNLOGGED TABLE public.cache (id integer);"
        "CREATE SUBSCRIPTION test_other CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false);",
    )
    embassy(stream.config("embassy-admin"), "provision", "apply")
    try:
        abroad(stream, "ALTER SUBSCRIPTION test_other ENABLE")
        assert codes(wrong_abroad(stream)) == [("RP08", "FAIL"), ("RP09", "WARN")]
    finally:
        abroad(stream, "ALTER SUBSCRIPTION test_other DISABLE")
        abroad(stream, "ALTER SUBSCRIPTION test_other SET (slot_name = NONE)")
        abroad(stream, "DROP SUBSCRIPTION test_other")


def test_roles_that_can_take_a_guard_off_are_told_of(stream: Pipeline) -> None:
    (remark,) = [r for r in replica_remarks(replica_subject(stream)) if r.code == "RP07"]
    assert (remark.level, databases.OWNER in remark.text) == (Level.WARN, True)


def test_a_consumer_role_that_may_too_little_is_found(stream: Pipeline, make_role: Any) -> None:
    assert "RP06" in dict(codes(wrong_abroad(stream, "nobody_there")))
    role = make_role("test_doctored", "LOGIN")
    (wrong,) = wrong_abroad(stream, role)
    assert (wrong.code, "SET ON PARAMETER" in wrong.fix) == ("RP06", True)
    with stream.replica(databases.ADMIN) as connection:
        try:
            connection.execute("GRANT SET ON PARAMETER session_replication_role TO test_doctored")
            connection.execute("ALTER ROLE test_doctored BYPASSRLS")
            (wrong,) = wrong_abroad(stream, role)
            assert "may not write embassy." in wrong.text
            assert all(f"embassy.{name}" in wrong.text for name in ("heartbeat", "progress"))
            for schema in ("public", "embassy"):
                connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO test_doctored".encode())
                connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO test_doctored".encode())
            assert wrong_abroad(stream, role) == []
        finally:
            connection.execute("DROP OWNED BY test_doctored")


# ---------------------------------------------------------------- Kafka


def cluster(lab: Lab, role: str = "admin") -> KafkaCluster:
    files = lab.home.kafka.authority.client(role)
    return KafkaCluster(
        bootstrap=lab.home.kafka.bootstrap, ca=files.ca, certificate=files.certificate, key=files.key
    )


def wrong_in_kafka(lab: Lab, topic: str, role: str = "admin") -> list[Remark]:
    return told(cluster_remarks(ClusterSubject("home", cluster(lab, role), (topic,), 900_000, 24)))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"cleanup_policy": "compact"}, ("KA04", "FAIL")),
        ({"retention_ms": str(47 * 3_600_000)}, ("KA05", "WARN")),
        ({"retention_bytes": "1000000"}, ("KA05", "WARN")),
        ({"max_message_bytes": "900000"}, ("KA06", "FAIL")),
        ({"compression_type": "gzip"}, ("KA07", "WARN")),
        ({"unclean_leader_election_enable": "true"}, ("KA09", "FAIL")),
    ],
)
def test_what_is_wrong_with_a_topic_is_found(
    lab: Lab, make_topic: MakeTopic, settings: dict[str, str], found: tuple[str, str]
) -> None:
    assert wrong_in_kafka(lab, make_topic("home")) == []
    (wrong,) = wrong_in_kafka(lab, make_topic("home", **settings))
    assert (wrong.code, wrong.level.name) == found


def test_a_topic_of_two_partitions_and_one_that_is_not_there_are_found(lab: Lab) -> None:
    name = f"s-{uuid.uuid4().hex}"
    admin = lab.admin_client("home")
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(30)
    assert codes(wrong_in_kafka(lab, name)) == [("KA03", "FAIL")]
    assert codes(wrong_in_kafka(lab, "s-none")) == [("KA02", "FAIL")]


def test_what_a_certificate_may_not_see_is_no_finding(lab: Lab, make_topic: MakeTopic) -> None:
    topic = make_topic("home", cleanup_policy="compact")
    found = list(cluster_remarks(ClusterSubject("home", cluster(lab, "producer"), (topic,), 900_000, 24)))
    assert {remark.code for remark in found if remark.level is Level.UNSEEN} == {"KA04", "KA10", "KA11"}
    assert worst_level(found) is Level.UNSEEN


def test_an_access_entry_for_everyone_is_found(lab: Lab, make_topic: MakeTopic) -> None:
    topic = make_topic("home")
    entry = (
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:*",
        "*",
        AclOperation.READ,
        AclPermissionType.ALLOW,
    )
    admin = lab.admin_client("home")
    (made,) = admin.create_acls([AclBinding(*entry)]).values()
    made.result(30)
    try:
        (wrong,) = wrong_in_kafka(lab, topic)
        assert (wrong.code, wrong.level) == ("KA11", Level.FAIL)
        assert f"READ TOPIC {topic}" in wrong.text
    finally:
        (gone,) = admin.delete_acls([AclBindingFilter(*entry)]).values()
        gone.result(30)


def test_a_cluster_that_does_not_answer_or_is_a_strangers_says_why(lab: Lab, make_topic: MakeTopic) -> None:
    known = cluster(lab)
    absent = known.model_copy(update={"bootstrap": f"localhost:{free_port(())}"})
    with pytest.raises(TransientError, match="Connection refused"):
        list(cluster_remarks(ClusterSubject("home", absent, (), 900_000, 24)))
    stranger = known.model_copy(update={"ca": lab.site("embassy-1").kafka.authority.ca})
    with pytest.raises(TransientError, match=r"(?i)ssl|certificate"):
        list(cluster_remarks(ClusterSubject("home", stranger, (), 900_000, 24)))
    with pytest.raises(ConfigurationError, match="no such file"):
        list(
            cluster_remarks(
                ClusterSubject("home", known.model_copy(update={"key": Path("/nowhere")}), (), 900_000, 24)
            )
        )


# ---------------------------------------------------------------- keys


@pytest.fixture
def producer_config(stream: Pipeline, tmp_path: Path) -> Path:
    """A producer's configuration whose key files are copies that a test may spoil."""
    content = tomllib.loads(stream.config("producer").read_text())
    own = role_configs.identity(stream.lab.layout)
    content["keys"]["identity"] = str(shutil.copy(own, tmp_path / "identity.json"))
    content["streams"]["registry"]["enrolment"] = str(
        shutil.copy(content["streams"]["registry"]["enrolment"], tmp_path / "enrolment.json")
    )
    path = tmp_path / "producer.toml"
    role_configs._write(path, content)
    path.chmod(0o600)
    assert {key.code for key in load_key_remarks(path)} == set()
    return path


def load_key_remarks(config: Path) -> list[Remark]:
    settings = load(config)
    return told(key_remarks(settings, settings.streams, config))


def test_a_key_file_that_others_may_read_is_found(producer_config: Path) -> None:
    (producer_config.parent / "identity.json").chmod(0o644)
    found = load_key_remarks(producer_config)
    assert codes(found) == [("KY01", "FAIL")]
    assert "identity.json" in found[0].place
    assert found[0].fix.startswith(f"chmod 600 {producer_config.parent / 'identity.json'}, and make a new key")


def test_an_enrolment_of_another_stream_is_to_be_corrected_not_signed(producer_config: Path) -> None:
    text = producer_config.read_text()
    stream = tomllib.loads(text)["streams"]["registry"]["stream"]
    producer_config.write_text(text.replace(f'"{stream}"', f'"{"ab" * 16}"'))
    found = load_key_remarks(producer_config)
    assert codes(found) == [("KY02", "FAIL")]
    assert found[0].fix == "correct stream or enrolment in the configuration"


def test_an_enrolment_that_too_few_have_signed_is_found(producer_config: Path) -> None:
    file = producer_config.parent / "enrolment.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "signatures": document["signatures"][:1]}))
    found = load_key_remarks(producer_config)
    assert codes(found) == [("KY02", "FAIL")]
    assert "1 of the 2 persons" in found[0].text


def test_an_identity_that_is_not_the_enrolled_one_is_found(producer_config: Path) -> None:
    identity = producer_config.parent / "identity.json"
    identity.unlink()
    generate_identity(identity)
    found = load_key_remarks(producer_config)
    assert codes(found) == [("KY03", "FAIL")]
    assert "would not count" in found[0].text


def test_a_producer_without_recipients_is_found(producer_config: Path) -> None:
    content = tomllib.loads(producer_config.read_text())
    content["keys"]["recipients"] = []
    role_configs._write(producer_config, content)
    assert codes(load_key_remarks(producer_config)) == [("KY04", "FAIL")]


def test_a_password_that_others_may_read_is_found(producer_config: Path) -> None:
    content = tomllib.loads(producer_config.read_text())
    content["streams"]["registry"]["source"]["dsn"] += " password=s3cret"
    role_configs._write(producer_config, content)
    producer_config.chmod(0o640)
    found = load_key_remarks(producer_config)
    assert codes(found) == [("KY05", "FAIL")]
    assert "s3cret" not in str(found)
    producer_config.chmod(0o600)
    assert load_key_remarks(producer_config) == []


def test_a_certificate_that_ends_soon_or_has_ended_is_found(
    lab: Lab, producer_config: Path, tmp_path: Path
) -> None:
    content = tomllib.loads(producer_config.read_text())
    soon = certificates.ending(lab.home.kafka.authority, "producer", tmp_path, timedelta(days=9))
    gone = certificates.expired(lab.home.postgres.authority, "embassy_producer", tmp_path)
    content["kafka"]["home"]["certificate"] = str(soon.certificate)
    dsn = content["streams"]["registry"]["source"]["dsn"]
    content["streams"]["registry"]["source"]["dsn"] = f"{dsn} sslcert={gone.certificate}"
    role_configs._write(producer_config, content)
    found = load_key_remarks(producer_config)
    assert codes(found) == [("KY06", "WARN"), ("KY06", "FAIL")]
    assert [remark.place for remark in found] == [str(soon.certificate), str(gone.certificate)]
    gone.certificate.unlink()
    assert "no certificate can be read" in load_key_remarks(producer_config)[1].text


def test_a_database_without_a_stream_is_not_called_well(lab: Lab, make_database: MakeDatabase) -> None:
    dsn = lab.home.postgres.dsn(databases.ADMIN, make_database("home"))
    found = list(source_remarks(SourceSubject(dsn, bytes(16), "embassy_none", "embassy", databases.PRODUCER)))
    assert worst_level(found) is Level.FAIL
