"""Connecting to PostgreSQL: the same settings always, and each refusal in its family with the way out."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deploy.lab.databases import ADMIN, OWNER, PRODUCER
from deploy.lab.lab import Lab
from deploy.lab.ports import free_port
from embassy.model.errors import ConfigurationError, EmbassyError, TransientError
from embassy.model.lsn import Lsn
from embassy.pg.connection import connect, place_of
from embassy.pg.lost_session import transient
from embassy.pg.replication_session import ReplicationSession
from embassy.pg.setup_errors import LOCK_SETTINGS, explained, in_turn
from embassy.runtime import logs
from tests.harness.certificates import expired, renew
from tests.harness.lab import MakeDatabase
from tests.harness.plain_postgres import MakePlainPostgres, PlainPostgres
from tests.harness.relay import relay

PINNED = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "search_path": "",
    "row_security": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "synchronous_commit": "local",
}


@pytest.fixture(scope="module")
def plain(make_plain_postgres: MakePlainPostgres) -> PlainPostgres:
    return make_plain_postgres({"wal_level": "replica"})


def refused(dsn: str, **options: str) -> EmbassyError:
    with pytest.raises(EmbassyError) as caught:
        connect(dsn, application_name="test", settings=options).close()
    return caught.value


@pytest.mark.parametrize("replication", [None, "database"])
def test_every_session_has_the_pinned_settings_whatever_the_database_and_the_role_say(
    lab: Lab, make_database: MakeDatabase, replication: str | None
) -> None:
    name = make_database("home")
    with lab.home.postgres.connect(database=name) as connection:
        for setting, value in (
            ("datestyle", "German"),
            ("timezone", "Asia/Tokyo"),
            ("bytea_output", "escape"),
            ("array_nulls", "off"),
            ("quote_all_identifiers", "on"),
            ("statement_timeout", "5min"),
            ("search_path", "public"),
            ("transaction_timeout", "5min"),
        ):
            if setting != "transaction_timeout" or int(lab.state.postgres) >= 17:
                connection.execute(
                    sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                        sql.Identifier(name), sql.SQL(setting), sql.Literal(value)
                    )
                )
    dsn = lab.home.postgres.dsn(PRODUCER, name)
    with connect(
        dsn, application_name="embassy-test", autocommit=True, replication="database" if replication else None
    ) as connection:
        wanted = {**PINNED, "application_name": "embassy-test"}
        if int(lab.state.postgres) >= 17:
            wanted["transaction_timeout"] = "0"
        found = {}
        for setting in wanted:
            (found[setting],) = connection.execute(f"SHOW {setting}".encode()).fetchone() or ("",)
        assert found == {**wanted, "DateStyle": found["DateStyle"]}
        assert found["DateStyle"].startswith("ISO")


def test_the_callers_settings_win_and_the_dsns_own_options_stay(lab: Lab) -> None:
    dsn = make_conninfo(
        lab.source_dsn("ledger"), options="-c work_mem=7MB -c timezone=Asia/Tokyo", connect_timeout="7"
    )
    with connect(
        dsn,
        application_name="x",
        settings={"lock_timeout": "3s", "default_transaction_isolation": "repeatable read"},
    ) as c:
        shown = [
            (c.execute(f"SHOW {name}".encode()).fetchone() or ("",))[0]
            for name in ("work_mem", "timezone", "lock_timeout", "default_transaction_isolation")
        ]
        assert shown == ["7MB", "UTC", "3s", "repeatable read"]
        parameters = c.info.get_parameters()
        assert (parameters["connect_timeout"], parameters["tcp_user_timeout"]) == ("7", "20000")


@pytest.mark.parametrize(
    ("change", "family", "said", "hint"),
    [
        ({"dbname": "nowhere"}, ConfigurationError, 'database "nowhere" does not exist', "dbname"),
        ({"user": "postgres"}, ConfigurationError, "certificate authentication failed", "common name"),
        (
            {"sslcert": "", "sslkey": "", "sslcertmode": "disable"},
            ConfigurationError,
            "requires a valid client certificate",
            "sslcert",
        ),
        ({"sslmode": "disable"}, ConfigurationError, "no encryption", "verify-full"),
        ({"host": "127.0.0.2", "hostaddr": "127.0.0.1"}, ConfigurationError, "does not match host name", "name"),
        ({"sslrootcert": "/nowhere.pem"}, ConfigurationError, "/nowhere.pem", "sslrootcert"),
        ({"options": "-c no_such_setting=1"}, ConfigurationError, "no_such_setting", "options"),
        ({"options": "-c work_mem=much"}, ConfigurationError, "work_mem", "options"),
        ({"host": "nowhere.invalid"}, TransientError, "nowhere.invalid", "reachable"),
    ],
)
def test_a_refusal_has_its_family_its_place_and_the_way_out(
    lab: Lab, change: dict[str, str], family: type[EmbassyError], said: str, hint: str
) -> None:
    dsn = make_conninfo(lab.source_dsn("ledger", ADMIN), **change)
    error = refused(dsn)
    assert type(error) is family
    assert said in str(error)
    assert hint in error.hint
    assert error.place == place_of(dsn)


def test_a_strangers_authority_is_a_matter_of_the_configuration(lab: Lab) -> None:
    other = lab.site("embassy-1").postgres.authority
    error = refused(make_conninfo(lab.source_dsn("ledger", ADMIN), sslrootcert=str(other.ca)))
    assert type(error) is ConfigurationError
    assert "the server's certificate" in error.hint
    files = other.client(ADMIN)
    error = refused(
        make_conninfo(lab.source_dsn("ledger", ADMIN), sslcert=str(files.certificate), sslkey=str(files.key))
    )
    assert type(error) is ConfigurationError
    assert "sslcert" in error.hint


def test_an_expired_certificate_is_named_and_read_again_once_it_is_replaced(lab: Lab, tmp_path: Path) -> None:
    authority = lab.home.postgres.authority
    files = expired(authority, ADMIN, tmp_path)
    dsn = make_conninfo(lab.source_dsn("ledger", ADMIN), sslcert=str(files.certificate), sslkey=str(files.key))
    error = refused(dsn)
    assert type(error) is TransientError
    assert f"{files.certificate} has expired" in error.hint
    renew(files, authority, ADMIN)
    connect(dsn, application_name="x").close()


def test_a_key_that_others_may_read_is_refused(lab: Lab, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    key.write_bytes(lab.home.postgres.authority.client(ADMIN).key.read_bytes())
    key.chmod(0o644)
    error = refused(make_conninfo(lab.source_dsn("ledger", ADMIN), sslkey=str(key)))
    assert type(error) is ConfigurationError
    assert "owner only" in error.hint


@pytest.mark.parametrize(("password", "said"), [("wrong", "password authentication failed"), ("", "no password")])
def test_a_wrong_or_missing_password_is_a_matter_of_the_configuration(
    plain: PlainPostgres, password: str, said: str
) -> None:
    error = refused(plain.dsn(password=password))
    assert type(error) is ConfigurationError
    assert said in str(error)
    assert "password in the dsn" in error.hint


def test_a_server_without_tls_is_a_matter_of_the_configuration(plain: PlainPostgres) -> None:
    error = refused(plain.dsn(sslmode="require"))
    assert type(error) is ConfigurationError
    assert "TLS" in error.hint


def test_an_unreachable_server_is_worth_waiting_for(lab: Lab) -> None:
    error = refused(make_conninfo(lab.source_dsn("ledger"), port=str(free_port(()))))
    assert type(error) is TransientError
    assert "refused" in str(error)


def test_a_server_out_of_connections_is_worth_waiting_for(lab: Lab, make_database: MakeDatabase) -> None:
    name = make_database("home")
    with lab.home.postgres.connect() as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(sql.Identifier(name)))
    error = refused(lab.home.postgres.dsn(OWNER, name))
    assert type(error) is TransientError
    assert error.hint.startswith("the server is up"), "it is not looked for where it is not"


def test_roles_that_may_not_do_what_is_asked_are_told_what_they_lack(lab: Lab) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connect(lab.source_dsn("ledger"), application_name="x", replication="database")
    assert "REPLICATION" in caught.value.hint
    error = refused(lab.source_dsn("ledger"), session_replication_role="replica")
    assert type(error) is ConfigurationError
    assert "SET ON PARAMETER" in error.hint


@pytest.mark.parametrize(
    "dsn", ["host=x password=my s3cret", "no dsn at all", "hots=x password=s3cret", "postgresql://a:s3cret@[::1"]
)
def test_a_malformed_dsn_is_refused_without_repeating_any_of_it(dsn: str) -> None:
    error = refused(dsn)
    assert type(error) is ConfigurationError
    assert "not a connection string" in str(error)
    assert "s3cret" not in str(error)


def test_a_place_has_no_password(lab: Lab) -> None:
    assert place_of("postgresql://anna:s3cret@db.example:5433/land") == "anna@db.example:5433/land"


def test_a_lock_that_does_not_come_soon_is_tried_again_and_then_worth_waiting_for(
    lab: Lab, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = lab.home.postgres.dsn(OWNER, make_database("home"))
    monkeypatch.setattr("embassy.pg.setup_errors._BETWEEN_TRIES_SECONDS", 0.01)
    with (
        psycopg.connect(dsn) as holder,
        connect(
            dsn, application_name="x", autocommit=True, settings={**LOCK_SETTINGS, "lock_timeout": "20ms"}
        ) as asker,
    ):
        holder.execute("CREATE TABLE public.deed (id integer)")
        holder.commit()
        holder.execute("INSERT INTO public.deed VALUES (1)")
        tries: list[int] = []

        def change() -> None:
            tries.append(1)
            asker.execute("ALTER TABLE public.deed REPLICA IDENTITY FULL")

        with pytest.raises(TransientError, match="lock timeout") as caught, explained("here"):
            in_turn(asker, change)
        assert len(tries) > 1
        assert "long transaction" in caught.value.hint

        def let_go() -> None:
            if len(tries) > 10:
                holder.rollback()
            change()

        tries[:] = range(10)
        in_turn(asker, let_go)
        row = asker.execute("SELECT relreplident FROM pg_class WHERE relname = 'deed'").fetchone()
        assert row is not None
        assert row[0] in (b"f", "f")


def test_a_deadlock_is_tried_again_and_is_no_dead_server(
    lab: Lab, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embassy.pg.setup_errors._BETWEEN_TRIES_SECONDS", 0.01)
    with connect(
        lab.home.postgres.dsn(OWNER, make_database("home")), application_name="x", autocommit=True
    ) as connection:
        tries: list[int] = []

        def change() -> None:
            tries.append(1)
            connection.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")

        with pytest.raises(TransientError) as caught, explained("here"):
            in_turn(connection, change)
        assert len(tries) > 1
        assert "run it again" in caught.value.hint


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (errors.InsufficientPrivilege("x"), ConfigurationError),
        (errors.ConfigurationLimitExceeded("x"), ConfigurationError),
        (errors.UndefinedObject("x"), ConfigurationError),
        (errors.AdminShutdown("x"), TransientError),
        (psycopg.InterfaceError("the connection is closed"), TransientError),
    ],
)
def test_the_servers_errors_during_a_setup_have_a_family(error: Exception, family: type[EmbassyError]) -> None:
    with pytest.raises(family) as caught, explained("here"):
        raise error
    assert caught.value.place == "here"
    assert caught.value.hint


def test_a_session_that_breaks_as_it_takes_the_slot_is_tried_again(lab: Lab, make_database: MakeDatabase) -> None:
    """libpq reports a broken connection as a refusal of the command, without an SQLSTATE."""
    dsn = lab.home.postgres.dsn(PRODUCER, make_database("home"))
    parts = conninfo_to_dict(dsn)
    with relay(str(parts["host"]), int(str(parts["port"]))) as between:
        session = ReplicationSession(
            make_conninfo(dsn, port=between.port), slot="any", publication="any", application_name="embassy-test"
        )
        try:
            between.cut()
            with pytest.raises(TransientError, match="the replication session ended"):
                session.start(Lsn(0))
        finally:
            session.close()


def _amid_a_pipeline(session: psycopg.Connection[tuple[object, ...]], end: Callable[[], object]) -> None:
    def rows() -> Iterator[tuple[int]]:
        for number in range(100_000):
            if number == 1_000:
                end()
            yield (number,)

    session.cursor().executemany("INSERT INTO deed VALUES (%s)", rows())


def _amid_rows(session: psycopg.Connection[tuple[object, ...]], end: Callable[[], object]) -> None:
    with session.cursor().copy("COPY deed FROM STDIN") as copy:
        for number in range(1_000_000):
            if number == 1_000:
                end()
            copy.write_row((number,))


@pytest.mark.parametrize("amid", [_amid_a_pipeline, _amid_rows])
def test_a_session_that_somebody_ends_is_an_error_and_no_line_of_a_library_besides(
    lab: Lab, amid: Callable[..., None]
) -> None:
    said = io.StringIO()
    logs.configure(stream=said)
    with (
        lab.home.postgres.connect() as other,
        connect(lab.source_dsn("ledger"), application_name="x", autocommit=True) as session,
    ):
        session.execute("CREATE TEMPORARY TABLE deed (id integer)")
        end = partial(other.execute, "SELECT pg_terminate_backend(%s, 10000)", (session.info.backend_pid,))
        with pytest.raises(TransientError, match="connection"), transient("here"):
            amid(session, end)
    assert said.getvalue() == ""
