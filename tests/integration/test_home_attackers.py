"""What people with a role at home have made is never executed with the rights of the product's functions."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.model.errors import RefusedError
from embassy.model.verification import TableName
from embassy.pg import copy_source, replica_schema, row_digests, source_schema
from embassy.pg.catalog import source_tables
from embassy.pg.connection import connect
from embassy.pg.digested_table import digested_table
from embassy.pg.publication import holding_rows
from embassy.pg.verify_source import open_source
from tests.harness.lab import MakeDatabase
from tests.harness.two_databases import Connection, TwoDatabases
from tests.integration.test_ddl_statements import captured, carry, owner

__all__ = ["captured", "owner"]

_TRAP = """
CREATE TABLE caught (what name, who name);
CREATE FUNCTION trap(anyelement) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
    IF current_user OPERATOR(pg_catalog.<>) session_user THEN
        INSERT INTO public.caught VALUES (pg_catalog.format('%s', pg_catalog.pg_typeof($1)), current_user);
    END IF;
    RETURN true;
END $$;
CREATE FUNCTION trap_of_rows(anyelement) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN PERFORM public.trap($1); RETURN '(1,1)'; END $$;
"""
_TEMPORARY_TYPES = """
DO $$
DECLARE
    type pg_catalog.name;
BEGIN
    FOR type IN SELECT t.typname FROM pg_catalog.pg_type t
                WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
                  AND t.typcategory <> 'A' LOOP
        EXECUTE pg_catalog.format('CREATE DOMAIN pg_temp.%1$I AS pg_catalog.%1$I CHECK (public.trap(VALUE))', type);
    END LOOP;
END $$
"""


@pytest.fixture
def trapper(owner: Connection) -> Connection:
    """An ordinary role that has laid its traps; what they catch is in the table ``caught``."""
    owner.execute(_TRAP.encode())
    return owner


def caught(pair: TwoDatabases) -> list[tuple[str, str]]:
    """Types whose values the product's functions have taken to the trap, and with whose rights."""
    return pair.source.execute("SELECT DISTINCT what, who FROM public.caught ORDER BY 1, 2").fetchall()


def test_types_of_the_same_names_are_no_trap(captured: TwoDatabases, trapper: Connection) -> None:
    """A session's temporary schema comes first in every search_path that does not name it: for types, too."""
    trapper.execute("CREATE TABLE scan (id int PRIMARY KEY, image oid); CREATE TABLE old (id int)")
    trapper.execute(_TEMPORARY_TYPES.encode())
    trapper.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b AS SELECT 1 AS id; ALTER TABLE b ADD c serial"
    )
    trapper.execute("INSERT INTO scan VALUES (1, pg_catalog.lo_from_bytea(0, 'page')); DROP TABLE old")
    assert caught(captured) == []


def test_a_cast_of_rows_is_no_trap(captured: TwoDatabases, trapper: Connection) -> None:
    trapper.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)")
    trapper.execute("CREATE FUNCTION cast_a(a) RETURNS text LANGUAGE sql RETURN public.trap_of_rows($1)")
    trapper.execute("CREATE CAST (a AS text) WITH FUNCTION cast_a(a)")
    trapper.execute("ALTER TABLE a ADD COLUMN r float8 DEFAULT random()")
    assert caught(captured) == []
    carry(captured)


def test_a_schema_of_the_same_name_is_not_adopted(lab: Lab, make_database: MakeDatabase) -> None:
    """Its owner could put other functions in the place of those that the product makes there."""
    for site in ("home", "embassy-1"):
        name, server = make_database(site), lab.site(site).postgres
        admin = connect(server.dsn(databases.ADMIN, name), application_name="embassy-test", autocommit=True)
        owner = connect(server.dsn(databases.OWNER, name), application_name="test", autocommit=True)
        with admin, owner:
            admin.execute(f"GRANT CREATE ON DATABASE {name} TO {databases.OWNER}".encode())
            owner.execute("CREATE SCHEMA embassy")
            with pytest.raises(RefusedError, match="belongs to registry_owner"):
                provision(site, admin)
            admin.execute("DROP SCHEMA embassy")
            provision(site, admin)
            provision(site, admin)


def provision(site: str, admin: Connection) -> None:
    if site == "home":
        source_schema.ensure(admin, producer_role=databases.PRODUCER)
    else:
        replica_schema.ensure(admin)


_SPRING = """
CREATE FUNCTION sprung() RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN IF current_user = 'registry_owner' THEN RETURN 1; END IF; RAISE EXCEPTION 'sprung as %', current_user; END $$
"""
_VIEW = "CREATE VIEW {} AS SELECT public.sprung() AS id, public.sprung()::bigint AS last_value, true AS is_called"


def test_a_view_in_the_place_of_a_table_is_not_read(captured: TwoDatabases, owner: Connection) -> None:
    home = captured.source
    home.execute(f"CREATE SCHEMA shop AUTHORIZATION {databases.OWNER}".encode())
    home.execute(f"GRANT CREATE ON DATABASE {home.info.dbname} TO {databases.OWNER}".encode())
    owner.execute(f"{_SPRING}; CREATE TABLE shop.a (id int PRIMARY KEY); INSERT INTO shop.a VALUES (1)".encode())
    tables = [table for table in source_tables(home, "embassy") if table.name == "a"]
    digested = digested_table(home, TableName("shop", "a"))
    assert tables
    assert digested is not None

    def refused(read: Callable[[], object]) -> None:
        with pytest.raises(psycopg.Error) as error:
            read()
        assert "sprung" not in str(error.value)

    with (
        open_source(captured.source_dsn) as verifying,
        connect(captured.source_dsn, application_name="embassy-copy", autocommit=True) as copying,
    ):
        with copy_source.reading(copying, "shop", "a") as found:
            assert found is not None
            view = _VIEW.format("shop.a") + " WHERE public.sprung() = 1"
            owner.execute(f"ALTER SCHEMA shop RENAME TO away; CREATE SCHEMA shop; {view}".encode())
            refused(lambda: list(copy_source.copy_rows(copying, found[0], copy_source.Range(), None)))
        refused(lambda: holding_rows(home, tables))
        refused(lambda: row_digests.page(verifying, digested, row_digests.Range()))


def test_a_view_in_the_place_of_a_sequence_is_not_read(lab: Lab, make_database: MakeDatabase) -> None:
    """Sequences are looked at one after another: at one that is held, while another's schema gets a new name."""
    name = make_database("home")
    admin = lab.home.postgres.dsn(databases.ADMIN, name)
    with connect(admin, application_name="embassy-test", autocommit=True) as home:
        provision("home", home)
        home.execute(f"GRANT CREATE ON DATABASE {name} TO {databases.OWNER}".encode())
    owned = lab.home.postgres.dsn(databases.OWNER, name)
    public = {"search_path": "public"}
    with (
        connect(owned, application_name="test", autocommit=True, settings=public) as owner,
        connect(owned, application_name="test", autocommit=True, settings=public) as other,
        connect(admin, application_name="embassy-test", autocommit=True) as home,
        connect(admin, application_name="embassy-test", autocommit=True) as sampler,
        ThreadPoolExecutor(1) as beside,
    ):
        owner.execute(f"{_SPRING}; CREATE SCHEMA shop; CREATE SEQUENCE held; CREATE SEQUENCE shop.till".encode())
        for _ in range(50):
            owner.execute("BEGIN; ALTER SEQUENCE held CACHE 1")
            other.execute("BEGIN; ALTER SCHEMA shop RENAME TO away; CREATE SCHEMA shop")
            other.execute(_VIEW.format("shop.till").encode())
            sampled = beside.submit(sampler.execute, "SELECT embassy.sample_sequences()")
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"
            while not sampled.done() and home.execute(waits, (sampler.info.backend_pid,)).fetchone() == (0,):
                pass
            other.execute("COMMIT")
            owner.execute("COMMIT")
            try:
                sampled.result()
            except psycopg.errors.LockNotAvailable:  # the machine is busy: once more
                owner.execute("DROP SCHEMA shop CASCADE; ALTER SCHEMA away RENAME TO shop")
            else:
                break
        else:
            pytest.fail("never in time")
        sampler.execute("SELECT embassy.sample_sequences()")
        states = "SELECT sequence_name, last_value, is_called FROM embassy.sequence_state ORDER BY 1"
        assert home.execute(states).fetchall() == [("held", 1, False), ("till", 1, False)]


def test_rows_of_somebody_elses_table_are_not_copied_on_a_sessions_word(
    captured: TwoDatabases, owner: Connection
) -> None:
    """A command's tables are noted in the session until its end, and a session may write there what it likes."""
    captured.source.execute("CREATE TABLE public.others (id int); INSERT INTO public.others VALUES (1)")
    (oid,) = captured.source.execute("SELECT 'public.others'::regclass::oid").fetchone() or (0,)
    owner.execute("CREATE TABLE mine (id int); INSERT INTO mine VALUES (2)")
    owner.execute(
        f"""SET embassy.ddl_rewritten = '{{"{oid}": 1}}'; ALTER TABLE mine ADD at timestamptz DEFAULT now()"""
    )
    owner.execute(
        f"""SET embassy.ddl_rewritten = '{{"{oid}": 1}}'; ALTER TABLE mine ADD r float8 DEFAULT random()"""
    )
    told = captured.source.execute("SELECT DISTINCT target FROM embassy.ddl_rows").fetchall()
    assert told == [("public.mine",)]
    carry(captured)
