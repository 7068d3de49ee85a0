"""Home is shut and opened registry by registry, each on a proof about itself: real databases, no stream."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from deploy.lab import databases, role_configs
from deploy.lab.lab import Lab
from embassy.model.lsn import Lsn
from embassy.model.observation import SourceSeen
from embassy.model.record import Head
from embassy.model.verification import TableName
from embassy.pg import reign, replica_turn, sessions, source_schema, table_copies
from embassy.pg.connection import connect
from embassy.pg.observation import Databases
from embassy.pg.sessions import end_sessions
from embassy.pg.stream_lock import PROMOTION_LOCK
from embassy.wire.keyring import Identity, load_operator
from embassy.wire.promotion_plan import Plan, PlanFile, PlannedStream, Waivers
from embassy.wire.promotion_report import ReportFile
from tests.harness.command import Done, embassy
from tests.harness.lab import MakeDatabase

EMBASSY = Identity.from_seeds(b"\x31" * 32, b"\x32" * 32)
NAMES = ("land", "people")
APPLICATION = "test_home_application"
"""A role of this server, which other tests have nothing to do with; both registries share it."""
DOWN = "host=127.0.0.1 port=1"


@dataclass
class Home:
    """Two registries at home, and what operators and the embassy have signed about them."""

    lab: Lab
    folder: Path
    databases: dict[str, str]
    streams: dict[str, bytes]

    def plan(self, number: int, *, epochs: tuple[int, int] = (1, 2)) -> PlanFile:
        """A switchover of both, approved by two persons."""
        soon = int(time.time()) + 1800
        streams = [
            PlannedStream(name, stream, *epochs, bytes(32), 0, Lsn(0), soon)
            for name, stream in self.streams.items()
        ]
        waivers, nonce = Waivers(), bytes([number] * 16)
        plan = Plan(
            "switchover", "embassy-1", nonce, soon - 1800, None, waivers, bytes(32), EMBASSY.public, tuple(streams)
        )
        file = PlanFile.draft(plan)
        for person in role_configs.OPERATORS:
            file = file.signed(load_operator(role_configs.operator(self.lab.layout, person)))
        return file

    def report(self, plan: PlanFile, *names: str, **more: object) -> ReportFile:
        """What the embassy says became of these."""
        entries = [{"name": name, "stream": self.streams[name].hex(), **more} for name in names]
        return ReportFile.made(plan, entries, EMBASSY)

    def command(self, what: str, file: PlanFile | ReportFile, *options: str, code: int = 0) -> Done:
        """Run ``embassy home``."""
        path = self.folder / "word.json"
        path.write_text(file.render())
        return embassy(
            self.folder / "home.toml", "home", what, str(path), "--reason", "a test", *options, code=code
        )

    def dsn(self, name: str) -> str:
        """A registry, for an administrator."""
        return self.lab.home.postgres.dsn(databases.ADMIN, self.databases[name])

    def connect(self, name: str) -> psycopg.Connection[object]:
        """Connect to a registry as an administrator."""
        return self.lab.home.postgres.connect(databases.ADMIN, self.databases[name])

    def writable(self) -> list[str]:
        """The registries that take writes, whatever the session asks for."""
        found = []
        for name in NAMES:
            with self.connect(name) as connection:
                connection.execute("SET default_transaction_read_only = off")
                try:
                    connection.execute("DELETE FROM public.deed WHERE false")
                except psycopg.errors.ReadOnlySqlTransaction:
                    continue
                found.append(name)
        return found

    def application_may_log_in(self) -> bool:
        """Whether the application's role may."""
        with self.connect("land") as connection:
            found = connection.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (APPLICATION,))
            return found.fetchone() == (True,)

    def configure(self, **elsewhere: str) -> None:
        """Write the administrator's file; ``elsewhere`` has other connection strings."""
        content = tomllib.loads(role_configs.admin_config(self.lab.layout, "home").read_text())
        content["promotion"] = {"application_roles": [APPLICATION]}
        content["streams"] = {
            name: {
                "stream": stream.hex(),
                "enrolment": str(self.folder / "none.json"),
                "source": {"dsn": elsewhere.get(name, self.dsn(name))},
            }
            for name, stream in self.streams.items()
        }
        role_configs._write(self.folder / "home.toml", content)


@pytest.fixture
def home(lab: Lab, make_database: MakeDatabase, tmp_path: Path) -> Iterator[Home]:
    made = Home(lab, tmp_path, {name: make_database("home") for name in NAMES}, {n: os.urandom(16) for n in NAMES})
    for name in NAMES:
        with made.connect(name) as connection:
            source_schema.ensure(connection, producer_role=databases.PRODUCER)
            connection.execute("CREATE TABLE public.deed (id bigint PRIMARY KEY)")
    made.configure()
    with lab.home.postgres.connect() as connection:
        connection.execute(f"CREATE ROLE {APPLICATION} LOGIN".encode())
        yield made
        connection.execute(f"DROP ROLE {APPLICATION}".encode())


def test_a_home_that_was_shut_for_two_plans_is_open_once_both_are_given_up(home: Home) -> None:
    first, second = home.plan(1), home.plan(2)
    with home.connect("land") as connection:  # whose log of DDL is shut before other tables are
        connection.execute(
            """CREATE TABLE public.all_ddl (tag text);
            CREATE FUNCTION public.tell() RETURNS event_trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO public.all_ddl VALUES (TG_TAG); END $$;
            CREATE EVENT TRIGGER tell ON ddl_command_end EXECUTE FUNCTION public.tell();
            DO $$ BEGIN
                IF current_setting('server_version_num')::int >= 170000 THEN  -- nobody is kept out by what a login writes
                    CREATE EVENT TRIGGER logins ON login EXECUTE FUNCTION public.tell();
                END IF;
            END $$"""
        )
        firing = "SELECT evtname, evtenabled FROM pg_event_trigger ORDER BY 1"
        event_triggers = connection.execute(firing.encode()).fetchall()
    for plan in (first, second):
        home.command("fence", plan)
    assert home.writable() == []

    refused = home.command("release", home.report(second, *NAMES, aborted=True), code=5).stderr
    assert f"plan {'01' * 4} to epoch 2 does (fenced by " in refused
    assert "embassy promote abort" in refused
    assert (home.writable(), home.application_may_log_in()) == ([], False)
    opened = home.command("release", home.report(first, *NAMES, aborted=True), "--json")
    assert json.loads(opened.stdout)["opened"] == list(NAMES)
    assert (home.writable(), home.application_may_log_in()) == (list(NAMES), True)
    with home.connect("land") as connection:
        assert connection.execute(firing.encode()).fetchall() == event_triggers
    home.command("release", home.report(second, *NAMES, aborted=True))

    # A registry that does not answer does not keep the others shut, and one that was promoted stays so.
    home.command("fence", first)
    home.command("fence", home.report(first, "people"))
    assert (
        "was promoted elsewhere"
        in home.command("release", home.report(first, *NAMES, aborted=True), code=5).stderr
    )
    assert home.writable() == ["land"]
    home.command("fence", first)
    home.configure(people=DOWN)
    down = home.command("release", home.report(first, *NAMES, aborted=True), "--json", code=3)
    assert json.loads(down.stdout)["opened"] == ["land"]
    assert "error: people: " in down.stderr

    # As a replica it keeps them disabled, until it is opened.
    home.command("fence", first, "-r", "land")
    with connect(home.dsn("land"), application_name="test", autocommit=True) as connection:
        replica_turn.prepare(connection)
        assert replica_turn.guard(connection) == 2
        assert {enabled for _, enabled in connection.execute(firing.encode())} == {"D"}
        kept = "SELECT name, enabled FROM embassy.disabled_triggers WHERE kind = 'event trigger' ORDER BY 1"
        assert connection.execute(kept.encode()).fetchall() == event_triggers
    home.connect("land").close()


def test_a_report_shuts_what_it_says_was_promoted_and_nothing_of_a_past_epoch(home: Home) -> None:
    plan = home.plan(1)
    assert "people: left as it is" in home.command("fence", home.report(plan, "land")).stdout
    assert home.writable() == ["people"]
    home.configure(people=DOWN)  # it is not even asked
    said = home.command("fence", home.report(plan, "land"), "-r", "people", code=5).stderr
    assert "people was not promoted" in said
    home.command("fence", home.report(plan, "land"))
    home.configure()

    # There and back: home has the registry in epoch 3, and whoever finds the first report shuts nothing.
    with home.connect("people") as connection:
        reign.note(connection, home.streams["people"], 3, "a_slot")
    for what, word in (
        ("fence", plan),
        ("release", home.report(plan, *NAMES, aborted=True)),
        ("fence", home.report(plan, *NAMES)),
    ):
        stale = home.command(what, word, "-r", "people", code=7).stderr
        assert "about epoch 2" in stale
        assert "in epoch 3" in stale
    look = ("failback", "bundle", str(home.folder / "word.json"), "-o", str(home.folder / "look"), "-r", "people")
    assert "is no conflict" in embassy(home.folder / "home.toml", *look, code=7).stderr
    assert home.writable() == ["people"]
    home.command("fence", home.plan(2, epochs=(3, 4)), "-r", "people")
    assert home.writable() == []


def test_an_application_keeps_its_login_as_long_as_a_registry_of_its_own_is_open(home: Home) -> None:
    plan, slot = home.plan(1), f"embassy_{home.streams['people'].hex()}"
    with home.connect("people") as connection:
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    try:
        said = home.command("fence", home.report(plan, "land")).stdout
        assert f"may log in still, for {home.databases['people']} of its server is open" in said
        assert (home.writable(), home.application_may_log_in()) == (["people"], True)
        shut = home.command("fence", home.report(plan, *NAMES), "--json").stdout
        assert json.loads(shut)["open_beside"] == []
        assert (home.writable(), home.application_may_log_in()) == ([], False)
    finally:
        with home.connect("land") as connection:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))


def test_a_session_that_ends_by_itself_just_then_is_none_that_stays(home: Home) -> None:
    with home.connect("land") as connection, home.connect("land") as other:
        pid = other.info.backend_pid
        gone_before: LiteralString = "CASE a.pid WHEN %s THEN pg_catalog.pg_terminate_backend(a.pid, 10000) END"
        assert end_sessions(connection, gone_before, pid) == (1, [])
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT")


def test_a_registry_is_not_shut_while_a_session_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_END_SECONDS", 1)
    with home.connect("land") as other:
        pid = other.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            said = home.command("fence", home.plan(1), "-r", "land", code=3).stderr
        finally:
            os.kill(pid, signal.SIGCONT)
    assert f"sessions do not end, and could still commit: server processes {pid}" in said
    home.command("fence", home.plan(1), "-r", "land")
    assert home.writable() == ["people"]


def test_a_prepared_transaction_is_named_although_it_holds_a_table(home: Home) -> None:
    with home.connect("land") as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO public.deed VALUES (1)")
        connection.execute("PREPARE TRANSACTION 'test_home''s'")
        try:
            said = home.command("fence", home.plan(1), "-r", "land", code=5).stderr
            assert "prepared transactions could still commit: test_home's" in said
        finally:
            with home.connect("land") as after:
                after.execute("ROLLBACK PREPARED 'test_home''s'")
    home.command("fence", home.plan(1), "-r", "land")
    assert home.writable() == ["people"]


def test_what_is_shut_half_way_is_seen_and_opened(home: Home) -> None:
    stream, plan, dsn = home.streams["land"], home.plan(1), home.dsn("land")

    def seen() -> tuple[bool, bool]:
        with contextlib.closing(Databases()) as observer:
            source = observer.source(dsn, stream=stream, slot="none", epoch=1)
        assert isinstance(source, SourceSeen)
        return source.fence is not None, source.half_shut

    assert seen() == (False, False)
    home.command("fence", plan)
    assert seen() == (True, False)
    for statement in ("DELETE FROM embassy.fence", f"ALTER DATABASE {home.databases['land']} RESET ALL"):
        with home.connect("land") as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(statement.encode())
        assert seen() == (False, True)
    home.command("release", home.report(plan, *NAMES, aborted=True))
    assert seen() == (False, False)
    assert home.writable() == list(NAMES)


def test_shutting_wins_over_whoever_is_at_it(home: Home) -> None:
    plan = home.plan(1)
    home.command("fence", plan)
    with home.connect("land") as connection:
        assert PROMOTION_LOCK.try_take(connection, home.streams["land"])
        said = home.command("release", home.report(plan, *NAMES, aborted=True), code=7).stderr
        assert "is at work on this stream" in said
        assert home.writable() == ["people"]
        home.command("fence", plan)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT")
    assert home.writable() == []


def test_what_never_travelled_is_not_emptied(home: Home) -> None:
    name, nonce = TableName("public", "deed"), bytes(16)
    with home.connect("land") as connection:
        replica_turn.prepare(connection)
        connection.execute("CREATE TABLE public.kept (a int)")
        connection.execute("INSERT INTO public.kept VALUES (1)")
        connection.execute("INSERT INTO public.deed VALUES (1)")
        connection.execute("CREATE PUBLICATION traffic FOR TABLE public.deed")
        cleared = replica_turn.clear(connection, nonce, None, publication="traffic")
        assert (cleared[str(name)], "public.kept" in cleared) == (1, False)
        assert table_copies.awaited(connection) == [name]
        assert connection.execute("SELECT count(*) FROM public.kept").fetchone() == (1,)
        # Where nobody knows what travelled, nothing stays that the embassy may not have.
        assert replica_turn.clear(connection, nonce, None, publication="none")["public.kept"] == 1


def test_no_beat_of_its_own_reign_comes_behind_what_a_replica_has_forgotten(home: Home) -> None:
    stream, genesis = home.streams["land"], Head.genesis(bytes(32), 2, Lsn(1))
    count = "SELECT count(*) FROM embassy.heartbeat"
    with home.connect("land") as connection:
        replica_turn.prepare(connection)
        with (
            contextlib.suppress(psycopg.OperationalError),
            connect(home.dsn("land"), application_name="embassy-heartbeat", autocommit=True) as heart,
        ):
            source_schema.beat(heart)
            assert connection.execute(count).fetchone() == (1,)
            assert replica_turn.begin(connection, stream, genesis, level=True)
            source_schema.beat(heart)
            pytest.fail("the session that beats goes on")
        assert connection.execute(count).fetchone() == (0,)


def test_a_registry_that_cannot_be_bundled_keeps_no_others_file_from_being_written(home: Home) -> None:
    slot = f"embassy_{home.streams['land'].hex()}"
    folder = home.folder / "bundle"
    bundle = ("failback", "bundle", str(home.folder / "word.json"), "-o", str(folder))
    config = home.folder / "home.toml"
    with home.lab.home.postgres.connect(databases.ADMIN, home.databases["land"]) as connection:
        connection.execute("CREATE PUBLICATION embassy FOR TABLE public.deed")
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        (at,) = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone() or ("",)
        connection.execute("INSERT INTO public.deed VALUES (1)")
    (home.folder / "word.json").write_text(home.report(home.plan(1), *NAMES, last_lsn=at).render())
    home.configure(people=DOWN)
    try:
        alone = embassy(config, *bundle, "-r", "people", "--json", code=3)
        assert json.loads(alone.stdout)["bundles"] == []
        assert not folder.exists(), "an empty folder would pass for one that holds all there is"

        done = embassy(config, *bundle, "--json", code=8)
        told = json.loads(done.stdout)
        assert [(one["name"], one["transactions"], one["complete"]) for one in told["bundles"]] == [
            ("land", 1, True)
        ]
        assert list(told["failed"]) == ["people"]
        assert "error: people: " in done.stderr
        assert "-r people failback bundle" in done.stderr
        assert [path.name for path in folder.iterdir()] == ["land.jsonl"]

        # Whoever takes another file, or another site's configuration, is told which one to take.
        back = ("failback", "run", str(home.folder / "word.json"), "--reason", "a test")
        assert "configuration of the way home" in embassy(config, *back, code=2).stderr
        for word, code, said in (
            (home.report(home.plan(1), *NAMES, aborted=True), 5, "the plan was given up for land, people"),
            (home.plan(1), 2, "the report is what promote run has written"),
        ):
            (home.folder / "word.json").write_text(word.render())
            for command in (back, (*bundle[:-1], str(home.folder / "other"))):
                assert said in embassy(config, *command, code=code).stderr
    finally:
        with home.connect("land") as connection:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
