"""What the fast path cannot do, what cannot be done at all, and how rows are looked for."""

from __future__ import annotations

from typing import LiteralString

import pytest

from embassy.model.errors import IntegrityError, RefusedError, TransientError
from embassy.pg.apply_session import Call, Query
from tests.harness.two_databases import MakePair, TwoDatabases

_SMALL: LiteralString = """
CREATE SCHEMA s;
CREATE TABLE s.t (id integer PRIMARY KEY, email text UNIQUE, secret text, n integer CHECK (n < 1000));
CREATE TABLE s.bag (a integer, b text);
ALTER TABLE s.bag REPLICA IDENTITY FULL;
"""


def drift(two: TwoDatabases, statement: LiteralString) -> None:
    """Change the replica behind the stream's back."""
    two.replica.execute("SET session_replication_role = replica")
    two.replica.execute(statement)


def test_values_that_move_between_rows_are_replayed_in_order(pair: MakePair) -> None:
    two = pair(_SMALL)
    two.source.execute("INSERT INTO s.t SELECT i, 'm' || i, NULL, i FROM generate_series(1, 9) i")
    two.carry()
    with two.source.transaction():
        two.source.execute("INSERT INTO s.t VALUES (10, 'x', NULL, 0)")
        two.source.execute("DELETE FROM s.t WHERE id = 10")  # a later wave than the update that takes its value
        two.source.execute("UPDATE s.t SET email = 'x' WHERE id = 1")
    two.apply(two.batches())
    two.compare()
    assert two.replays == ["23505"]


def test_a_batch_that_is_replayed_does_not_disturb_those_around_it(pair: MakePair) -> None:
    two = pair(_SMALL)
    two.source.execute("INSERT INTO s.t SELECT i, 'm' || i, NULL, i FROM generate_series(1, 9) i")
    for i in range(5):
        with two.source.transaction():
            two.source.execute("INSERT INTO s.t VALUES (%s, %s, NULL, 0)", (10 + i, f"x{i}"))
            if i % 2:
                two.source.execute("DELETE FROM s.t WHERE id = %s", (10 + i,))
                two.source.execute("UPDATE s.t SET email = %s WHERE id = 1", (f"x{i}",))
        two.source.execute("INSERT INTO s.bag SELECT 1, 'b' FROM generate_series(1, 3)")
        two.source.execute("DELETE FROM s.bag WHERE ctid IN (SELECT min(ctid) FROM s.bag)")
    two.apply(two.batches(together=False))
    two.compare()
    assert two.replays == ["23505", "23505"]


def test_a_large_replay(pair: MakePair) -> None:
    two = pair(_SMALL)
    with two.source.transaction():
        two.source.execute(
            "INSERT INTO s.t SELECT i, 'm' || i, repeat('s', 2000), 0 FROM generate_series(1, 5000) i"
        )
        two.source.execute("INSERT INTO s.bag SELECT i % 100, 'b' FROM generate_series(1, 300) i")
        two.source.execute("UPDATE s.t SET n = n + 1")
        two.source.execute("DELETE FROM s.t WHERE id = 1")
        two.source.execute("UPDATE s.bag SET b = 'c' WHERE a < 50")
        two.source.execute("TRUNCATE s.bag")
        two.source.execute("INSERT INTO s.bag SELECT i % 100, 'b' FROM generate_series(1, 300) i")
        two.source.execute("UPDATE s.t SET email = 'm1' WHERE id = 2")
        two.source.execute("UPDATE s.t SET email = 'm2' WHERE id = 3")
        two.source.execute("DELETE FROM s.bag WHERE a = 7")
    two.apply_exactly(two.batches())
    two.compare()


@pytest.mark.parametrize(
    ("behind", "change", "said"),
    [
        ("DELETE FROM s.t WHERE id = 5", "UPDATE s.t SET n = 1 WHERE id >= 5", "UPDATE of s.t (key: id)"),
        ("DELETE FROM s.t WHERE id = 5", "DELETE FROM s.t WHERE id >= 5", "DELETE of s.t (key: id)"),
        ("INSERT INTO s.t VALUES (77)", "INSERT INTO s.t VALUES (76), (77)", "INSERT of s.t (key: id)"),
        (
            "UPDATE s.t SET email = 'm9!' WHERE id = 1",
            "UPDATE s.t SET email = email || '!' WHERE id = 9",
            "t_email_key",
        ),
        ("DELETE FROM s.bag WHERE a = 3", "DELETE FROM s.bag WHERE a = 3", "DELETE of s.bag (key: a, b)"),
        ("UPDATE s.bag SET b = 'B'", "UPDATE s.bag SET a = 4 WHERE a = 3", "UPDATE of s.bag (key: a, b)"),
        ("ALTER TABLE s.t ADD CHECK (n <> 70)", "UPDATE s.t SET n = 70 WHERE id = 5", "t_n_check1"),
    ],
)
def test_a_change_that_cannot_be_applied_halts_and_says_which(
    pair: MakePair, behind: LiteralString, change: LiteralString, said: str
) -> None:
    two = pair(_SMALL)
    two.source.execute("INSERT INTO s.t SELECT i, 'm' || i, 'classified', i FROM generate_series(1, 9) i")
    two.source.execute("INSERT INTO s.bag SELECT i, 'classified' FROM generate_series(1, 5) i")
    two.carry()
    before = two.replica.execute("SELECT count(*) FROM s.t").fetchone()
    drift(two, behind)
    two.source.execute("INSERT INTO s.t VALUES (100, 'first')")
    two.source.execute(change)
    batches = two.batches()
    with pytest.raises(IntegrityError) as halted:
        two.apply(batches)
    message = str(halted.value)
    assert said in message
    assert (
        f"transaction {batches[0].transactions[1].xid}, committed at {batches[0].transactions[1].commit_lsn}"
        in message
    )
    assert "classified" not in message
    assert halted.value.hint
    assert two.replica.execute("SELECT count(*) FROM s.t WHERE id = 100").fetchone() == (0,)
    assert before is not None


def test_the_error_names_the_change_within_its_transaction(pair: MakePair) -> None:
    two = pair(_SMALL)
    two.source.execute("INSERT INTO s.t SELECT i, NULL, NULL, i FROM generate_series(1, 9) i")
    two.carry()
    drift(two, "DELETE FROM s.t WHERE id = 3")
    two.source.execute("UPDATE s.t SET n = 0 WHERE id = 1")
    two.source.execute("UPDATE s.t SET n = 0 WHERE id IN (1, 2, 3)")
    with pytest.raises(IntegrityError, match=r"no row has its key; change 3 of transaction"):
        two.apply(two.batches())
    with two.source.transaction():
        two.source.execute("INSERT INTO s.t SELECT i FROM generate_series(11, 20) i")
        two.source.execute("UPDATE s.t SET n = 0 WHERE id = 3")
    # the table's description is a message too: three rows in part 0, four in part 1
    with pytest.raises(IntegrityError, match=r"change 4 of part 2 of transaction"):
        two.apply(two.batches(part_messages=4))


def test_two_rows_of_one_key_are_not_both_changed(pair: MakePair) -> None:
    two = pair(_SMALL)
    two.source.execute("INSERT INTO s.t SELECT i, NULL, NULL, i FROM generate_series(1, 3) i")
    two.carry()
    drift(two, "ALTER TABLE s.t DROP CONSTRAINT t_pkey; INSERT INTO s.t (id) VALUES (2);")
    two.source.execute("UPDATE s.t SET n = 9")
    with pytest.raises(IntegrityError, match="2 rows have its key"):
        two.apply(two.batches())


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        ("DROP TABLE s.t", "lacks the table"),
        ("ALTER TABLE s.t DROP COLUMN secret", "lacks column secret"),
        ("ALTER TABLE s.t RENAME secret TO secrets", "lacks column secret"),
        ("ALTER TABLE s.t ALTER n TYPE bigint", "column n is bigint"),
        ("ALTER TABLE s.t ALTER secret TYPE varchar(9)", "column secret is character varying"),
        ("ALTER TABLE s.t DROP secret, ADD secret text GENERATED ALWAYS AS ('x') STORED", "secret is generated"),
    ],
)
def test_a_replica_that_differs_halts_and_names_what(pair: MakePair, behind: LiteralString, said: str) -> None:
    two = pair(_SMALL)
    two.replica.execute(behind)
    two.source.execute("INSERT INTO s.t VALUES (1, 'a', 'b', 2)")
    with pytest.raises(IntegrityError, match=said) as halted:
        two.apply(two.batches())
    assert halted.value.place == "s.t"
    assert halted.value.hint


def test_a_replica_may_be_wider_for_a_while(pair: MakePair) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.t (id integer PRIMARY KEY, v varchar(5), c char(3), n numeric(8, 2), t timestamp(0));
    """)
    two.replica.execute(
        "ALTER TABLE s.t ALTER v TYPE varchar(9), ALTER n TYPE numeric(14, 2), ADD extra text DEFAULT 'here'"
    )
    two.source.execute("INSERT INTO s.t VALUES (1, 'abc', 'a', 1.5, '2024-01-01')")
    two.source.execute("UPDATE s.t SET n = 2")
    two.apply(two.batches(together=False))
    assert two.replays == []
    rows = two.replica.execute("SELECT id, v, c, n::text, extra FROM s.t").fetchall()
    assert rows == [(1, "abc", "a  ", "2.00", "here")]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER v TYPE varchar(4)",
        "ALTER c TYPE char(4)",
        "ALTER n TYPE numeric(14, 1)",
        "ALTER t TYPE timestamp(1)",
    ],
)
def test_a_replica_that_would_keep_other_values_halts(pair: MakePair, change: str) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.t (id integer PRIMARY KEY, v varchar(5), c char(3), n numeric(8, 2), t timestamp(3));
    """)
    two.replica.execute(f"ALTER TABLE s.t {change}".encode())
    two.source.execute("INSERT INTO s.t VALUES (1, 'abc', 'a', 1.5, '2024-01-01')")
    with pytest.raises(IntegrityError, match="another length, precision or scale"):
        two.apply(two.batches())


def test_an_altered_replica_is_looked_at_again(pair: MakePair) -> None:
    two = pair(_SMALL)
    two.source.execute("INSERT INTO s.t VALUES (1, 'a', 'b', 2)")
    two.carry()
    two.replica.execute("ALTER TABLE s.t RENAME secret TO hidden")
    two.source.execute("UPDATE s.t SET n = 3")
    with pytest.raises(IntegrityError, match="lacks column secret"):
        two.apply(two.batches())


def test_a_lost_session_is_not_the_statements_fault(pair: MakePair) -> None:
    two = pair(_SMALL)
    two.source.execute("INSERT INTO s.t VALUES (1, 'a', 'b', 2)")
    batches = two.batches()
    two.applier.begin()
    two.applier.apply(batches[0])
    two.replica.execute("SELECT pg_terminate_backend(%s, 5000)", (two.session.connection.info.backend_pid,))
    with pytest.raises(TransientError):
        two.session.run([Call(Query("COMMIT"))])
    assert two.replica.execute("SELECT count(*) FROM s.t").fetchone() == (0,)


@pytest.mark.parametrize("statement", ["INSERT", "UPDATE"])
def test_a_cancelled_statement_is_tried_again(pair: MakePair, statement: str) -> None:
    two = pair(_SMALL)
    two.source.execute("INSERT INTO s.t VALUES (1, 'a', 'b', 2)")
    if statement == "UPDATE":
        two.carry()
        two.source.execute("UPDATE s.t SET n = 5")
    batches = two.batches()
    two.session.connection.execute("SET lock_timeout = '50ms'")
    with two.replica.transaction():
        two.replica.execute("LOCK TABLE s.t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TransientError):
            two.apply(batches)
    two.apply(batches)
    two.compare()
    assert two.replays == []


def test_a_read_only_database_is_refused(pair: MakePair) -> None:
    two = pair(_SMALL)
    two.source.execute("INSERT INTO s.t VALUES (1, 'a', 'b', 2)")
    batches = two.batches()
    two.session.connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(RefusedError, match="read-only"):
        two.apply(batches)


@pytest.mark.parametrize("known", [False, True], ids=["never analysed", "analysed while empty"])
def test_rows_are_found_by_index_whatever_the_planner_believes(pair: MakePair, *, known: bool) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.keyed (id bigint PRIMARY KEY, v text);
    CREATE TABLE s.whole (a bigint, b text NOT NULL, c text);
    CREATE INDEX ON s.whole (b);
    ALTER TABLE s.whole REPLICA IDENTITY FULL;
    """)
    two.replica.execute("ALTER TABLE s.keyed SET (autovacuum_enabled = off)")
    two.replica.execute("ALTER TABLE s.whole SET (autovacuum_enabled = off)")
    if known:
        two.replica.execute("ANALYZE")
    # a plan made while the tables are empty must not be kept
    two.source.execute(b"INSERT INTO s.keyed VALUES (0, 'x'); INSERT INTO s.whole VALUES (0, 'x', 'y');")
    for table in ("keyed", "whole"):
        for _ in range(8):
            two.source.execute(f"UPDATE s.{table} SET {'v' if table == 'keyed' else 'c'} = 'y'".encode())
    two.apply(two.batches())
    two.source.execute("INSERT INTO s.keyed SELECT i, 'x' FROM generate_series(1, 40000) i")
    two.source.execute("INSERT INTO s.whole SELECT i, 'b' || i / 5, 'y' FROM generate_series(1, 40000) i")
    two.apply(two.batches())  # who compares, scans too, and may be counted late: when the session has ended
    seen = "SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 's' ORDER BY 1"
    two.session.connection.execute("SELECT pg_stat_force_next_flush()")
    two.replica.execute("SELECT pg_stat_clear_snapshot()")
    before = two.replica.execute(seen).fetchall()
    two.source.execute("UPDATE s.keyed SET v = 'z' WHERE id % 20 = 0")
    two.source.execute("DELETE FROM s.keyed WHERE id % 20 = 1")
    two.source.execute("UPDATE s.keyed SET id = id + 1000000 WHERE id % 200 = 2")
    two.source.execute("UPDATE s.whole SET c = 'z' WHERE a % 20 = 0")
    two.source.execute("DELETE FROM s.whole WHERE a % 20 = 1")
    two.apply(two.batches())
    assert two.replays == []
    two.session.connection.execute("SELECT pg_stat_force_next_flush()")
    two.replica.execute("SELECT pg_stat_clear_snapshot()")
    assert two.replica.execute(seen).fetchall() == before
    two.compare()


def test_a_table_without_any_index_is_scanned_once_a_segment(pair: MakePair) -> None:
    two = pair("""
    CREATE SCHEMA s;
    CREATE TABLE s.whole (a bigint, b text);
    ALTER TABLE s.whole REPLICA IDENTITY FULL;
    """)
    two.source.execute("INSERT INTO s.whole SELECT i, 'x' FROM generate_series(1, 50000) i")
    two.apply(two.batches())  # who compares, scans too, and may be counted late: when the session has ended
    before = scans(two)
    two.source.execute("UPDATE s.whole SET b = 'y' WHERE a % 10 = 0")
    two.apply(two.batches())
    assert scans(two) - before <= 2  # one for the images, one to reach the rows
    assert two.replays == []
    two.compare()


def scans(two: TwoDatabases) -> int:
    """How often the table has been scanned."""
    for connection in (two.session.connection, two.replica):
        connection.execute("SELECT pg_stat_force_next_flush()")
    two.replica.execute("SELECT pg_stat_clear_snapshot()")
    row = two.replica.execute("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'whole'").fetchone()
    assert row is not None
    return int(row[0])


def test_statements_are_prepared_once(pair: MakePair) -> None:
    two = pair(_SMALL)
    two.source.execute("INSERT INTO s.t SELECT i, NULL, NULL, i FROM generate_series(1, 9) i")
    two.carry()
    counts = []
    for _ in range(4):
        two.source.execute("UPDATE s.t SET n = n + 1")
        two.carry()
        counts.append(two.session.connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone())
    assert counts[1] == counts[3]
