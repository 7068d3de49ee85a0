"""What people with a role at home have made is never executed with the rights of the product's functions."""

from __future__ import annotations

import pytest

from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.model.errors import RefusedError
from embassy.pg import replica_schema, source_schema
from embassy.pg.connection import connect
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
