"""What the source has, the replica has: every kind of change and of value, by the fast path and in exact order."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.harness.two_databases import MakePair

exactly = pytest.mark.parametrize("exactly", [False, True], ids=["fast", "exact"])

TYPES: LiteralString = """
CREATE SCHEMA s;
CREATE TYPE s."Mood" AS ENUM ('sad', 'it''s "ok"', 'happy, very');
CREATE TYPE s.address AS (street text, "House No" integer, tags text[]);
CREATE DOMAIN s.cents AS numeric(12, 2) CHECK (VALUE >= 0);
CREATE DOMAIN s.codes AS s.cents CHECK (VALUE < 1000000);
CREATE DOMAIN s.words AS text[] CHECK (cardinality(VALUE) < 9);
CREATE TABLE s.everything (
    id bigint PRIMARY KEY,
    fixed char(6), one_char char, internal_char "char", short varchar(5), plain text, ident name,
    yes boolean, tiny smallint, number integer, exact numeric(14, 2), any_scale numeric, money_value money,
    real_value real, double_value double precision,
    day date, moment timestamp(3), zoned timestamptz, clock time, zoned_clock timetz, span interval,
    months interval year to month,
    bits bit(5), some_bits bit varying(9), raw bytea, unique_id uuid,
    host inet, net cidr, mac macaddr, point_value point, box_value box, path_value path,
    doc json, docb jsonb, xml_value xml, search tsvector, query tsquery, lsn pg_lsn, class regclass,
    mood s."Mood", moods s."Mood"[], address s.address, addresses s.address[], cents s.cents, codes s.codes,
    words s.words,
    matrix integer[][], texts text[], fixed_texts char(3)[], days daterange, spans int4multirange, label varchar[]
);
"""
ROWS: LiteralString = r"""
INSERT INTO s.everything VALUES (
    1, 'ab', 'x', 'c', '  b  ', E'tab\t newline\n return\r back\\slash "quote" \\N é 🗺', 'a name',
    true, -32768, 7, 1234567.5, 1.50000, 12.3, 'NaN', '-0', 'infinity', '2024-02-29 12:00:00.123',
    '0044-03-15 BC', '24:00', '12:00+02', '1 year -2 mons 3 days -04:05:06.789', '3 years',
    B'10101', B'1', '\x00ff5c', gen_random_uuid(),
    '10.0.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', '(1.5,-2)', '((0,0),(1,2))', '[(0,0),(1,1)]',
    '{"b":1, "a": [1,2], "b": 2}', '{"b":1,"a":null}', '<a>&amp;</a>', 'a:1 b:2', 'a & !b', '16/B374D848',
    'pg_catalog.pg_class', 'it''s "ok"', ARRAY['sad','happy, very']::s."Mood"[],
    ROW('a "b", c', 5, ARRAY['x,y', NULL, ''])::s.address, ARRAY[ROW('q', NULL, NULL), NULL]::s.address[],
    99.9, 5.10, ARRAY['a','b'], '[2:3][1:2]={{1,2},{3,NULL}}', ARRAY['', NULL, 'NULL', '{}', 'a"b\c'],
    ARRAY['a','bc'], '[2024-01-01,2024-02-01)', '{[1,3),[5,9)}', ARRAY['x']);
INSERT INTO s.everything (id) VALUES (2), (3);
INSERT INTO s.everything (id, plain, fixed, texts) VALUES (4, '', '', '{}');
"""


@exactly
def test_every_type_passes_unchanged(pair: MakePair, *, exactly: bool) -> None:
    two = pair(TYPES)
    two.source.execute(ROWS)
    two.carry(exactly=exactly)
    columns = two.source.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 's.everything'::regclass AND attnum > 1"
    ).fetchall()
    names = ", ".join(f'"{name}"' for (name,) in columns)
    two.source.execute(
        f"UPDATE s.everything SET ({names}) = (SELECT {names} FROM s.everything WHERE id = 1) WHERE id = 2".encode()
    )
    two.source.execute(
        f"UPDATE s.everything SET ({names}) = (SELECT {names} FROM s.everything WHERE id = 3) WHERE id = 1".encode()
    )
    two.carry(exactly=exactly)
    two.source.execute("ALTER TABLE s.everything REPLICA IDENTITY FULL")
    two.source.execute("UPDATE s.everything SET number = 8")
    two.source.execute("DELETE FROM s.everything WHERE id IN (2, 3)")
    two.carry(exactly=exactly)


@exactly
def test_every_row_of_a_table_is_matched_by_any_kind_of_key(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE EXTENSION citext SCHEMA s;
    CREATE TYPE s.mood AS ENUM ('sad', 'happy');
    CREATE DOMAIN s.code AS char(4);
    CREATE COLLATION s.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE s.by_citext (k s.citext PRIMARY KEY, v integer);
    CREATE TABLE s.by_char (k char(5), l varchar(5), PRIMARY KEY (l, k), v integer);
    CREATE TABLE s.by_domain (k s.code PRIMARY KEY, v integer);
    CREATE TABLE s.by_enum (k s.mood PRIMARY KEY, v integer);
    CREATE TABLE s.by_array (k integer[] PRIMARY KEY, v integer);
    CREATE TABLE s.by_range (k daterange PRIMARY KEY, v integer);
    CREATE TABLE s.by_numeric (k numeric PRIMARY KEY, v integer);
    CREATE TABLE s.by_collated (k text COLLATE s.caseless PRIMARY KEY, v integer);
    CREATE TABLE s.by_name (k name PRIMARY KEY, c "char" NOT NULL, v integer);
    CREATE TABLE s.by_bytes (k bytea PRIMARY KEY, b bit(3) NOT NULL, v integer);
    CREATE TABLE s.by_uuid (k uuid PRIMARY KEY, v integer);
    CREATE TABLE s.by_index (a integer PRIMARY KEY, k text NOT NULL, l inet NOT NULL, v integer);
    CREATE UNIQUE INDEX other ON s.by_index (l, k) INCLUDE (v);
    ALTER TABLE s.by_index REPLICA IDENTITY USING INDEX other;
    """)
    two.source.execute("""
    INSERT INTO s.by_citext VALUES ('Aa', 1), ('bB', 2), ('c', 3);
    INSERT INTO s.by_char VALUES ('a', 'b  ', 1), ('a', 'b', 2), ('', '', 3);
    INSERT INTO s.by_domain VALUES ('a', 1), ('abcd', 2), ('', 3);
    INSERT INTO s.by_enum VALUES ('sad', 1), ('happy', 2);
    INSERT INTO s.by_array VALUES ('{1,2}', 1), ('{NULL}', 2), ('{}', 3);
    INSERT INTO s.by_range VALUES ('[2024-01-01,)', 1), ('empty', 2), ('(,)', 3);
    INSERT INTO s.by_numeric VALUES (1.0, 1), ('NaN', 2), (1e30, 3);
    INSERT INTO s.by_collated VALUES ('Straße', 1), ('b', 2), ('', 3);
    INSERT INTO s.by_name VALUES ('N', 'x', 1), ('n', 'y', 2), ('', '', 3);
    INSERT INTO s.by_bytes VALUES ('\\x', B'000', 1), ('\\x5c00', B'101', 2), ('\\xff', B'111', 3);
    INSERT INTO s.by_uuid VALUES (gen_random_uuid(), 1), (gen_random_uuid(), 2), (gen_random_uuid(), 3);
    INSERT INTO s.by_index VALUES (1, 'a', '::1', 1), (2, 'a', '10.0.0.1/8', 2), (3, 'b', '::1', 3);
    """)
    two.carry(exactly=exactly)
    tables = two.source.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 's'::regnamespace AND relkind = 'r'"
    ).fetchall()
    for (table,) in tables:
        two.source.execute(f"UPDATE s.{table} SET v = v + 10".encode())
        two.source.execute(f"DELETE FROM s.{table} WHERE v = 12".encode())
    two.source.execute("UPDATE s.by_citext SET k = 'AA' WHERE v = 11")
    two.source.execute("UPDATE s.by_numeric SET k = 1.00 WHERE v = 11")
    two.source.execute("UPDATE s.by_collated SET k = 'STRASSE' WHERE v = 11")
    two.source.execute("UPDATE s.by_index SET l = '10.0.0.0/8', a = 12 WHERE v = 13")
    two.source.execute("UPDATE s.by_char SET k = 'z' WHERE v = 13")
    two.carry(exactly=exactly)


@exactly
def test_a_cast_from_text_does_not_run(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE EXTENSION hstore SCHEMA s;
    CREATE TYPE s.mood AS ENUM ('sad', 'happy');
    CREATE TYPE s.pair AS (a text, b text);
    CREATE FUNCTION s.always_sad(text) RETURNS s.mood LANGUAGE sql IMMUTABLE AS $$SELECT 'sad'::s.mood$$;
    CREATE CAST (text AS s.mood) WITH FUNCTION s.always_sad(text) AS IMPLICIT;
    CREATE FUNCTION s.always_one(text) RETURNS s.pair LANGUAGE sql IMMUTABLE AS $$SELECT ROW('1', '1')::s.pair$$;
    CREATE CAST (text AS s.pair) WITH FUNCTION s.always_one(text) AS ASSIGNMENT;
    CREATE FUNCTION s.no_numbers(text) RETURNS integer[] LANGUAGE sql IMMUTABLE AS $$SELECT '{}'::integer[]$$;
    CREATE CAST (text AS integer[]) WITH FUNCTION s.no_numbers(text);
    CREATE FUNCTION s.zero(text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$SELECT 0$$;
    CREATE CAST (text AS integer) WITH FUNCTION s.zero(text);
    CREATE FUNCTION s.epoch(text) RETURNS date LANGUAGE sql IMMUTABLE AS $$SELECT '1970-01-01'::date$$;
    CREATE CAST (text AS date) WITH FUNCTION s.epoch(text);
    CREATE CAST (text AS s.hstore) WITH INOUT;
    CREATE TABLE s.t (k s.mood PRIMARY KEY, p s.pair, n integer[], i integer, d date, h s.hstore, ms s.mood[]);
    CREATE TABLE s.keyless (k s.mood, i integer);
    CREATE INDEX ON s.keyless (i);
    ALTER TABLE s.keyless REPLICA IDENTITY FULL;
    ALTER TABLE s.keyless ALTER i SET NOT NULL;
    """)
    two.source.execute("""
    INSERT INTO s.t VALUES ('happy', '(a,b)', '{1,2}', 5, '2024-02-29', 'a=>1', '{happy}');
    INSERT INTO s.t VALUES ('sad', NULL, NULL, 1, NULL, NULL, NULL);
    INSERT INTO s.keyless VALUES ('happy', 1), ('happy', 2), ('sad', 1);
    """)
    two.carry(exactly=exactly)
    two.source.execute(
        "UPDATE s.t SET p = '(c,d)', n = '{3}', i = 6, d = '2025-01-01', h = 'b=>2' WHERE k = 'happy'"
    )
    two.source.execute("DELETE FROM s.t WHERE k = 'sad'")
    two.source.execute("UPDATE s.keyless SET i = 3 WHERE k = 'happy' AND i = 1")
    two.source.execute("DELETE FROM s.keyless WHERE k = 'happy' AND i = 2")
    two.carry(exactly=exactly)


def test_where_every_text_has_a_cast_rows_go_one_by_one(pair: MakePair) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TYPE s.mood AS ENUM ('sad', 'happy');
    CREATE FUNCTION s.sad(text) RETURNS s.mood LANGUAGE sql IMMUTABLE AS $$SELECT 'sad'::s.mood$$;
    CREATE FUNCTION s.sad(varchar) RETURNS s.mood LANGUAGE sql IMMUTABLE AS $$SELECT 'sad'::s.mood$$;
    CREATE FUNCTION s.sad(bpchar) RETURNS s.mood LANGUAGE sql IMMUTABLE AS $$SELECT 'sad'::s.mood$$;
    CREATE CAST (text AS s.mood) WITH FUNCTION s.sad(text) AS IMPLICIT;
    CREATE CAST (varchar AS s.mood) WITH FUNCTION s.sad(varchar) AS IMPLICIT;
    CREATE CAST (bpchar AS s.mood) WITH FUNCTION s.sad(bpchar) AS IMPLICIT;
    CREATE TABLE s.t (i integer PRIMARY KEY, m s.mood);
    """)
    two.source.execute("INSERT INTO s.t VALUES (1, 'happy'), (2, 'sad')")
    two.carry()
    two.source.execute("UPDATE s.t SET m = 'happy' WHERE i = 2")
    two.apply(two.batches())
    two.compare()
    assert two.replays == ["casts"]


@exactly
def test_equal_rows_without_a_key_are_written_one_each(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.bag (n numeric, b box, t text);
    ALTER TABLE s.bag REPLICA IDENTITY FULL;
    CREATE TABLE s.indexed (n numeric NOT NULL, b box, t text);
    CREATE INDEX ON s.indexed (n, t);
    ALTER TABLE s.indexed REPLICA IDENTITY FULL;
    """)
    # 1.0 = 1.00, and boxes are equal when their areas are; NULL and the empty text look alike to some
    for table in ("s.bag", "s.indexed"):
        two.source.execute(
            f"""INSERT INTO {table} SELECT n, b, t FROM generate_series(1, 3),
            (VALUES (1.0), (1.00), (2)) AS n (n), (VALUES ('((0,0),(1,4))'::box), ('((0,0),(2,2))'), (NULL)) AS b (b),
            (VALUES ('x'), (''), (NULL), ('a,b'), ('(")')) AS t (t)""".encode()
        )
    two.carry(exactly=exactly)
    for table in ("s.bag", "s.indexed"):
        for statement in (
            "DELETE FROM {} WHERE ctid IN (SELECT min(ctid) FROM {} GROUP BY n::text, b::text, t)",
            "UPDATE {} SET t = 'changed' WHERE ctid IN (SELECT min(ctid) FROM {} GROUP BY n::text, b::text, t)",
            "DELETE FROM {} WHERE t = 'x' AND n::text = '1.00'",
            "UPDATE {} SET n = n + 0.000 WHERE t = 'changed' AND b IS NULL",
            "UPDATE {} SET n = 1.0 WHERE n = 1",
        ):
            two.source.execute(statement.replace("{}", table).encode())
    two.carry(exactly=exactly)
    two.source.execute("DELETE FROM s.bag")
    two.source.execute("DELETE FROM s.indexed")
    two.carry(exactly=exactly)


@exactly
def test_keys_change(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.t (id integer PRIMARY KEY, v text);
    CREATE TABLE s.only_key (a integer, b text, PRIMARY KEY (a, b));
    """)
    two.source.execute("INSERT INTO s.t SELECT i, 'v' || i FROM generate_series(1, 50) i")
    two.source.execute("INSERT INTO s.only_key SELECT i, 'b' FROM generate_series(1, 50) i")
    two.carry(exactly=exactly)
    two.source.execute("UPDATE s.t SET id = id + 1000 WHERE id <= 20")
    two.source.execute("UPDATE s.t SET id = id - 1000, v = v || '!' WHERE id > 1010")
    two.source.execute("DELETE FROM s.t WHERE id = 12")
    two.source.execute("INSERT INTO s.t VALUES (12, 'again')")
    two.source.execute("UPDATE s.only_key SET a = a")  # changes nothing, and is sent all the same
    two.source.execute("UPDATE s.only_key SET b = 'c' WHERE a > 25")
    two.carry(exactly=exactly)


@exactly
def test_large_values_that_stay_are_left_alone(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.t (id integer PRIMARY KEY, big text, other bytea, n integer);
    ALTER TABLE s.t ALTER big SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL;
    CREATE TABLE s.whole (big text, n integer);
    ALTER TABLE s.whole ALTER big SET STORAGE EXTERNAL;
    ALTER TABLE s.whole REPLICA IDENTITY FULL;
    """)
    two.source.execute(
        """INSERT INTO s.t SELECT i, repeat('x', 5000) || i, decode(repeat('ab', 5000), 'hex'), i
           FROM generate_series(1, 9) i"""
    )
    two.source.execute("INSERT INTO s.whole SELECT repeat('y', 5000) || i, i FROM generate_series(1, 9) i")
    two.carry(exactly=exactly)
    two.source.execute("UPDATE s.t SET n = n + 1")
    two.source.execute("UPDATE s.t SET n = n + 1, big = 'small' WHERE id = 3")
    two.source.execute("UPDATE s.t SET other = NULL WHERE id > 7")
    two.source.execute("UPDATE s.t SET id = id + 100 WHERE id = 5")
    two.source.execute("UPDATE s.whole SET n = n + 1")
    two.source.execute("UPDATE s.whole SET big = big || '!' WHERE n = 4")
    two.source.execute("DELETE FROM s.whole WHERE n = 5")
    two.carry(exactly=exactly)


@exactly
def test_identity_and_generated_columns(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.t (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        again integer GENERATED BY DEFAULT AS IDENTITY,
        n integer,
        twice integer GENERATED ALWAYS AS (n * 2) STORED
    );
    CREATE TABLE s.aside (k text PRIMARY KEY, id bigint GENERATED ALWAYS AS IDENTITY, n integer);
    CREATE TABLE s.whole (id bigint GENERATED ALWAYS AS IDENTITY, n integer);
    ALTER TABLE s.whole REPLICA IDENTITY FULL;
    """)
    two.source.execute("INSERT INTO s.t (n) SELECT generate_series(1, 9)")
    two.source.execute("INSERT INTO s.aside (k, n) SELECT i, i FROM generate_series(1, 9) i")
    two.source.execute("INSERT INTO s.whole (n) SELECT generate_series(1, 9)")
    two.source.execute("INSERT INTO s.t (id, n) OVERRIDING SYSTEM VALUE VALUES (1000, 1)")
    two.carry(exactly=exactly)
    two.source.execute("UPDATE s.t SET n = n * 10, again = again + 5")
    two.source.execute("UPDATE s.aside SET n = n * 10")
    two.source.execute("UPDATE s.aside SET k = k || 'x' WHERE n = 50")
    two.source.execute("UPDATE s.whole SET n = n * 10")
    two.source.execute("DELETE FROM s.t WHERE n = 20")
    two.carry(exactly=exactly)


@exactly
def test_a_new_value_of_an_identity_column_is_homes(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.t (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n integer, big text,
        twice integer GENERATED ALWAYS AS (n * 2) STORED
    );
    CREATE TABLE s.child (id bigint REFERENCES s.t ON UPDATE CASCADE ON DELETE CASCADE);
    CREATE TABLE s.aside (k text PRIMARY KEY, id bigint GENERATED ALWAYS AS IDENTITY UNIQUE, big text);
    CREATE TABLE s.whole (id bigint GENERATED ALWAYS AS IDENTITY, n integer, big text);
    ALTER TABLE s.whole REPLICA IDENTITY FULL;
    ALTER TABLE s.t ALTER big SET STORAGE EXTERNAL;
    ALTER TABLE s.aside ALTER big SET STORAGE EXTERNAL;
    ALTER TABLE s.child REPLICA IDENTITY FULL;
    """)
    two.replica.execute("ALTER TABLE s.t ADD only_here text DEFAULT 'kept'")
    two.source.execute("INSERT INTO s.t (n, big) SELECT i, repeat(i::text, 5000) FROM generate_series(1, 9) i")
    two.source.execute("INSERT INTO s.child SELECT id FROM s.t")
    two.source.execute("INSERT INTO s.aside (k, big) SELECT i, repeat(i::text, 5000) FROM generate_series(1, 9) i")
    two.source.execute("INSERT INTO s.whole (n, big) SELECT i % 3, 'x' FROM generate_series(1, 9) i")
    two.apply(two.batches())
    two.replica.execute("SET session_replication_role = replica; UPDATE s.t SET only_here = 'by hand'")
    two.source.execute("UPDATE s.t SET id = DEFAULT, n = n + 1 WHERE n > 3")
    two.source.execute("UPDATE s.t SET id = DEFAULT WHERE n = 8")
    two.source.execute("UPDATE s.aside SET id = DEFAULT, k = k || 'x' WHERE k < '5'")
    two.source.execute("UPDATE s.aside SET id = DEFAULT")
    two.source.execute("UPDATE s.whole SET id = DEFAULT WHERE n = 1")
    if exactly:
        two.apply_exactly(two.batches())
    else:
        two.apply(two.batches())
        assert two.replays == ["row count"]
    rows = "SELECT id, n, twice, md5(big) FROM s.t ORDER BY id"
    assert two.replica.execute(rows.encode()).fetchall() == two.source.execute(rows.encode()).fetchall()
    assert two.replica.execute("SELECT count(*) FROM s.t WHERE only_here = 'by hand'").fetchone() == (9,)
    two.replica.execute("ALTER TABLE s.t DROP only_here")
    two.compare()


@exactly
def test_names_of_every_kind(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA "Odd ""schema"", 100%";
    CREATE TABLE "Odd ""schema"", 100%"."Tábla; DROP" ("select" integer PRIMARY KEY, "a.b %s {0}" text, "ord" text,
        "image" text, "c0" text, "k0" text, "t" text, "v" text);
    CREATE TABLE "Odd ""schema"", 100%"."whole" ("order" integer, "ord" text, "image" text, "n" text, "tid" text,
        "r" text);
    ALTER TABLE "Odd ""schema"", 100%"."whole" REPLICA IDENTITY FULL;
    """)
    two.source.execute("""
    SET search_path = "Odd ""schema"", 100%";
    INSERT INTO "Tábla; DROP" VALUES (1, 'a', 'b', 'c', 'd', 'e', 'f', 'g'), (2, 'a', 'b', 'c', 'd', 'e', 'f', 'g');
    INSERT INTO "whole" VALUES (1, 'a', 'b', 'c', 'd', 'e'), (1, 'a', 'b', 'c', 'd', 'e');
    INSERT INTO "whole" VALUES (2, NULL, NULL, NULL, NULL, NULL);
    """)
    two.carry(exactly=exactly)
    two.source.execute("""
    UPDATE "Tábla; DROP" SET "a.b %s {0}" = 'z', "ord" = 'y', "image" = 'x' WHERE "select" = 2;
    UPDATE "whole" SET "ord" = 'z', "n" = 'y', "tid" = 'x' WHERE ctid = '(0,1)';
    DELETE FROM "whole" WHERE "order" = 2;
    DELETE FROM "Tábla; DROP" WHERE "select" = 1;
    """)
    two.carry(exactly=exactly)


@exactly
def test_partitions_and_inheritance_are_written_table_by_table(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.entry (id integer, part text, n integer, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
    CREATE TABLE s.entry_a PARTITION OF s.entry FOR VALUES IN ('a');
    CREATE TABLE s.entry_b PARTITION OF s.entry FOR VALUES IN ('b');
    CREATE TABLE s.parent (id integer PRIMARY KEY, n integer);
    CREATE TABLE s.child (extra text, PRIMARY KEY (id)) INHERITS (s.parent);
    """)
    two.source.execute(
        "INSERT INTO s.entry SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END, i FROM generate_series(1, 20) i"
    )
    two.source.execute("INSERT INTO s.parent SELECT i, i FROM generate_series(1, 9) i")
    two.source.execute("INSERT INTO s.child SELECT i, i, 'x' FROM generate_series(1, 9) i")
    two.carry(exactly=exactly)
    two.source.execute("UPDATE s.entry SET part = 'b' WHERE id < 6")
    two.source.execute("UPDATE s.parent SET n = n + 1 WHERE id = 1")
    two.source.execute("UPDATE ONLY s.parent SET n = n + 1 WHERE id = 2")
    two.source.execute("DELETE FROM s.child WHERE id = 3")
    two.source.execute("DELETE FROM ONLY s.parent WHERE id = 4")
    two.source.execute("TRUNCATE s.entry_a")
    two.source.execute("INSERT INTO s.entry VALUES (100, 'a', 1)")
    two.carry(exactly=exactly)
    two.source.execute("TRUNCATE s.entry, ONLY s.parent")
    two.carry(exactly=exactly)


@exactly
def test_truncate_with_references_among_partitions(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.account (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text);
    CREATE TABLE s.booking (id integer, account integer REFERENCES s.account, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE s.booking_1 PARTITION OF s.booking FOR VALUES FROM (0) TO (10);
    CREATE TABLE s.booking_2 PARTITION OF s.booking FOR VALUES FROM (10) TO (20);
    CREATE TABLE s.plain (id integer PRIMARY KEY, other integer REFERENCES s.plain);
    """)
    two.source.execute("INSERT INTO s.account (v) VALUES ('a'), ('b')")
    two.source.execute("INSERT INTO s.booking VALUES (1, 1), (11, 2)")
    two.source.execute("INSERT INTO s.plain VALUES (1, NULL), (2, 1)")
    two.carry(exactly=exactly)
    two.replica.execute("SET session_replication_role = replica")
    two.replica.execute("SELECT setval('s.account_id_seq', 77)")
    two.source.execute("INSERT INTO s.account (v) VALUES ('c')")
    two.source.execute("TRUNCATE s.account RESTART IDENTITY CASCADE")
    two.source.execute("TRUNCATE s.plain")
    two.source.execute("INSERT INTO s.account (v) VALUES ('d')")
    two.source.execute("INSERT INTO s.booking VALUES (2, 1)")
    batches = two.batches()
    if exactly:
        two.apply_exactly(batches)
    else:
        two.apply(batches)  # the partitioned root refers to the account, and the stream does not name it
        assert two.replays == ["0A000"]
    two.compare()
    assert two.replica.execute("SELECT nextval('s.account_id_seq')").fetchone() == (1,)


def test_nothing_fires_and_nothing_is_checked_again(pair: MakePair) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.t (id integer PRIMARY KEY, n integer, stamped timestamptz);
    CREATE TABLE s.history (id integer, n integer);
    ALTER TABLE s.history REPLICA IDENTITY FULL;
    CREATE TABLE s.child (id integer PRIMARY KEY, t integer REFERENCES s.t ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE FUNCTION s.stamp() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN NEW.stamped = clock_timestamp(); INSERT INTO s.history VALUES (NEW.id, NEW.n); RETURN NEW; END$$;
    CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.stamp();
    CREATE RULE double AS ON INSERT TO s.child DO ALSO INSERT INTO s.history VALUES (NEW.id, 0);
    """)
    two.source.execute("INSERT INTO s.t SELECT i, i FROM generate_series(1, 5) i")
    two.source.execute("INSERT INTO s.child SELECT i, i FROM generate_series(1, 5) i")
    two.source.execute("UPDATE s.t SET id = id + 10 WHERE id < 3")
    two.source.execute("DELETE FROM s.t WHERE id = 4")
    two.carry()
    two.source.execute("UPDATE s.t SET n = 0")
    two.carry(exactly=True)


@exactly
def test_what_a_domain_no_longer_allows_stays_where_it_is(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE DOMAIN s.code AS text;
    CREATE DOMAIN s.outer_code AS s.code;
    CREATE TABLE s.t (id integer PRIMARY KEY, c s.outer_code, n integer);
    CREATE TABLE s.whole (c s.code, n integer);
    ALTER TABLE s.whole REPLICA IDENTITY FULL;
    """)
    two.source.execute("INSERT INTO s.t VALUES (1, 'old', 1), (2, NULL, 1), (3, 'old', 1)")
    two.source.execute("INSERT INTO s.whole VALUES ('old', 1), ('old', 1), (NULL, 1)")
    two.carry(exactly=exactly)
    two.both("ALTER DOMAIN s.code ADD CHECK (VALUE <> 'old') NOT VALID")
    for value in ("new", "newer"):
        two.source.execute("UPDATE s.t SET n = n + 1")
        two.source.execute("UPDATE s.t SET c = %s WHERE id = 3", (value,))
        two.source.execute("UPDATE s.whole SET n = n + 1")
        batches = two.batches()
        (two.apply_exactly if exactly else two.apply)(batches)
        two.compare()
    assert two.replays == ([] if exactly else ["23514"])  # the first looks at the catalogue again


@exactly
def test_exclusion_constraints_and_deferred_uniqueness(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE EXTENSION btree_gist SCHEMA s;
    SET search_path = s, public;
    CREATE TABLE s.booking (id integer PRIMARY KEY, room integer, during int4range,
        EXCLUDE USING gist (room WITH =, during WITH &&));
    CREATE TABLE s.rank (id integer PRIMARY KEY, rank integer UNIQUE DEFERRABLE INITIALLY IMMEDIATE);
    CREATE TABLE s.rank_later (id integer PRIMARY KEY, rank integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
    SET search_path = '';
    """)
    two.source.execute("INSERT INTO s.booking VALUES (1, 1, '[1,5)'), (2, 1, '[5,9)')")
    two.source.execute("INSERT INTO s.rank SELECT i, i FROM generate_series(1, 9) i")
    two.source.execute("INSERT INTO s.rank_later SELECT i, i FROM generate_series(1, 9) i")
    two.carry(exactly=exactly)
    two.source.execute("UPDATE s.booking SET during = '[1,4)' WHERE id = 1")
    two.source.execute("UPDATE s.booking SET during = '[4,9)' WHERE id = 2")
    two.source.execute("UPDATE s.rank SET rank = 10 - rank")
    with two.source.transaction():
        two.source.execute("UPDATE s.rank_later SET rank = 2 WHERE id = 1")
        two.source.execute("UPDATE s.rank_later SET rank = 1 WHERE id = 2")
    two.carry(exactly=exactly)


def test_a_row_that_is_written_again_and_again(pair: MakePair) -> None:
    two = pair("CREATE SCHEMA s; CREATE TABLE s.t (id integer PRIMARY KEY, v text, n integer);")
    two.source.execute("INSERT INTO s.t VALUES (1, 'a', 0), (2, 'b', 0)")
    for i in range(30):
        two.source.execute("UPDATE s.t SET n = %s WHERE id = 1", (i,))
        if i % 10 == 3:
            two.source.execute("DELETE FROM s.t WHERE id = 2")
            two.source.execute("INSERT INTO s.t VALUES (2, %s, 0)", (str(i),))
            two.source.execute("UPDATE s.t SET v = v || '!' WHERE id = 2")
    two.carry()


def test_a_large_transaction_in_parts_is_seen_whole_or_not_at_all(pair: MakePair) -> None:
    two = pair("CREATE SCHEMA s; CREATE TABLE s.t (id integer PRIMARY KEY, n integer);")
    with two.source.transaction():
        two.source.execute("INSERT INTO s.t SELECT i, 0 FROM generate_series(1, 1000) i")
        two.source.execute("UPDATE s.t SET n = 1 WHERE id <= 500")
        two.source.execute("DELETE FROM s.t WHERE id > 900")
    batches = two.batches(part_messages=300)
    assert [(batch.part, batch.complete) for batch in batches] == [(i, i == 5) for i in range(6)]
    two.applier.begin()
    for batch in batches[:-1]:
        two.applier.apply(batch)
        assert two.replica.execute("SELECT count(*) FROM s.t").fetchone() == (0,)
    two.session.connection.rollback()
    two.session.connection.execute("ROLLBACK")
    two.apply(batches)
    two.compare()
    assert two.replays == []
