"""A replica that begins empty is made from the source's schema, over a file or at once."""

from __future__ import annotations

import json
import secrets
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from deploy.lab import role_configs
from deploy.lab.lab import Lab
from tests.harness.pipeline import MakePipeline, Pipeline

SITES = ("home", "embassy-1")
SCHEMA = """
CREATE EXTENSION citext;
CREATE EXTENSION btree_gist;
CREATE SCHEMA "Odd ""one";
CREATE TYPE mood AS ENUM ('sad', 'it''s ok');
CREATE TYPE address AS (street text, tags text[]);
CREATE DOMAIN cents AS numeric(12, 2) CHECK (VALUE >= 0);
CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    -- Name: not an entry; Type: TABLE; a dump's comment looks like this
    NEW.touched := clock_timestamp();
    RETURN NEW;
END $body$;
CREATE TABLE "Odd ""one"."select" (
    "Id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mood mood DEFAULT 'sad', home address, price cents,
    twice numeric GENERATED ALWAYS AS (price * 2) STORED, title citext COLLATE "C" UNIQUE, name text COLLATE caseless,
    touched timestamptz, during daterange, EXCLUDE USING gist (during WITH &&)
);
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON "Odd ""one"."select" FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE "Odd ""one"."select" ENABLE ALWAYS TRIGGER touch;
COMMENT ON TABLE "Odd ""one"."select" IS 'it''s a table';
CREATE TABLE part (id integer, year integer, PRIMARY KEY (id, year)) PARTITION BY RANGE (year);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (2000) TO (2010);
CREATE TABLE part_default PARTITION OF part DEFAULT;
CREATE TABLE child (id serial PRIMARY KEY, parent bigint REFERENCES "Odd ""one"."select" DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE scan (id integer PRIMARY KEY, image oid);  -- the product's triggers on it stay at home
CREATE INDEX child_parent ON child (parent) WHERE parent IS NOT NULL;
CREATE STATISTICS child_statistics ON id, parent FROM child;
CREATE VIEW seen AS SELECT "Id", title FROM "Odd ""one"."select";
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM child;
ALTER TABLE child ENABLE ROW LEVEL SECURITY;
"""


def run(pipeline: Pipeline, role: str, *arguments: str, code: int = 0) -> str:
    done = pipeline.embassy_command(role, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def facts(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    """What a database consists of, as far as the catalogue's own words tell it."""
    visible = "n.nspname NOT IN ('embassy', 'information_schema') AND n.nspname !~ '^pg_'"
    queries = {
        "tables": f"""
            SELECT n.nspname, c.relname, c.relkind::text, c.relrowsecurity, pg_get_userbyid(c.relowner), c.relacl::text,
                   obj_description(c.oid, 'pg_class')
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {visible}""",
        "columns": f"""
            SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                   a.attidentity::text, a.attgenerated::text, a.attcollation::regcollation::text,
                   pg_get_expr(d.adbin, d.adrelid)
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
            WHERE a.attnum > 0 AND c.relkind IN ('r', 'p', 'v', 'm') AND {visible}""",
        "constraints": f"""
            SELECT n.nspname, t.conname, pg_get_constraintdef(t.oid) FROM pg_constraint t
            JOIN pg_namespace n ON n.oid = t.connamespace WHERE {visible}""",
        "indexes": f"""
            SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {visible}""",
        "functions": f"""
            SELECT pg_get_functiondef(f.oid), f.proacl::text FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
            WHERE {visible} AND f.prokind = 'f'""",
        "policies": "SELECT polname, polroles::regrole[]::text, pg_get_expr(polqual, polrelid) FROM pg_policy",
        "extensions": "SELECT extname FROM pg_extension",
        "labels": "SELECT enumtypid::regtype::text, enumlabel FROM pg_enum",
        "statistics": "SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext",
    }
    return {
        name: sorted(connection.execute(query.encode()).fetchall(), key=repr) for name, query in queries.items()
    }


@pytest.fixture
def clerk(lab: Lab) -> Iterator[str]:
    """A role that home has and the embassy has not; gone from both at the end."""
    name = f"Clerk {secrets.token_hex(4)}"
    with lab.home.postgres.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN BYPASSRLS").format(sql.Identifier(name)))
    yield name
    for site in SITES:  # the databases that know it are gone by now
        with lab.site(site).postgres.connect() as connection:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


@pytest.fixture
def registry(clerk: str, make_pipeline: MakePipeline) -> Pipeline:
    """A source with a bit of everything, provisioned; its replica is empty."""
    found = make_pipeline("", provision=False, empty_replica=True)
    with found.source("embassy_admin") as connection:
        connection.execute(SCHEMA.encode())
        for statement in (
            "GRANT SELECT ON child TO {0}",
            "CREATE POLICY own ON child FOR SELECT TO {0} USING (id > 0)",
            "ALTER TABLE part OWNER TO {0}",
        ):
            connection.execute(sql.SQL(statement).format(sql.Identifier(clerk)))
        # as the product's own: it stays at home
        connection.execute("CREATE SCHEMA IF NOT EXISTS embassy")
        connection.execute(
            "CREATE FUNCTION embassy.seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
            "CREATE EVENT TRIGGER embassy_seen ON ddl_command_end EXECUTE FUNCTION embassy.seen(); "
            "ALTER EVENT TRIGGER embassy_seen ENABLE ALWAYS; COMMENT ON EVENT TRIGGER embassy_seen IS 'ours'"
        )
    run(found, "home-admin", "provision", "apply")
    return found


def same(pipeline: Pipeline) -> None:
    with pipeline.source("embassy_admin") as source, pipeline.replica("embassy_admin") as replica:
        theirs, ours = facts(source), facts(replica)
        for name, found in theirs.items():
            assert ours[name] == found, name
        assert replica.execute("SELECT count(*) FROM pg_event_trigger").fetchone() == (0,)


def test_a_schema_goes_to_the_embassy_as_a_file_and_rows_follow(
    registry: Pipeline, clerk: str, tmp_path: Path
) -> None:
    file = tmp_path / "registry.sql"
    run(registry, "home-admin", "provision", "schema", "-o", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    planned = json.loads(run(registry, "embassy-admin", "--json", "provision", "plan", "--schema", str(tmp_path)))
    whats = [step["what"] for step in planned["steps"] if step["missing"]]
    made_role = next(what for what in whats if what.startswith("role "))
    assert f'CREATE ROLE "{clerk}" NOSUPERUSER' in made_role
    assert "LOGIN" in made_role
    assert any(what.startswith("schema of ") for what in whats)

    run(registry, "embassy-admin", "provision", "apply", "--schema", str(file))

    same(registry)
    with registry.replica("embassy_admin") as connection:
        assert connection.execute(
            "SELECT rolcanlogin, rolbypassrls FROM pg_roles WHERE rolname = %s", (clerk,)
        ).fetchone() == (False, False)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO public.part VALUES (1, 2001)")
    again = json.loads(run(registry, "embassy-admin", "--json", "provision", "apply", "--schema", str(file)))
    assert again["created"] == 0

    registry.start_all()
    with registry.source("embassy_admin") as connection:
        connection.execute("INSERT INTO public.part VALUES (1, 2001), (2, 1990)")
        connection.execute(
            """INSERT INTO "Odd ""one"."select" (home, price, title, during)
               VALUES (ROW('a', '{b}'), 1.5, 'T', '[2020-01-01,2021-01-01)')"""
        )
    registry.wait_level()
    with registry.source("embassy_admin") as connection:
        connection.execute("REFRESH MATERIALIZED VIEW public.counted")
    registry.wait_replica("SELECT count FROM public.counted", 0)


def test_a_configuration_that_names_both_sides_needs_no_file(registry: Pipeline) -> None:
    home = tomllib.loads(registry.config("home-admin").read_text())
    embassy = tomllib.loads(registry.config("embassy-admin").read_text())
    embassy["streams"][registry.name]["source"] = home["streams"][registry.name]["source"]
    embassy["kafka"] |= home["kafka"]
    role_configs._write(registry.config("embassy-admin"), embassy)
    run(registry, "embassy-admin", "provision", "apply")
    same(registry)


def test_what_cannot_be_made_leaves_the_replica_as_it_was(registry: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / "registry.sql"
    run(registry, "home-admin", "provision", "schema", "-o", str(file))
    text = file.read_text()
    file.write_text(text[:-200])
    assert "cut short" in run(registry, "embassy-admin", "provision", "apply", "--schema", str(file), code=2)
    assert "cannot read the schema" in run(
        registry, "embassy-admin", "provision", "apply", "--schema", str(file.parent / ".."), code=2
    )
    with registry.replica("embassy_admin") as connection:
        connection.execute("CREATE TABLE public.theirs (id integer)")
    file.write_text(text)
    told = json.loads(run(registry, "embassy-admin", "--json", "provision", "plan", "--schema", str(file)))
    assert not any("schema of" in step["what"] for step in told["steps"])
