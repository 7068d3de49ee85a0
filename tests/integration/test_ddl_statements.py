"""Each kind of DDL, run at home as applications run it, has the same effect on the replica; see docs/ddl.md."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.model.errors import IntegrityError
from embassy.pg import ddl_capture, replica_schema, table_copies
from embassy.pg.apply_session import Call, Query
from embassy.pg.catalog import GENERATED_IDENTITY_VERSION
from embassy.pg.connection import connect
from embassy.pg.exchange import Exchange
from embassy.pg.promotion_obstacles import obstacles
from tests.harness.catalog import catalog_differences, catalog_of
from tests.harness.ddl_workload import START, DdlWorkload
from tests.harness.lab import MakeDatabase
from tests.harness.meanwhile import meanwhile
from tests.harness.pipeline import poll_until
from tests.harness.two_databases import Connection, TwoDatabases, new_pair

_NOT_ENFORCED_VERSION = 180_000
_ENUM_AT_ONCE_VERSION = 170_000
_SEARCH_PATH = {"search_path": '"$user", public'}


@pytest.fixture
def captured(lab: Lab, make_database: MakeDatabase) -> Iterator[TwoDatabases]:
    """Two empty databases; what happens in the first, DDL included, can be carried to the second."""
    found = new_pair(lab, make_database("home"), make_database("embassy-1"))
    found.publish_with_ddl()
    yield found
    found.close()


@pytest.fixture
def owner(lab: Lab, captured: TwoDatabases) -> Iterator[Connection]:
    """An ordinary role at home."""
    dsn = lab.home.postgres.dsn(databases.OWNER, captured.source.info.dbname)
    with connect(dsn, application_name="test", autocommit=True, settings=_SEARCH_PATH) as connection:
        yield connection


def carry(pair: TwoDatabases, *, exactly: bool = False) -> None:
    """Apply what has come, as the consumer does, and compare everything."""
    batches = pair.batches()
    assert batches
    for batch in batches:
        if exactly:
            pair.apply_exactly([batch])
        else:
            pair.apply([batch])
    assert pair.replays == []
    pair.compare()
    assert catalog_differences(pair.source, pair.replica) == []


def test_the_comparison_sees_something(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute("CREATE TABLE a (id int PRIMARY KEY); COMMENT ON TABLE a IS 'x'")
    assert all(catalog_of(captured.source)[kind] for kind in ("relations", "columns", "indexes", "comments"))
    assert catalog_differences(captured.source, captured.replica)


TABLES: tuple[LiteralString, ...] = (
    "CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a SELECT n, n FROM generate_series(1, 20) n",
    """CREATE TABLE keyless (x text); INSERT INTO keyless VALUES ('a'), ('a'), ('b');
    UPDATE keyless SET x = 'c' WHERE x = 'b'""",
    "ALTER TABLE a RENAME TO b; ALTER TABLE b RENAME COLUMN t TO u; ALTER TABLE b ADD COLUMN t text; UPDATE b SET t = u",
    "CREATE SCHEMA other; ALTER TABLE b SET SCHEMA other; INSERT INTO other.b VALUES (21, 'x', 'y')",
    "CREATE INDEX ON other.b (t); ALTER TABLE other.b ADD CONSTRAINT positive CHECK (id > 0) NOT VALID",
    "ALTER TABLE other.b VALIDATE CONSTRAINT positive, ALTER u SET NOT NULL, ALTER t SET DEFAULT 'z'",
    "ALTER TABLE other.b DROP CONSTRAINT a_pkey; UPDATE other.b SET t = 'w' WHERE id = 3",
    "CREATE TABLE child (b_id int REFERENCES keyless_key ON DELETE CASCADE)",
    "DROP TABLE keyless; CREATE TABLE keyless (y int); INSERT INTO keyless VALUES (1)",
)


def test_tables_in_the_midst_of_their_rows(captured: TwoDatabases, owner: Connection) -> None:
    for exactly in (False, True):
        owner.execute("CREATE TABLE keyless_key (id int PRIMARY KEY)")
        for statements in TABLES:
            owner.execute(statements)
            carry(captured, exactly=exactly)
        owner.execute("DROP SCHEMA other CASCADE; DROP TABLE keyless, keyless_key, child CASCADE")


STORED: tuple[LiteralString, ...] = (
    "ALTER TABLE a ADD COLUMN at timestamptz DEFAULT now()",
    "ALTER TABLE a ADD COLUMN random float8 DEFAULT random(), ADD COLUMN number serial",
    "ALTER TABLE a ADD COLUMN uuid uuid DEFAULT gen_random_uuid(), ADD COLUMN ident int GENERATED ALWAYS AS IDENTITY",
    """ALTER TABLE a ADD COLUMN arr int[] DEFAULT '{1,NULL}', ADD COLUMN odd text DEFAULT E'x\\'"\\\\,{}'""",
    "ALTER TABLE a ALTER t TYPE int USING (t::int * random() * 1000)::int",
    "ALTER TABLE a ALTER t TYPE numeric(20, 2), ADD COLUMN twice int GENERATED ALWAYS AS (id * 2) STORED",
    "UPDATE a SET t = 5 WHERE id < 3; DELETE FROM a WHERE id = 4",
    "ALTER TABLE keyless ADD COLUMN id serial PRIMARY KEY; UPDATE keyless SET x = 'z' WHERE id = 2",
    "ALTER TABLE keyless DROP COLUMN id; DELETE FROM keyless WHERE x = 'z'",
    "SELECT now() AS at, id, random() FROM a; CREATE TABLE made AS SELECT now() AS at, id, random() AS r FROM a",
    "SELECT id, clock_timestamp() AS at INTO into_made FROM a; ALTER TABLE into_made ADD PRIMARY KEY (id)",
    """UPDATE into_made SET id = id + 100; UPDATE made SET r = 1 WHERE id = 7;
    CREATE TABLE none AS SELECT 1 AS x WITH NO DATA""",
    "CREATE TABLE IF NOT EXISTS made AS SELECT 1; CREATE TABLE IF NOT EXISTS none (a int); UPDATE made SET r = 2",
    "CREATE UNLOGGED TABLE fast (id int PRIMARY KEY); INSERT INTO fast VALUES (1), (2); ALTER TABLE fast SET LOGGED",
    "INSERT INTO fast VALUES (3); DELETE FROM fast WHERE id = 1",
    "ALTER TABLE root ADD COLUMN at timestamptz DEFAULT clock_timestamp(), ADD COLUMN day date DEFAULT current_date",
    """CREATE DOMAIN lot AS float8 DEFAULT random(); CREATE DOMAIN since AS timestamptz DEFAULT now()
    CHECK (value > 'epoch');
    ALTER TABLE a ADD COLUMN lot lot; ALTER TABLE a ADD COLUMN since since""",
    """SET extra_float_digits = 0; SET bytea_output = escape; ALTER TABLE a ADD COLUMN f float8 DEFAULT 0.1::float8 + 0.2,
    ADD COLUMN b bytea DEFAULT 'a'; ALTER TABLE a ALTER f TYPE text, ALTER b TYPE text; RESET ALL""",
    """CREATE TABLE log (x int); CREATE FUNCTION noted(x int) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO public.log VALUES (x); RETURN x; END $$; ALTER TABLE a ADD COLUMN once int DEFAULT noted(7)""",
    "ALTER TABLE a ALTER once TYPE bigint USING noted(once::int); UPDATE log SET x = 8",
    """CREATE TABLE parent (id int PRIMARY KEY, up int REFERENCES parent); INSERT INTO parent VALUES (1, 1), (2, 1);
    CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent, q int REFERENCES root);
    INSERT INTO child VALUES (1, 2, 3)""",
    "ALTER TABLE parent ALTER id TYPE bigint USING id::bigint, ADD COLUMN r float8 DEFAULT random()",
    "ALTER TABLE child ALTER q TYPE bigint USING q::bigint; ALTER TABLE root ADD COLUMN r float8 DEFAULT random()",
    "ALTER TABLE a ADD CONSTRAINT old CHECK (id > 9) NOT VALID; ALTER TABLE a ADD COLUMN again timestamptz DEFAULT now()",
)


def test_what_home_has_stored_is_what_the_replica_stores(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute(
        """CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a SELECT n, n FROM generate_series(1, 20) n;
        CREATE TABLE keyless (x text); INSERT INTO keyless VALUES ('a'), ('a'), ('b');
        CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10); CREATE TABLE rest PARTITION OF root DEFAULT;
        INSERT INTO root SELECT generate_series(1, 20)"""
    )
    for statements in STORED:
        owner.execute(statements)
        carry(captured)
    assert captured.replica.execute("SELECT count(*) FROM embassy.ddl_rows").fetchone() == (0,)
    captured.source.execute("SELECT embassy.clear_ddl_rows()")
    assert captured.source.execute("SELECT count(*) FROM embassy.ddl_rows").fetchone() == (0,)


def test_what_rows_have_been_given_stays_when_their_column_is_altered_again(
    captured: TwoDatabases, owner: Connection
) -> None:
    owner.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 3)")
    owner.execute(
        """BEGIN; ALTER TABLE a ADD COLUMN at timestamptz DEFAULT now(), ADD COLUMN n int DEFAULT 5;
        UPDATE a SET at = '2000-01-01', n = 7 WHERE id = 1; ALTER TABLE a ADD COLUMN later int; COMMIT"""
    )
    carry(captured)
    captured.replica.execute("VACUUM FULL public.a")  # its rows are now like those that came after the column
    owner.execute("INSERT INTO a VALUES (4, '2001-01-01', 8)")
    owner.execute(
        "ALTER TABLE a ALTER at SET NOT NULL, ALTER n SET STATISTICS 50; ALTER TABLE a RENAME at TO made"
    )
    carry(captured)
    with owner.transaction():  # what another transaction has added meanwhile is not this one's
        owner.execute("SELECT pg_current_xact_id()")
        captured.source.execute("ALTER TABLE public.a ADD COLUMN other int DEFAULT 5")
        captured.source.execute("UPDATE public.a SET other = 7 WHERE id = 1")
        carry(captured)
        owner.execute("ALTER TABLE a ADD COLUMN last int")
    carry(captured)


PARTITIONS: tuple[LiteralString, ...] = (
    """CREATE TABLE root (id int PRIMARY KEY, t text) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (10);
    CREATE TABLE high PARTITION OF root FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
    CREATE TABLE rest PARTITION OF high DEFAULT; INSERT INTO root SELECT n, n FROM generate_series(1, 19) n""",
    "ALTER TABLE root DETACH PARTITION low; INSERT INTO low VALUES (100, 'x'); UPDATE root SET t = 'y' WHERE id = 15",
    "ALTER TABLE low DROP CONSTRAINT low_pkey; UPDATE low SET t = 'z' WHERE id = 3; DELETE FROM low WHERE id = 100",
    "CREATE TABLE fresh (LIKE root); INSERT INTO fresh VALUES (30, 'f')",
    "ALTER TABLE root ATTACH PARTITION fresh FOR VALUES FROM (20) TO (40); INSERT INTO root VALUES (31, 'g')",
    "ALTER TABLE root DETACH PARTITION high; UPDATE rest SET t = 'w' WHERE id = 12; TRUNCATE root; DROP TABLE high",
    "CREATE TABLE parent (a int); CREATE TABLE heir () INHERITS (parent); INSERT INTO heir VALUES (1)",
    "ALTER TABLE parent ADD COLUMN at timestamptz DEFAULT now(); INSERT INTO parent VALUES (2); DELETE FROM ONLY parent",
    "ALTER TABLE heir NO INHERIT parent; UPDATE heir SET a = 5",
)


def test_what_a_cast_of_the_registrys_own_does_is_done_once(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute(
        """CREATE TYPE old AS (x int); CREATE TYPE new AS (x int, at float8); CREATE TABLE noted (x int);
        CREATE FUNCTION renewed(old) RETURNS new LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO noted VALUES ($1.x); RETURN ROW($1.x, random())::new; END $$;
        CREATE CAST (old AS new) WITH FUNCTION renewed(old) AS ASSIGNMENT;
        CREATE TABLE a (id int PRIMARY KEY, v old); INSERT INTO a SELECT n, ROW(n)::old FROM generate_series(1, 3) n"""
    )
    carry(captured)
    owner.execute("ALTER TABLE a ALTER v TYPE new")
    carry(captured)


def test_partitions_come_and_go_with_their_rows(captured: TwoDatabases, owner: Connection) -> None:
    for statements in PARTITIONS:
        owner.execute(statements)
        carry(captured)


def test_what_detaching_concurrently_leaves_is_there_abroad(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute(
        """CREATE TABLE root (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (10) PARTITION BY LIST (k);
        CREATE TABLE leaf PARTITION OF low DEFAULT; CREATE TABLE high PARTITION OF root FOR VALUES FROM (10) TO (20)"""
    )
    owner.execute("INSERT INTO root VALUES (1, 1), (11, 1)")
    owner.execute("ALTER TABLE root DETACH PARTITION low CONCURRENTLY")
    carry(captured)
    with connect(captured.source_dsn, application_name="test") as other:
        other.execute("SELECT FROM public.root")
        owner.execute("SET statement_timeout = '1s'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            owner.execute("ALTER TABLE root DETACH PARTITION high CONCURRENTLY")
        owner.execute("RESET statement_timeout")
    owner.execute("ALTER TABLE root DETACH PARTITION high FINALIZE")
    carry(captured)
    owner.execute("ALTER TABLE low DROP CONSTRAINT low_id_check; ALTER TABLE high DROP CONSTRAINT high_id_check")
    owner.execute("INSERT INTO low VALUES (100, 1); INSERT INTO high VALUES (100, 1)")
    carry(captured)


OBJECTS: tuple[LiteralString, ...] = (
    """CREATE TYPE mood AS ENUM ('a', 'b'); CREATE DOMAIN code AS text CHECK (VALUE <> '');
    CREATE TYPE pair AS (x int, y text)""",
    "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, c code, p pair)",
    "INSERT INTO t (m, c, p) VALUES ('a', 'x', '(1,z)'); ALTER TYPE mood RENAME VALUE 'a' TO 'calm'",
    """ALTER TYPE pair ADD ATTRIBUTE z int CASCADE;
    INSERT INTO t (p) VALUES ('(1,z,5)'); ALTER DOMAIN code SET DEFAULT 'd'""",
    "CREATE VIEW v AS SELECT * FROM t; CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS n FROM t",
    "INSERT INTO t (c) VALUES ('q'); REFRESH MATERIALIZED VIEW mv; CREATE UNIQUE INDEX ON mv (n)",
    "CREATE FUNCTION f(x int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE x WHEN 1 THEN 2 END; SELECT x; END",
    "CREATE OR REPLACE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN PERFORM ';'; END $$; ALTER FUNCTION f(int) RENAME TO g",
    """CREATE SEQUENCE s INCREMENT 5; ALTER SEQUENCE s RESTART 100;
    ALTER SEQUENCE s OWNED BY t.id; ALTER TABLE t ADD u int""",
    "GRANT SELECT ON t, v TO PUBLIC; GRANT INSERT (c) ON t TO embassy_admin; REVOKE SELECT ON v FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO embassy_admin; CREATE TABLE granted (id int)",
    "COMMENT ON TABLE t IS 'it''s; a table'; COMMENT ON COLUMN t.c IS $$;$$; ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY mine ON t USING (c <> 'secret'); ALTER POLICY mine ON t USING (id > 0)",
    "CREATE RULE r AS ON INSERT TO granted WHERE new.id < 0 DO INSTEAD (SELECT 1; SELECT 2)",
    """CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.id := new.id + 1; RETURN new; END $$;
    CREATE TRIGGER up BEFORE INSERT ON granted FOR EACH ROW EXECUTE FUNCTION trg(); INSERT INTO granted VALUES (1)""",
    """CREATE STATISTICS st ON m, c FROM t; CREATE COLLATION coll FROM "C";
    CREATE AGGREGATE agg (int) (SFUNC = int4pl, STYPE = int)""",
    "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq); CREATE CAST (code AS int) WITH INOUT",
    "DROP VIEW v; DROP MATERIALIZED VIEW mv; DROP FUNCTION g(int); DROP POLICY mine ON t; DROP TRIGGER up ON granted",
    "DROP TYPE pair CASCADE; ALTER TABLE t DROP COLUMN m; DROP TYPE mood; INSERT INTO granted VALUES (5)",
)


def test_every_other_kind_of_object(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute("CREATE TABLE first (id int PRIMARY KEY)")
    for statements in OBJECTS:
        owner.execute(statements)
        carry(captured)


def test_however_a_statement_is_run(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute("CREATE TABLE a (id int PRIMARY KEY)")
    owner.execute("BEGIN; CREATE TABLE gone (x int); ROLLBACK; CREATE INDEX by_id ON a (id)")
    owner.execute(
        """DO $$ BEGIN CREATE TABLE b (t text DEFAULT 'x"''y'); EXECUTE 'ALTER TABLE b ADD u int';
        BEGIN CREATE TABLE c (); RAISE division_by_zero;
        EXCEPTION WHEN division_by_zero THEN CREATE TABLE d (); END; END $$"""
    )
    owner.execute(
        "CREATE FUNCTION of_sql() RETURNS void LANGUAGE sql AS 'CREATE TABLE e (); CREATE TABLE f (id int)'"
    )
    owner.execute("SELECT of_sql()")
    owner.execute("CREATE TABLE g (id int PRIMARY KEY)", prepare=True)
    with owner.transaction():
        owner.execute(
            "SET LOCAL search_path = pg_temp, public; CREATE TEMP TABLE a (x int); ALTER TABLE a ADD y int"
        )
        owner.execute(
            "CREATE TABLE public.h (x int); CREATE INDEX ON a (x); DROP TABLE a, public.h; COMMENT ON TABLE a IS 'x'"
        )
        with owner.transaction(force_rollback=True):
            owner.execute("DROP TABLE public.g")
    for statement in ("CREATE INDEX CONCURRENTLY conc ON a (id)", "REINDEX INDEX CONCURRENTLY conc"):
        owner.execute(statement)
    carry(captured)
    owner.execute("DROP INDEX CONCURRENTLY conc")
    captured.source.execute("CREATE EXTENSION hstore SCHEMA public; CREATE EXTENSION citext SCHEMA public")
    captured.source.execute(
        "SET SESSION AUTHORIZATION registry_owner; CREATE TABLE public.i (h public.hstore); RESET SESSION AUTHORIZATION"
    )
    captured.source.execute(
        "DROP EXTENSION citext; ALTER TABLE public.i OWNER TO embassy_admin; INSERT INTO public.i VALUES ('a=>1')"
    )
    carry(captured)


def test_a_string_goes_on_behind_what_it_prepares(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute("CREATE TABLE t (id int PRIMARY KEY)")
    owner.execute("BEGIN; CREATE SEQUENCE a; PREPARE TRANSACTION 'embassy_test_ddl'; CREATE SEQUENCE b")
    try:
        carry(captured)
    finally:
        owner.execute("COMMIT PREPARED 'embassy_test_ddl'")
    carry(captured)


def test_execute_may_be_given_several_statements_and_again(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute(
        """CREATE FUNCTION inner_one() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            EXECUTE 'CREATE TABLE x (a int); ALTER TABLE x ADD b int; ALTER TABLE x ADD c text'; END $$;
        DO $$ BEGIN
            EXECUTE 'CREATE TABLE a (id int, t text); CREATE INDEX ON a (t); CREATE INDEX ON a (id);
                     CREATE TABLE IF NOT EXISTS a (id int); SELECT inner_one(); CREATE TABLE b (LIKE a)';
            FOR n IN 1..3 LOOP
                EXECUTE 'ALTER TABLE a ALTER t TYPE varchar; INSERT INTO a VALUES (1); ALTER TABLE a ALTER t TYPE text';
                BEGIN
                    EXECUTE 'ALTER TABLE b ADD u int; ALTER TABLE b DROP nothing';
                EXCEPTION WHEN undefined_column THEN NULL;
                END;
            END LOOP;
        END $$"""
    )
    carry(captured)


def test_a_session_whose_plain_strings_escape_is_read_like_others(
    captured: TwoDatabases, owner: Connection
) -> None:
    owner.execute(
        "CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a SELECT n, n FROM generate_series(1, 20) n"
    )
    owner.execute("CREATE TEMPORARY TABLE seen (id int); SET standard_conforming_strings = off")
    owner.execute(
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'CREATE TABLE b (x int); CREATE TABLE c (y int)'"
    )
    owner.execute(
        "SELECT f(); ALTER TABLE a ALTER t TYPE int USING (random() * 1000)::int; CREATE TABLE d (LIKE seen)"
    )
    carry(captured)


def test_a_function_may_speak_of_a_temporary_table(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TEMPORARY TABLE seen (id int)")
    owner.execute("CREATE FUNCTION see(int) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES ($1)'")
    owner.execute("CREATE FUNCTION look(seen) RETURNS int LANGUAGE sql AS 'SELECT 1'; DROP FUNCTION look(seen)")
    owner.execute("CREATE RULE r AS ON INSERT TO seen DO INSTEAD NOTHING; DROP RULE r ON seen")
    carry(captured)


def test_what_is_made_over_a_temporary_table_goes_with_it(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TEMPORARY TABLE seen (id int)")
    over = (
        "CREATE FUNCTION all_seen() RETURNS SETOF seen LANGUAGE sql AS 'SELECT * FROM seen'",
        "CREATE FUNCTION count_seen() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM seen; END",
        "CREATE DOMAIN many AS seen[]",
        "CREATE VIEW view_of_seen AS SELECT * FROM seen",
        "CREATE RULE r AS ON INSERT TO a DO ALSO INSERT INTO seen VALUES (new.id)",
    )
    for statement in over:
        owner.execute(statement.encode())
    owner.execute("COMMENT ON FUNCTION all_seen() IS 'x'; INSERT INTO a VALUES (1)")
    captured.apply(captured.batches())
    assert captured.replica.execute("SELECT to_regtype('public.many') IS NULL").fetchone() == (True,)
    owner.execute("DROP FUNCTION count_seen(), all_seen(); DROP TABLE seen CASCADE; INSERT INTO a VALUES (2)")
    carry(captured)


LIKE: tuple[LiteralString, ...] = (
    "CREATE TABLE plain (LIKE t)",
    "CREATE TABLE half (x text UNIQUE, LIKE t INCLUDING ALL EXCLUDING INDEXES, CHECK (x <> 'y')) WITH (fillfactor = 70)",
    'CREATE TABLE other."All of it" (number bigserial, LIKE t INCLUDING ALL, FOREIGN KEY (id) REFERENCES a)',
    "CREATE TABLE heir (LIKE t INCLUDING DEFAULTS) INHERITS (a)",
    "CREATE UNLOGGED TABLE fast (LIKE T INCLUDING IDENTITY, PRIMARY KEY (ident))",
    "CREATE TABLE root (LIKE t) PARTITION BY RANGE (id); CREATE TABLE leaf PARTITION OF root DEFAULT",
    "DO $$ BEGIN EXECUTE 'CREATE TABLE inside (LIKE t INCLUDING COMMENTS, PRIMARY KEY (id))'; END $$",
    """CREATE TABLE IF NOT EXISTS plain (LIKE t); CREATE TEMP TABLE u (LIKE t);
    CREATE TABLE of_u (LIKE u); CREATE TABLE b (c int)""",
)


def test_a_table_like_a_temporary_one_is_what_it_has_become(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute(
        """CREATE SCHEMA other; CREATE TABLE a (id int PRIMARY KEY);
        CREATE TEMPORARY TABLE t (id int, at date DEFAULT '2020-02-03' CHECK (at > '2000-01-01'), "A b" text COLLATE "C",
            twice int GENERATED ALWAYS AS (id * 2) STORED, fixed varchar(5) NOT NULL DEFAULT 'it''s',
            ident int GENERATED ALWAYS AS IDENTITY (START 7 INCREMENT 3 CYCLE), big text, lz text COMPRESSION pglz,
            PRIMARY KEY (id, at), EXCLUDE USING btree (fixed WITH =) WHERE (id > 5));
        ALTER TABLE t ALTER big SET STORAGE EXTERNAL; CREATE INDEX ON t ("A b" DESC, (id + 1)) WHERE id > 3;
        CREATE STATISTICS ON id, at FROM t; COMMENT ON COLUMN t."A b" IS 'it''s';
        COMMENT ON CONSTRAINT t_pkey ON t IS 'k'"""
    )
    for statements in LIKE:
        owner.execute(statements)
        carry(captured)
    owner.execute(
        """INSERT INTO a SELECT generate_series(1, 5);
        INSERT INTO other."All of it" (id, at, fixed) SELECT n, '2020-01-01', n FROM generate_series(1, 5) n;
        INSERT INTO plain SELECT id, at, "A b", twice, fixed, ident, big, lz FROM other."All of it";
        INSERT INTO root SELECT * FROM plain; UPDATE root SET big = 'x'; DELETE FROM other."All of it" WHERE id = 3"""
    )
    carry(captured)
    # a default that needs what is temporary is lost at home, too, and no event trigger sees it
    owner.execute("CREATE TEMP TABLE v (n serial); CREATE TABLE was_serial (LIKE v INCLUDING ALL); DISCARD TEMP")
    carry(captured)


def test_what_a_command_does_inside_is_not_done_again(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute("CREATE TABLE base (id int PRIMARY KEY, x int); INSERT INTO base VALUES (1, 1), (2, 1)")
    owner.execute("CREATE MATERIALIZED VIEW seen AS SELECT * FROM base; CREATE UNIQUE INDEX ON seen (id)")
    owner.execute("UPDATE base SET x = 3 WHERE id = 2")
    owner.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY seen")
    owner.execute("CREATE TABLE IF NOT EXISTS base (id int); ALTER TABLE IF EXISTS nothing ADD y int")
    carry(captured)
    rows: LiteralString = "SELECT id, x FROM public.seen ORDER BY id"
    assert captured.replica.execute(rows).fetchall() == owner.execute(rows).fetchall() == [(1, 1), (2, 3)]


def test_tables_are_compared_whatever_the_session_writes_dates_like(
    captured: TwoDatabases, owner: Connection
) -> None:
    owner.execute("SET DateStyle = German; SET IntervalStyle = iso_8601; SET TimeZone = 'Asia/Tokyo'")
    owner.execute("SET quote_all_identifiers = on")
    owner.execute(
        "CREATE TABLE a (id int PRIMARY KEY, d date CHECK (d > DATE '01.02.2006'), i interval CHECK (i > 'PT90M'),"
        " t timestamptz CHECK (t > TIMESTAMPTZ '01.02.2006 03:04'))"
    )
    carry(captured)


def test_whose_large_objects_are_is_no_statement(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute("CREATE TABLE a (id int PRIMARY KEY)")
    owner.execute("SELECT lo_create(7001)")
    owner.execute("GRANT SELECT ON LARGE OBJECT 7001 TO PUBLIC; COMMENT ON LARGE OBJECT 7001 IS 'a scan'")
    captured.source.execute("COMMENT ON PUBLICATION embassy IS 'the stream'")
    carry(captured)


def test_what_a_failed_concurrent_index_leaves_behind_can_be_dropped(
    captured: TwoDatabases, owner: Connection
) -> None:
    owner.execute("CREATE TABLE twice (id int PRIMARY KEY, x int); INSERT INTO twice VALUES (1, 1), (2, 1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        owner.execute("CREATE UNIQUE INDEX CONCURRENTLY torn ON twice (x)")
    owner.execute("ALTER INDEX torn SET (fillfactor = 70)")
    owner.execute("ALTER TABLE torn RENAME TO ripped")
    owner.execute("COMMENT ON INDEX ripped IS 'to be renamed'")
    owner.execute("CREATE INDEX whole ON twice (x)")
    owner.execute("DROP INDEX ripped, whole")
    carry(captured)
    owner.execute("CREATE INDEX whole ON twice (x)")
    carry(captured)
    owner.execute("DROP INDEX whole")
    carry(captured)


def test_what_a_failed_concurrent_index_leaves_behind_can_be_rebuilt(
    captured: TwoDatabases, owner: Connection
) -> None:
    owner.execute("CREATE TABLE twice (id int PRIMARY KEY, x int); INSERT INTO twice VALUES (1, 1), (2, 1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        owner.execute("CREATE UNIQUE INDEX CONCURRENTLY torn ON twice (x)")
    owner.execute("UPDATE twice SET x = id")
    owner.execute("REINDEX INDEX torn")
    owner.execute("ALTER TABLE twice ADD y text")
    carry(captured)
    owner.execute("DROP INDEX torn")
    owner.execute("INSERT INTO twice VALUES (3, 1)")
    carry(captured)


def test_what_a_failed_concurrent_index_leaves_behind_can_be_used_once_it_is_rebuilt(
    captured: TwoDatabases, owner: Connection
) -> None:
    uses = (
        "COMMENT ON INDEX torn IS 'x'",
        "ALTER INDEX torn RENAME TO ripped",
        "ALTER TABLE twice REPLICA IDENTITY USING INDEX torn; UPDATE twice SET id = 7 WHERE x = 1",
        "ALTER TABLE twice CLUSTER ON torn, ADD y text DEFAULT 'a'",
        'ALTER TABLE twice ADD CONSTRAINT "A b" UNIQUE USING INDEX torn, ADD UNIQUE (id, x)',
        """ALTER TABLE twice DROP CONSTRAINT twice_pkey, ADD CONSTRAINT twice_pkey PRIMARY KEY USING INDEX torn;
        UPDATE twice SET x = 7 WHERE x = 1""",
    )
    for use in uses:
        owner.execute("CREATE TABLE twice (id int PRIMARY KEY, x int NOT NULL)")
        owner.execute("INSERT INTO twice VALUES (1, 1), (2, 1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            owner.execute("CREATE UNIQUE INDEX CONCURRENTLY torn ON twice (x)")
        owner.execute("UPDATE twice SET x = id")
        owner.execute("REINDEX INDEX torn")
        owner.execute(use.encode())
        carry(captured)
        owner.execute("DROP TABLE twice; CREATE TABLE IF NOT EXISTS last (id int PRIMARY KEY)")
        carry(captured)


def test_a_table_may_be_altered_before_its_concurrent_index_is_told_of(
    captured: TwoDatabases, owner: Connection
) -> None:
    owner.execute("CREATE TABLE a (id int PRIMARY KEY, x int)")
    waits = "SELECT FROM pg_locks WHERE relation = 'embassy.ddl_own'::regclass AND NOT granted"

    held = threading.Event()

    def index(_: threading.Event) -> None:
        held.wait(60)
        owner.execute("CREATE INDEX CONCURRENTLY late ON a (x) WHERE x > 0")

    with (
        meanwhile(index),
        connect(captured.source_dsn, application_name="test", autocommit=True) as other,
    ):
        other.execute("BEGIN; LOCK TABLE embassy.ddl_own IN ACCESS EXCLUSIVE MODE")  # keeps event triggers waiting
        held.set()
        poll_until(lambda: captured.source.execute(waits).fetchone() is not None, "the index, untold")
        other.execute("SET search_path = public; ALTER TABLE a ADD y int; ALTER TABLE a RENAME x TO z")
        other.execute("ALTER TABLE a RENAME TO b; COMMIT")
    carry(captured)


def test_an_index_that_another_one_keeps_from_being_made_halts(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute("CREATE TABLE a (id int PRIMARY KEY, x int); CREATE INDEX i ON a (x)")
    carry(captured)
    captured.replica.execute("DROP INDEX public.i; CREATE INDEX i ON public.a (x DESC)")
    owner.execute("ALTER TABLE a ADD y text")
    with pytest.raises(IntegrityError, match=r"public\.a differs .* lacks CREATE INDEX i .*\(x\), and has .*DESC"):
        captured.apply(captured.batches())


def test_a_new_value_of_an_enum_can_be_used_at_once(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute("CREATE TYPE mood AS ENUM ('a')")
    owner.execute("CREATE TABLE m (mood mood PRIMARY KEY)")
    owner.execute("ALTER TYPE mood ADD VALUE 'b'")
    owner.execute("INSERT INTO m VALUES ('b')")
    carry(captured)
    if captured.source.info.server_version < _ENUM_AT_ONCE_VERSION:
        return
    owner.execute(
        """BEGIN; CREATE TYPE state AS ENUM ('a'); ALTER TYPE state ADD VALUE 'b';
        CREATE TABLE s (state state PRIMARY KEY DEFAULT 'b'); INSERT INTO s DEFAULT VALUES; COMMIT"""
    )
    carry(captured)
    # what home's order alone satisfies is done anew, from the transaction's beginning
    owner.execute(
        """BEGIN; CREATE TYPE kind AS ENUM ('a'); ALTER TYPE kind ADD VALUE 'b';
        CREATE TABLE k (id int PRIMARY KEY, kind kind UNIQUE); INSERT INTO k VALUES (1, 'a'), (2, 'b');
        UPDATE k SET kind = NULL WHERE id = 1; UPDATE k SET kind = 'a' WHERE id = 2; UPDATE k SET kind = 'b' WHERE id = 1;
        COMMIT"""
    )
    captured.apply(captured.batches())
    captured.compare()


def test_triggers_that_always_fire_are_followed_under_every_name(
    captured: TwoDatabases, owner: Connection
) -> None:
    remembered = "SELECT relation, kind, name, enabled::text FROM embassy.disabled_triggers"
    owner.execute(
        """CREATE TABLE k (id int PRIMARY KEY, x text);
        CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.x := new.x || '!'; RETURN new; END $$;
        CREATE TRIGGER t BEFORE INSERT ON k FOR EACH ROW EXECUTE FUNCTION t(); ALTER TABLE k ENABLE ALWAYS TRIGGER t;
        INSERT INTO k VALUES (1, 'a'); ALTER TABLE k RENAME TO l;
        ALTER TRIGGER t ON l RENAME TO u; INSERT INTO l VALUES (2, 'b')"""
    )
    captured.apply(captured.batches())
    captured.compare()
    assert captured.replica.execute(remembered).fetchall() == [('"public"."l"', "trigger", "u", "A")]
    captured.source.execute(
        """ALTER TABLE public.l DISABLE TRIGGER ALL;
        ALTER TABLE public.l ENABLE TRIGGER USER; INSERT INTO public.l VALUES (3, 'c')"""
    )
    carry(captured)
    assert captured.replica.execute(remembered).fetchall() == []
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        captured.replica.execute("INSERT INTO public.l VALUES (4, 'd')")
    owner.execute(
        "CREATE TABLE told (tag text); CREATE FUNCTION tell() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'"
    )
    carry(captured)
    captured.replica.execute(
        """CREATE OR REPLACE FUNCTION public.tell() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.told VALUES (TG_TAG); END $$;
        CREATE EVENT TRIGGER tell ON ddl_command_end EXECUTE FUNCTION public.tell();
        ALTER EVENT TRIGGER tell ENABLE ALWAYS"""
    )
    for found in replica_schema.firing(captured.replica):
        replica_schema.silence(captured.replica, found)
    owner.execute("ALTER TABLE l ADD COLUMN y int; CREATE TABLE m (id int PRIMARY KEY)")
    captured.apply(captured.batches())
    captured.compare()
    assert captured.replica.execute(remembered).fetchall() == [("", "event trigger", "tell", "A")]


def test_nobody_else_writes_what_the_consumer_executes(captured: TwoDatabases, owner: Connection) -> None:
    forged = "INSERT INTO embassy.ddl SELECT * FROM embassy.ddl"
    captured.source.execute(
        "SET application_name = 'embassy-test'; GRANT USAGE ON SCHEMA embassy TO registry_owner"
    )
    for statement in (forged, "SELECT embassy.store_rows(1, 'pg_class'::regclass)", "DELETE FROM embassy.ddl_own"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner.execute(statement)
    for function in ("ddl_capture", "ddl_session", "ddl_rewrite"):
        with pytest.raises(psycopg.Error, match=r"can only be called as triggers|permission denied"):
            owner.execute(sql.SQL("SELECT embassy.{}()").format(sql.Identifier(function)))
    owner.execute(
        "SET embassy.ddl_role = 'embassy_admin'; SET embassy.ddl_search_path = 'nowhere'; CREATE TABLE mine ()"
    )
    assert captured.source.execute("SELECT role FROM embassy.ddl").fetchall() == [("registry_owner",)]
    carry(captured)


def in_the_way(captured: TwoDatabases, *, accept: bool) -> list[str]:
    """What stands in the way of promoting the replica."""
    waivers = {"accept_undrained": False, "accept_differences": accept, "accept_incomplete": False}
    return list(obstacles(captured.replica, b"none", roles=(), **waivers))


def test_a_table_whose_updates_home_would_lose_waits_for_a_key(captured: TwoDatabases, owner: Connection) -> None:
    if captured.source.info.server_version < GENERATED_IDENTITY_VERSION:
        pytest.skip("home could update it: PostgreSQL before 18")
    waiting = "SELECT table_name FROM embassy.table_copy WHERE state <> 'done' AND reason LIKE 'waits%' ORDER BY 1"
    published = "SELECT tablename FROM pg_publication_tables WHERE schemaname = 'public' ORDER BY 1"

    def carried() -> list[str]:
        for batch in captured.batches():
            captured.apply([batch])
        return [name for (name,) in captured.replica.execute(waiting)]

    owner.execute(
        """CREATE TABLE plain (a int); INSERT INTO plain VALUES (1), (2);
        CREATE TABLE made (a int, twice int GENERATED ALWAYS AS (a * 2) STORED); INSERT INTO made (a) VALUES (1), (1);
        CREATE TABLE root (a int, b int, c int GENERATED ALWAYS AS (a) STORED) PARTITION BY LIST (b);
        CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
        CREATE TABLE keyed PARTITION OF root (PRIMARY KEY (a, b)) FOR VALUES IN (2);
        CREATE TABLE lost (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
        INSERT INTO lost VALUES (1)"""
    )
    assert carried() == ["leaf", "made"]
    owner.execute(
        """ALTER TABLE plain ADD COLUMN b int GENERATED ALWAYS AS (a) STORED; ALTER TABLE lost DROP CONSTRAINT lost_pkey;
        INSERT INTO root VALUES (1, 1), (1, 2); UPDATE root SET a = 3; UPDATE plain SET a = 1; UPDATE made SET a = 1;
        UPDATE lost SET id = 5; INSERT INTO lost VALUES (5)"""
    )
    assert carried() == ["leaf", "lost", "made", "plain"]
    assert captured.source.execute(published).fetchall() == [("keyed",)]
    assert table_copies.unfinished(captured.source) == []
    assert in_the_way(captured, accept=True) == []
    (told,) = in_the_way(captured, accept=False)
    assert "public.leaf, public.lost, public.made, public.plain" in told
    owner.execute(
        """ALTER TABLE plain DROP COLUMN b; ALTER TABLE made ADD COLUMN id serial PRIMARY KEY;
        DELETE FROM lost WHERE ctid = (SELECT min(ctid) FROM lost); ALTER TABLE lost ADD PRIMARY KEY (id);
        ALTER TABLE root ADD PRIMARY KEY (a, b); UPDATE lost SET id = 6; UPDATE made SET a = 7 WHERE id = 1;
        UPDATE plain SET a = 8; UPDATE root SET a = 9"""
    )
    carried()
    assert captured.source.execute(published).fetchall() == [
        (name,) for name in ("keyed", "leaf", "lost", "made", "plain")
    ]
    wanted = table_copies.unfinished(captured.source)
    assert sorted(copy.name for copy in wanted) == ["leaf", "lost", "made", "plain"]
    assert all(copy.whole for copy in wanted)
    (told,) = in_the_way(captured, accept=True)
    assert "have not all been copied" in told
    # what was there before is gone, and what is not in the stream comes with the copy
    assert captured.replica.execute("SELECT id FROM public.lost").fetchall() == [(6,)]


def test_a_role_that_is_missing_halts_and_can_be_passed_over_by_hand(captured: TwoDatabases) -> None:
    captured.source.execute("CREATE ROLE only_at_home; CREATE TABLE public.a (id int PRIMARY KEY)")
    try:
        captured.source.execute("GRANT CREATE ON SCHEMA public TO only_at_home")
        captured.source.execute("SET ROLE only_at_home; CREATE TABLE public.b (id int); RESET ROLE")
        batches = captured.batches()
        captured.apply(batches[:1])
        with pytest.raises(IntegrityError, match=r'GRANT .* role "only_at_home" does not exist'):
            captured.apply(batches[1:2])
        with pytest.raises(IntegrityError, match="cannot be executed as only_at_home") as caught:
            captured.apply(batches[2:])
        assert "CREATE ROLE" in caught.value.hint
        captured.replica.execute("CREATE TABLE public.b (id int)")
        captured.replica.execute(
            "INSERT INTO embassy.ddl_by_hand SELECT n, 'no such role here' FROM generate_series(1, 9) n"
        )
        captured.apply(batches[1:])
        captured.compare()
    finally:
        captured.source.execute("DROP TABLE public.b; DROP OWNED BY only_at_home; DROP ROLE only_at_home")


def test_a_foreign_key_is_made_while_rows_are_still_copied(captured: TwoDatabases, owner: Connection) -> None:
    """Home has proven it; the replica has not all rows yet, and would say no."""
    owner.execute(
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, a int, b int)"
    )
    owner.execute("INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1, 1)")
    carry(captured)
    with captured.replica.transaction():
        captured.replica.execute("SET LOCAL session_replication_role = replica; DELETE FROM public.parent")
    captured.source.execute("SELECT embassy.request_copy('public', 'parent')")
    for statement in (
        'ALTER TABLE child ADD CONSTRAINT "a b" FOREIGN KEY (a) REFERENCES parent, ALTER b SET DEFAULT 1',
        "ALTER TABLE child ADD CONSTRAINT later FOREIGN KEY (b) REFERENCES parent NOT VALID",
        "ALTER TABLE child VALIDATE CONSTRAINT later",
        "ALTER TABLE child ALTER a TYPE bigint",
        "ALTER TABLE child ADD CONSTRAINT told FOREIGN KEY (a) REFERENCES parent NOT ENFORCED",
    ):
        if "ENFORCED" in statement and captured.source.info.server_version < _NOT_ENFORCED_VERSION:
            continue
        owner.execute(statement.encode())
        captured.apply(captured.batches())
        assert catalog_differences(captured.source, captured.replica) == []
    captured.source.execute("UPDATE embassy.table_copy SET state = 'done'")
    owner.execute("ALTER TABLE child ADD CONSTRAINT strict FOREIGN KEY (a) REFERENCES parent")
    with pytest.raises(IntegrityError, match="strict"):  # nothing explains it any more
        captured.apply(captured.batches())


@pytest.fixture
def leavers(captured: TwoDatabases) -> Iterator[None]:
    """Two roles that leave what they own to each other."""
    roles = ("test_leaver", "test_heir")
    for connection in (captured.source, captured.replica):
        for role in roles:
            connection.execute(f"CREATE ROLE {role}".encode())
    captured.source.execute("GRANT CREATE, USAGE ON SCHEMA public TO test_leaver, test_heir")
    yield
    for connection in (captured.source, captured.replica):
        for role in roles:
            connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def test_a_table_that_waits_for_its_rows_waits_under_every_name(captured: TwoDatabases, owner: Connection) -> None:
    owner.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int)"
    )
    owner.execute("INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1)")
    carry(captured)
    captured.replica.execute("SET session_replication_role = replica; DELETE FROM public.a; DELETE FROM public.b")
    for name in ("a", "b", "c"):
        table_copies.await_copy(captured.replica, "public", name)
    renamed = """BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b; DROP TABLE c;
        CREATE SCHEMA other; ALTER TABLE b SET SCHEMA other; DELETE FROM other.b WHERE id = 1; COMMIT"""
    for exactly in (False, True):
        owner.execute(renamed)
        for batch in captured.batches():
            (captured.apply_exactly if exactly else captured.apply)([batch])
        assert table_copies.awaited(captured.replica) == [("other", "b"), ("public", "a")]
        owner.execute("ALTER TABLE other.b SET SCHEMA public; DROP SCHEMA other; CREATE TABLE c (id int)")
        owner.execute("ALTER TABLE b RENAME TO x; ALTER TABLE a RENAME TO b; ALTER TABLE x RENAME TO a")
        captured.apply(captured.batches())
        assert table_copies.awaited(captured.replica) == [("public", "a"), ("public", "b")]
        owner.execute("INSERT INTO a VALUES (1)")
        captured.apply(captured.batches())
        captured.replica.execute("DELETE FROM public.a")


@pytest.mark.usefixtures("leavers")
def test_what_is_left_to_another_owner_is_so_abroad_and_not_dropped(captured: TwoDatabases) -> None:
    """REASSIGN OWNED fires no event trigger, and DROP OWNED takes what is left."""
    home = captured.source
    home.execute(
        """SET ROLE test_leaver; CREATE TABLE public.kept (id serial PRIMARY KEY, v text);
        CREATE TABLE public.lost (id int PRIMARY KEY); CREATE VIEW public.seen AS SELECT 1 AS x;
        CREATE TABLE public.parts (a int) PARTITION BY LIST (a);
        CREATE TABLE public.part PARTITION OF public.parts DEFAULT; CREATE SEQUENCE public.free;
        CREATE TYPE public.mood AS ENUM ('x'); CREATE DOMAIN public.posint AS int;
        CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE AGGREGATE public.total(int) (SFUNC = int4pl, STYPE = int);
        CREATE OPERATOR public.|+| (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int); RESET ROLE"""
    )
    home.execute("INSERT INTO public.kept (v) VALUES ('a'); INSERT INTO public.lost VALUES (1)")
    carry(captured)
    with home.transaction():
        home.execute("REASSIGN OWNED BY test_leaver TO test_heir")
        home.execute("ALTER TABLE public.lost OWNER TO test_leaver")
        home.execute("DROP OWNED BY test_leaver")
        home.execute("INSERT INTO public.kept (v) VALUES ('b')")
    carry(captured)
    assert captured.replica.execute("SELECT v FROM public.kept ORDER BY 1").fetchall() == [("a",), ("b",)]
    # whoever has it now does with it what only an owner may
    home.execute("GRANT CREATE, USAGE ON SCHEMA public TO test_leaver")
    home.execute("REASSIGN OWNED BY test_heir TO test_leaver")
    home.execute("SET ROLE test_leaver; DROP FUNCTION public.f(); ALTER TABLE public.kept ADD w int; RESET ROLE")
    carry(captured)
    home.execute("REASSIGN OWNED BY test_leaver TO test_heir")
    Exchange(home).run([ddl_capture.SAMPLE_OWNERS])
    carry(captured)
    # nothing was told in between
    home.execute("REASSIGN OWNED BY test_heir TO test_leaver; DROP OWNED BY test_leaver")
    home.execute("CREATE TABLE public.kept (id int); CREATE VIEW public.seen AS SELECT 1 AS x")
    home.execute("CREATE DOMAIN public.posint AS int")
    carry(captured)
    # roles that are part of PostgreSQL are in no list of owners
    home.execute("ALTER TABLE public.kept OWNER TO pg_database_owner; ALTER VIEW public.seen OWNER TO pg_monitor")
    home.execute("ALTER DOMAIN public.posint OWNER TO pg_monitor; ALTER SCHEMA public OWNER TO embassy_admin")
    home.execute("ALTER SCHEMA public OWNER TO pg_database_owner")
    Exchange(home).run([ddl_capture.SAMPLE_OWNERS])
    carry(captured)
    Exchange(home).run([ddl_capture.SAMPLE_OWNERS])
    assert captured.batches() == []


def test_a_replica_that_was_altered_by_hand_is_told_from_the_source(
    captured: TwoDatabases, owner: Connection
) -> None:
    owner.execute("CREATE TABLE a (id int PRIMARY KEY, x int)")
    carry(captured)
    captured.replica.execute("ALTER TABLE public.a ALTER x TYPE bigint")
    owner.execute("CREATE INDEX ON a (x)")
    with pytest.raises(IntegrityError, match=r"public\.a differs .* lacks x integer, and has x bigint"):
        captured.apply(captured.batches())


def test_a_string_that_does_not_tell_which_statement_it_was_halts(
    captured: TwoDatabases, owner: Connection
) -> None:
    owner.execute("BEGIN; CREATE TABLE gone (a int); ROLLBACK; CREATE TABLE there (b int)")
    batches = captured.batches()
    with pytest.raises(IntegrityError, match=r"cannot be told: it has 2 .* and rolls back") as caught:
        captured.apply(batches)
    assert "needs" not in caught.value.hint  # nothing that could be given lets it be told
    captured.replica.execute("CREATE TABLE public.there (b int)")
    note, _ = caught.value.hint.partition("INSERT")[2].split(" and start the consumer again")
    captured.replica.execute(f"INSERT{note}".encode())
    captured.apply(batches)


_SEEDS = int(os.environ.get("EMBASSY_TEST_DDL_SEEDS", "1"))


@pytest.mark.parametrize("_again", range(_SEEDS))
def test_whatever_is_done_at_home_is_done_abroad(captured: TwoDatabases, owner: Connection, _again: int) -> None:
    owner.execute(START)
    carry(captured)
    seed = int(os.environ.get("EMBASSY_TEST_SEED") or secrets.randbelow(10**6))
    print(f"EMBASSY_TEST_SEED={seed}")  # noqa: T201 - shown if it fails
    workload = DdlWorkload(owner, seed)
    for round_number in range(6):
        workload.run(12)
        batches = captured.batches(part_messages=50 if round_number % 2 else 32_768)
        for number, batch in enumerate(batches):
            if number == 0 or batches[number - 1].complete:
                captured.applier.begin()
            captured.applier.apply(batch)
            if batch.complete:
                captured.session.run([Call(Query("COMMIT"))])
        captured.compare()
        assert catalog_differences(captured.source, captured.replica) == []
    assert workload.done > 50
