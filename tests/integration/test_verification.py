"""A replica is compared with home in the stream: what is told, what is found, on real databases."""

from __future__ import annotations

from typing import LiteralString

import pytest

from consumers.verifier import Verifier
from deploy.lab import databases
from embassy.model.row_text import row_digest
from embassy.model.verification import Chunk, Message, TableBegin, TableName
from embassy.pg import replica_schema, row_digests, source_schema, verify_source
from embassy.pg.connection import connect
from embassy.pg.digested_table import digested_table
from tests.harness.two_databases import MakePair
from tests.harness.verified import STREAM, Verified

ODD = 'S p"äce'
DDL: LiteralString = """
    CREATE SCHEMA "S p""äce";
    CREATE TABLE "S p""äce"."T a""b" ("K 'ey" text COLLATE "C", n numeric, "v\\al" text, gen text
        GENERATED ALWAYS AS (upper("v\\al")) STORED, PRIMARY KEY (n, "K 'ey"));
    CREATE TABLE public.plain (id bigint PRIMARY KEY, at timestamptz, v text);
    CREATE TABLE public.keyless (a integer, b text);
    ALTER TABLE public.keyless REPLICA IDENTITY FULL;
"""
ODD_TABLE, PLAIN, KEYLESS = TableName(ODD, 'T a"b'), TableName("public", "plain"), TableName("public", "keyless")
TABLES = [ODD_TABLE, PLAIN, KEYLESS]


@pytest.fixture
def both(pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> Verified:
    two = pair(DDL)
    source_schema.ensure(two.source, producer_role=databases.PRODUCER)
    replica_schema.ensure(two.replica)
    found = Verified(two)
    two.both("SET search_path = public")
    found.watch(monkeypatch)
    two.source.execute(
        """INSERT INTO "S p""äce"."T a""b" SELECT 'k''' || i % 7, i / 3, 'v\\' || i FROM generate_series(1, 300) i"""
    )
    two.source.execute("INSERT INTO plain SELECT i, now(), 'v' || i FROM generate_series(1, 400) i")
    two.source.execute(
        "INSERT INTO keyless SELECT i % 20, nullif('x' || i % 10, 'x3') FROM generate_series(1, 200) i"
    )
    found.carry()
    return found


def test_equal_sides_match_and_every_kind_of_difference_is_named(both: Verified) -> None:
    run = both.run(tables=TABLES)
    assert both.results() == {
        'T a"b': (300, 0, 0, 0, 0, ""),
        "plain": (400, 0, 0, 0, 0, ""),
        "keyless": (200, 0, 0, 0, 0, ""),
    }
    assert both.outcome(run) == (True, "match", 3)
    rows, succeeded_at = both.gauges[-1]
    assert rows == {"matched": 900, "mismatched": 0, "missing": 0, "extra": 0, "in_flight": 0}
    assert succeeded_at is not None
    assert both.two.replica.execute("SELECT count(*) FROM embassy.verify_message").fetchone() == (0,)

    both.spoil(
        "UPDATE plain SET v = 'W17' WHERE id = 17",
        "DELETE FROM plain WHERE id IN (1, 400)",
        "INSERT INTO plain VALUES (-5, now(), ''), (1000, now(), '')",
        """UPDATE "S p""äce"."T a""b" SET "v\\al" = "v\\al" || ' ' WHERE "K 'ey" = 'k''3' AND n = 1""",
        "DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE a = 4)",
        "INSERT INTO keyless VALUES (77, NULL)",
    )
    run = both.run(tables=TABLES)
    assert both.results() == {
        'T a"b': (300, 1, 0, 0, 0, ""),
        "plain": (400, 1, 2, 2, 0, ""),
        "keyless": (200, 0, 1, 1, 0, ""),
    }
    lost, alien = (row_digest(row)[:8].hex() for row in ((b"4", b"x4"), (b"77", None)))
    assert both.findings() == {
        ('T a"b', "mismatched", ("n", "K 'ey"), ("1", "k'3")),
        ("plain", "mismatched", ("id",), ("17",)),
        ("plain", "missing", ("id",), ("1",)),
        ("plain", "missing", ("id",), ("400",)),
        ("plain", "extra", ("id",), ("-5",)),
        ("plain", "extra", ("id",), ("1000",)),
        ("keyless", "missing", (), (lost,)),
        ("keyless", "extra", (), (alien,)),
    }
    assert both.outcome(run) == (True, "differs", 3)
    assert both.gauges[-1][1] == succeeded_at
    assert both.gauges[-1][0]["matched"] == 299 + 397 + 199


def test_rows_changed_between_snapshot_and_telling_are_told_again(both: Verified) -> None:
    begun: list[int] = []

    def load(message: Message) -> None:
        if isinstance(message, Chunk) and message.table == PLAIN and not message.listed:
            begun.append(message.number)
            n = message.number
            both.two.source.execute("UPDATE plain SET v = v || '!' WHERE id %% 50 = %s", (n,))
            both.two.source.execute("INSERT INTO plain VALUES (%s, now(), 'new')", (10_000 + n,))
            both.two.source.execute("DELETE FROM plain WHERE id = %s", (50 * n + 20,))
        if isinstance(message, Chunk) and message.table == KEYLESS:
            both.two.source.execute("INSERT INTO keyless VALUES (%s, 'late')", (message.number + 100,))

    both.between = load
    both.spoil("UPDATE plain SET v = '?' WHERE id = 30")
    both.run(tables=TABLES)
    assert len(begun) > 3
    results = both.results()
    assert results["plain"][1:] == (1, 0, 0, 0, "")
    assert both.findings() == {("plain", "mismatched", ("id",), ("30",))}
    assert results["keyless"][1:4] == (0, 0, 0)


def test_a_transaction_that_is_still_open_leaves_its_table_undecided(both: Verified) -> None:
    with connect(both.two.source_dsn, application_name="test") as writer:
        writer.execute("UPDATE public.plain SET v = 'open' WHERE id = 3")
        run = both.run(tables=TABLES, patience_seconds=0.05)
        assert "still open" in both.results()["plain"][5]
        assert both.results()["keyless"] == (200, 0, 0, 0, 0, "")
        assert both.outcome(run) == (True, "undecided", 3)
        both.spoil("""DELETE FROM "S p""äce"."T a""b" """)
        both.run(tables=[ODD_TABLE])
    for share in (1.0, 0.000_001):  # what is open, and a sample, say nothing about rows that differed
        both.run(tables=[ODD_TABLE, PLAIN], share=share, whole=False, patience_seconds=0.05)
        assert both.results()['T a"b'] == (300, 0, 300, 0, 0, "")


def test_what_cannot_be_compared_is_told_and_stops_nothing(both: Verified) -> None:
    both.spoil("ALTER TABLE keyless DROP COLUMN b CASCADE", "DROP TABLE plain")
    both.run(tables=TABLES)
    results = both.results()
    assert results["plain"][5] == "the replica lacks the table"
    assert results["keyless"][5] == "the replica lacks column b"
    both.home('SELECT embassy.verify_say(gen_random_uuid(), 1, \'{"kind": "Song"}\')')
    both.carry()
    assert both.run(tables=[ODD_TABLE], whole=False)
    assert both.results()['T a"b'] == (300, 0, 0, 0, 0, "")


def test_what_is_copied_meanwhile_is_not_called_different(both: Verified) -> None:
    def resync(message: Message) -> None:
        if isinstance(message, Chunk) and message.number == 0:
            both.home(
                "INSERT INTO embassy.table_copy (schema_name, table_name, state) VALUES ('public', 'plain', 'done')"
            )

    both.between = resync
    both.spoil("DELETE FROM plain")  # as the first chunk of a copy does where the sides may sort keys otherwise
    both.run(tables=[PLAIN, KEYLESS])
    assert both.results()["plain"] == (0, 0, 0, 0, 0, "its rows were copied meanwhile")
    assert both.results()["keyless"] == (200, 0, 0, 0, 0, "")


def test_keys_that_the_sides_order_by_different_collations_are_compared_by_digest(both: Verified) -> None:
    ddl: LiteralString = "CREATE TABLE public.sorted (word text {} PRIMARY KEY, v int)"
    both.two.source.execute(ddl.format('COLLATE "en-x-icu"').encode())
    both.two.replica.execute(ddl.format('COLLATE "et-x-icu"').encode())
    both.home("INSERT INTO public.sorted SELECT 'wört' || i % 7 || i, i FROM generate_series(1, 200) i")
    both.carry()
    tables = [TableName("public", "sorted"), PLAIN]
    both.run(tables=tables)
    assert "--by-digest" in both.results()["sorted"][5]
    both.run(tables=tables, by_digest=True)
    assert both.results()["sorted"] == (200, 0, 0, 0, 0, "")
    assert both.results()["plain"] == (400, 0, 0, 0, 0, "")
    both.spoil("UPDATE public.sorted SET v = 0 WHERE v = 5", "DELETE FROM public.plain WHERE id = 7")
    both.run(tables=tables, by_digest=True)
    assert both.results()["sorted"] == (200, 0, 1, 1, 0, "")
    assert ("plain", "missing", ("id",), ("7",)) in both.findings()


def test_a_truncated_or_sampled_table_and_a_consumer_that_began_anew(both: Verified) -> None:
    def truncate(message: Message) -> None:
        if isinstance(message, Chunk) and message.number == 1 and not message.listed:
            both.home("TRUNCATE keyless, plain")

    both.between = truncate
    both.run(tables=[PLAIN])
    assert "any row" in both.results()["plain"][5]
    both.between = lambda _: None
    both.home("INSERT INTO plain SELECT i, now(), '' FROM generate_series(1, 1000) i")
    both.run(tables=[PLAIN], share=0.5, whole=False)
    rows, *rest = both.results()["plain"]
    assert 0 < rows < 1000
    assert rest == [0, 0, 0, 0, ""]

    def forget(message: Message) -> None:
        if isinstance(message, TableBegin):
            both.carry()
        elif isinstance(message, Chunk) and message.number == 0:
            both.carry()
            both.verifier = Verifier(both.two.session, stream=STREAM, gauges=both)

    both.between = forget
    both.run(tables=[PLAIN])
    assert "started anew" in both.results()["plain"][5]


def test_a_verification_that_has_stopped_is_not_kept_in_mind(both: Verified) -> None:
    both.verifier = Verifier(both.two.session, stream=STREAM, gauges=both, silence_seconds=-1)
    both.run(tables=[PLAIN])
    assert "started anew" in both.results()["plain"][5]


def test_the_server_makes_the_same_text_of_a_row(both: Verified) -> None:
    both.home("CREATE TABLE public.wide (id integer PRIMARY KEY)")
    names = [f"c{i}" for i in range(200)]
    both.two.source.execute("ALTER TABLE wide " + ", ".join(f"ADD {name} text" for name in names))
    values = [None, "", "'", "\\", "a b", "é\u00a0\u2003", "E'x'", "%L %s", "\n\t", "NULL"]
    row = [values[i % len(values)] for i in range(200)]
    marks = ", ".join(["%s"] * 200)
    both.two.source.execute(f"INSERT INTO wide VALUES (1, {marks})".encode(), row)
    with verify_source.open_source(both.two.source_dsn) as connection:
        table = digested_table(connection, TableName("public", "wide"))
        assert table is not None
        (found,) = row_digests.page(connection, table, row_digests.Range(), 5)
    assert found.key == ("1",)
    assert found.digest == row_digest([b"1", *(None if text is None else text.encode() for text in row)])
