"""Tables that replication finds hard, and transactions that are not what they seem."""

from __future__ import annotations

from typing import LiteralString

import pytest

from embassy.model.errors import IntegrityError
from tests.harness.two_databases import MakePair

exactly = pytest.mark.parametrize("exactly", [False, True], ids=["fast", "exact"])


def test_a_table_without_columns_keeps_its_number_of_rows(pair: MakePair) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.nothing ();
    ALTER TABLE s.nothing REPLICA IDENTITY FULL;
    CREATE TABLE s.dropped (gone integer);
    ALTER TABLE s.dropped DROP gone, REPLICA IDENTITY FULL;
    CREATE TABLE s.beside (id integer PRIMARY KEY);
    """)
    count = "SELECT (SELECT count(*) FROM s.nothing), (SELECT count(*) FROM s.dropped), (SELECT count(*) FROM s.beside)"
    two.source.execute("INSERT INTO s.nothing DEFAULT VALUES")
    two.source.execute("INSERT INTO s.nothing SELECT FROM generate_series(1, 5)")
    two.source.execute("INSERT INTO s.dropped SELECT FROM generate_series(1, 3)")
    two.source.execute("INSERT INTO s.beside VALUES (1)")
    two.apply(two.batches())
    assert two.replica.execute(count).fetchone() == (6, 3, 1)
    two.source.execute("DELETE FROM s.nothing WHERE ctid IN ('(0,1)', '(0,3)')")
    two.source.execute("INSERT INTO s.nothing DEFAULT VALUES")
    two.source.execute("DELETE FROM s.nothing WHERE ctid = '(0,2)'")
    two.source.execute("TRUNCATE s.dropped")
    two.source.execute("INSERT INTO s.dropped DEFAULT VALUES")
    batches = two.batches()
    two.apply(batches)
    assert two.source.execute(count).fetchone() == two.replica.execute(count).fetchone() == (4, 1, 1)
    two.source.execute("DELETE FROM s.nothing")
    two.apply_exactly(two.batches())
    assert two.replica.execute(count).fetchone() == (0, 1, 1)
    two.source.execute("INSERT INTO s.nothing DEFAULT VALUES")
    two.source.execute("DELETE FROM s.nothing")
    batches = two.batches()
    two.replica.execute("SET session_replication_role = replica")
    two.replica.execute("TRUNCATE s.nothing")
    two.apply(batches)
    assert two.replica.execute(count).fetchone() == (0, 1, 1)
    two.source.execute("INSERT INTO s.nothing DEFAULT VALUES")
    two.batches()  # this one is lost on the way
    two.source.execute("DELETE FROM s.nothing")
    with pytest.raises(IntegrityError, match=r"DELETE of s\.nothing .* no row"):
        two.apply(two.batches())


def test_a_table_of_1600_columns(pair: MakePair) -> None:
    two = pair("CREATE SCHEMA s;")
    columns = ", ".join(f'"c {i}" smallint' for i in range(1, 1600))
    for connection in (two.source, two.replica):
        connection.execute(
            f"CREATE TABLE s.wide (id integer PRIMARY KEY, {columns});"
            f"CREATE TABLE s.wide_whole (id integer, {columns});"
            "ALTER TABLE s.wide_whole REPLICA IDENTITY FULL".encode()
        )
    values = ", ".join(f"(i + {i} % 7)::smallint" for i in range(1, 1600))
    for table in ("s.wide", "s.wide_whole"):
        two.source.execute(f"INSERT INTO {table} SELECT i, {values} FROM generate_series(1, 6) i".encode())
        two.source.execute(f'INSERT INTO {table} (id, "c 1500") VALUES (7, 5)'.encode())
    two.carry()
    for table in ("s.wide", "s.wide_whole"):
        two.source.execute(f'UPDATE {table} SET "c 1599" = 77, "c 3" = NULL WHERE id < 3'.encode())
        two.source.execute(f"UPDATE {table} SET id = 100 WHERE id = 4".encode())
        two.source.execute(f"DELETE FROM {table} WHERE id IN (3, 7)".encode())
    two.apply(two.batches())  # 3,200 values a row are too many for the fast path
    two.compare()


@exactly
def test_identities_keys_and_policies_of_every_kind(pair: MakePair, *, exactly: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.write_only (id integer PRIMARY KEY, v text);
    ALTER TABLE s.write_only REPLICA IDENTITY NOTHING;
    CREATE TABLE s.deferrable_key (id integer PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
    ALTER TABLE s.deferrable_key REPLICA IDENTITY FULL;
    CREATE TABLE s.by_index (a integer NOT NULL, b text NOT NULL, big text);
    CREATE UNIQUE INDEX by_b ON s.by_index (b, a);
    ALTER TABLE s.by_index REPLICA IDENTITY USING INDEX by_b;
    ALTER TABLE s.by_index ALTER big SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
    CREATE TABLE s.secret (id integer PRIMARY KEY, v text);
    ALTER TABLE s.secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY nobody ON s.secret USING (false) WITH CHECK (false);
    CREATE TABLE s.tree (id integer PRIMARY KEY, parent integer REFERENCES s.tree ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE s.leaf (tree integer REFERENCES s.tree ON DELETE SET NULL ON UPDATE CASCADE, n integer PRIMARY KEY);
    CREATE TABLE s.level (id integer, region text, n integer, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE s.level_n PARTITION OF s.level FOR VALUES IN ('n') PARTITION BY HASH (id);
    CREATE TABLE s.level_n0 PARTITION OF s.level_n FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE s.level_n1 PARTITION OF s.level_n FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE s.level_rest PARTITION OF s.level DEFAULT;
    CREATE TABLE s."sixty-three bytes: õäöü õäöü õäöü õäöü õäöü õäöü" (
        "Ünïcödé ""and"" a quote; sixty-three bytes ... ... ... . .. .." integer PRIMARY KEY, "'" text);
    """)
    name = 's."sixty-three bytes: õäöü õäöü õäöü õäöü õäöü õäöü"'
    two.source.execute("INSERT INTO s.write_only SELECT i, 'v' FROM generate_series(1, 5) i")
    two.source.execute("INSERT INTO s.deferrable_key SELECT i, 'v' || i FROM generate_series(1, 5) i")
    two.source.execute(
        "INSERT INTO s.by_index SELECT i, repeat('k', 2500) || i, repeat('x', 9000) FROM generate_series(1, 5) i"
    )
    two.source.execute("INSERT INTO s.secret SELECT i, 'v' FROM generate_series(1, 5) i")
    two.source.execute("INSERT INTO s.tree VALUES (1, NULL), (2, 1), (3, 2), (4, NULL)")
    two.source.execute("INSERT INTO s.leaf VALUES (3, 1), (4, 2), (NULL, 3)")
    two.source.execute(
        "INSERT INTO s.level SELECT i, CASE WHEN i < 7 THEN 'n' ELSE 'x' END, i FROM generate_series(1, 9) i"
    )
    two.source.execute(f"INSERT INTO {name} VALUES (1, ''), (2, NULL)".encode())
    two.carry(exactly=exactly)
    two.source.execute("TRUNCATE s.write_only")
    two.source.execute("INSERT INTO s.write_only VALUES (9, NULL)")
    two.source.execute("UPDATE s.deferrable_key SET id = 6 - id")
    two.source.execute("UPDATE s.by_index SET a = a + 10 WHERE a < 3")  # the large values do not move
    two.source.execute("UPDATE s.by_index SET b = 'small', big = 'small' WHERE a = 4")
    two.source.execute("UPDATE s.secret SET v = 'w' WHERE id > 3")
    two.source.execute("DELETE FROM s.secret WHERE id = 1")
    two.source.execute("UPDATE s.tree SET id = 10 WHERE id = 1")
    two.source.execute("UPDATE s.tree SET id = 40 WHERE id = 4")
    two.source.execute("DELETE FROM s.tree WHERE id = 2")
    two.source.execute("UPDATE s.level SET region = 'x' WHERE id IN (1, 2)")
    two.source.execute("UPDATE s.level SET id = id + 1 WHERE id = 6")
    two.source.execute("DELETE FROM s.level WHERE id = 9")
    two.source.execute("TRUNCATE s.level_n0")
    two.source.execute(f"""UPDATE {name} SET "'" = 'x' WHERE "'" IS NULL""".encode())
    batches = two.batches()
    (two.apply_exactly if exactly else two.apply)(batches)
    two.compare()


TRANSACTIONS: LiteralString = """
CREATE SCHEMA s;
CREATE TABLE s.t (id integer PRIMARY KEY, v text);
CREATE MATERIALIZED VIEW s.counted AS SELECT count(*) FROM s.t;
"""


def test_only_what_committed_arrives_and_in_the_order_of_the_commits(pair: MakePair) -> None:
    two = pair(TRANSACTIONS)
    two.source.execute("INSERT INTO s.t VALUES (1, 'a')")
    with two.source.transaction():
        two.source.execute("SELECT FROM s.t FOR UPDATE")
    with two.source.transaction():
        two.source.execute("SELECT pg_current_xact_id()")  # a transaction of its own that does nothing
    two.source.execute("SELECT pg_logical_emit_message(true, 'another', 'in a transaction')")
    two.source.execute("SELECT pg_logical_emit_message(false, 'another', 'outside')")
    with two.source.transaction():
        two.source.execute("INSERT INTO s.t VALUES (2, 'kept')")
        with two.source.transaction(force_rollback=True):
            two.source.execute("INSERT INTO s.t VALUES (3, 'rolled back')")
            with two.source.transaction():
                two.source.execute("UPDATE s.t SET v = 'rolled back too'")
        with two.source.transaction():
            two.source.execute("SELECT pg_logical_emit_message(true, 'another', 'between')")
            two.source.execute("UPDATE s.t SET v = v || '!' WHERE id = 2")
    two.source.execute("BEGIN; INSERT INTO s.t VALUES (10, 'prepared'); PREPARE TRANSACTION 'embassy_test_kept'")
    two.source.execute("BEGIN; INSERT INTO s.t VALUES (11, 'no'); PREPARE TRANSACTION 'embassy_test_gone'")
    two.source.execute("INSERT INTO s.t VALUES (12, 'meanwhile')")
    two.source.execute("REFRESH MATERIALIZED VIEW s.counted")
    two.apply(two.batches())
    assert two.replica.execute("SELECT id FROM s.t ORDER BY 1").fetchall() == [(1,), (2,), (12,)]
    two.source.execute("COMMIT PREPARED 'embassy_test_kept'")
    two.source.execute("ROLLBACK PREPARED 'embassy_test_gone'")
    two.carry()
    assert two.replica.execute("SELECT id, v FROM s.t ORDER BY 1").fetchall() == [
        (1, "a"),
        (2, "kept!"),
        (10, "prepared"),
        (12, "meanwhile"),
    ]
