"""A replica that is wrong while its table is copied anew: its rows make way for the stream's, none of home's is lost."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from typing import LiteralString

import psycopg
import pytest

from consumers.chunk_writer import rows_to_clear
from embassy.model.batch import Batch, Chunk
from embassy.model.errors import IntegrityError
from embassy.model.relation import Relation
from embassy.pg import copy_source, replica_schema, table_copies
from embassy.pg.apply_session import Call, Query
from embassy.pg.copy_source import Range
from tests.harness.two_databases import Connection, MakePair, TwoDatabases

_TABLES: LiteralString = """
CREATE SCHEMA s;
CREATE COLLATION s.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE s.t (
    id int PRIMARY KEY, code text COLLATE s.caseless UNIQUE, email text, note text, big text, day int4range,
    upper_note text GENERATED ALWAYS AS (upper(note)) STORED, EXCLUDE USING gist (day WITH &&)
);
ALTER TABLE s.t ALTER big SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX ON s.t (lower(email)) WHERE note IS NOT NULL;
CREATE UNIQUE INDEX ON s.t (upper_note, md5(big)) NULLS NOT DISTINCT;
CREATE TABLE s.bag (a int, b text UNIQUE);
ALTER TABLE s.bag REPLICA IDENTITY FULL;
"""
_IDS = 12


def churn(connection: Connection, chance: random.Random, times: int) -> int:
    """Change rows at random; returns how many statements the constraints allowed."""
    done = 0
    for _ in range(times):
        one, other, n = chance.randrange(_IDS), chance.randrange(_IDS), chance.randrange(_IDS)
        text = chance.choice("aAbBcC") + str(chance.randrange(3))
        statement, *values = chance.choice(
            [
                ("INSERT INTO s.t VALUES (%s, %s, %s, %s, repeat(%s, 3000), int4range(%s, %s))", one, text, text,
                 chance.choice([text, None]), text, n, n + 1),
                ("UPDATE s.t SET code = %s WHERE id = %s", text, one),
                ("UPDATE s.t SET email = %s, note = %s WHERE id = %s", text, chance.choice([text, None]), one),
                ("UPDATE s.t SET big = repeat(%s, 3000) WHERE id = %s", text, one),
                ("UPDATE s.t SET day = int4range(%s, %s) WHERE id = %s", n, n + 2, one),
                ("UPDATE s.t SET id = %s, big = big || 'x' WHERE id = %s", other, one),
                ("DELETE FROM s.t WHERE id = %s", one),
                ("INSERT INTO s.bag VALUES (%s, %s)", n, text),
                ("UPDATE s.bag SET b = %s WHERE a = %s", text, n),
                ("DELETE FROM s.bag WHERE a = %s", n),
            ]
        )  # fmt: skip
        with contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.ExclusionViolation):
            connection.execute(str(statement).encode(), values)
            done += 1
    return done


def copy(two: TwoDatabases, name: str, within: Range, **bounds: object) -> None:
    """Write a chunk as the source has it now."""
    with copy_source.reading(two.source, "s", name) as found:
        assert found is not None
        text = b"".join(copy_source.copy_rows(two.source, found[0], within, None))
        relation: Relation = found[0].relation
        key = found[0].key
    whole = Chunk(0, True, key, (), False, (), (), text.count(b"\n"), tuple(range(len(relation.columns))), text)  # noqa: FBT003 - a tuple
    two.apply([Batch((relation,), (), b"", (), 0, complete=True, chunk=whole._replace(**bounds))])  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_wrong_rows_make_way_and_nothing_of_homes_is_lost(pair: MakePair, seed: int) -> None:
    two, chance = pair(_TABLES), random.Random(seed)
    churn(two.source, chance, 40)
    two.apply(two.batches())
    two.compare()
    replica_schema.ensure(two.replica)
    for name in ("t", "bag"):
        table_copies.await_copy(two.replica, "s", name)
    two.replica.execute("SET session_replication_role = replica")
    assert churn(two.replica, chance, 40)

    def go_on() -> None:
        for _ in range(3):
            with two.source.transaction():
                for _ in range(4):
                    with contextlib.suppress(psycopg.Error), two.source.transaction():
                        churn(two.source, chance, 2)
        two.apply(two.batches(together=chance.random() < 0.5))

    for _ in range(4):
        go_on()
    assert two.replays
    middle = chance.randrange(_IDS)
    copy(two, "t", Range(upper=(str(middle),)), upper=(b"%d" % middle,))
    go_on()
    copy(two, "t", Range(lower=(str(middle),)), lower=(b"%d" % middle,))
    copy(two, "bag", Range())
    two.compare()
    two.replica.execute(
        """INSERT INTO embassy.table_copy SELECT 1 + row_number() OVER (), 's', name, NULL, NULL, 'done', '', now(), '',
           NULL, NULL, 0, 0, 0 FROM unnest(ARRAY['t', 'bag']) name"""
    )
    go_on()
    two.compare()
    two.replica.execute("DELETE FROM s.bag")
    two.source.execute("DELETE FROM s.bag")
    two.source.execute("INSERT INTO s.bag VALUES (1, 'last')")
    two.source.execute("UPDATE s.bag SET a = 2")
    with pytest.raises(IntegrityError):  # nothing is awaited any more
        two.apply(two.batches())


def test_where_only_a_range_is_copied_a_wrong_row_elsewhere_halts(pair: MakePair) -> None:
    two = pair(_TABLES)
    two.source.execute("INSERT INTO s.t (id, code, note) SELECT i, i, i FROM generate_series(1, 9) i")
    two.apply(two.batches())
    replica_schema.ensure(two.replica)
    two.replica.execute(
        """INSERT INTO embassy.table_copy VALUES
           (1, 's', 't', '{1}', '{3}', 'requested', '', now(), '', NULL, NULL, 0, 0, 0)"""
    )
    two.replica.execute("SET session_replication_role = replica")
    two.replica.execute("UPDATE s.t SET code = 'x' WHERE id = 9")
    two.source.execute("UPDATE s.t SET code = 'x' WHERE id = 2")
    batches = two.batches()
    with pytest.raises(IntegrityError, match="t_code_key"):
        two.apply(batches)
    for by_range in (False, True):  # a repair's rows, and a range's
        with pytest.raises(IntegrityError, match="t_code_key") as halted:
            copy(two, "t", Range(upper=("3",)), by_range=by_range, upper=(b"3",))
        assert "embassy resync s.t" in str(halted.value.hint)
    two.replica.execute("UPDATE s.t SET code = '-' WHERE id = 5")
    two.replica.execute("UPDATE s.t SET code = 5 WHERE id = 4")
    two.replica.execute("UPDATE s.t SET code = 4 WHERE id = 5")
    copy(two, "t", Range(keys=(("4",), ("5",))), by_range=False)  # each is in the way of the other, and both come
    found = two.replica.execute("SELECT id, code FROM s.t ORDER BY id").fetchall()
    assert found == [*((i, str(i)) for i in range(1, 9)), (9, "x")]
    two.replica.execute("UPDATE embassy.table_copy SET from_key = NULL, to_key = NULL")
    copy(two, "t", Range(keys=(("2",),)), by_range=False)
    two.apply(batches)
    assert two.replica.execute("SELECT id, code FROM s.t WHERE code = 'x'").fetchall() == [(2, "x")]


def test_what_a_chunk_takes_out_is_counted_before_it_does_within_the_transaction_that_is_open(
    pair: MakePair,
) -> None:
    two = pair(_TABLES)
    two.source.execute("INSERT INTO s.t (id, code, note) SELECT i, i, i FROM generate_series(1, 9) i")
    before = two.batches()
    relation = before[0].relations[0]
    whole = Chunk(0, True, (0,), (), False, (), (), 0, (), b"")  # noqa: FBT003 - a tuple
    some = whole._replace(lower=(b"2",), upper=(b"8",), spared=(b"\0\0\0\x014\0\0\0\x0255",))

    def counted() -> list[int]:
        chunks = [Batch((relation,), (), b"", (), 0, complete=True, chunk=chunk) for chunk in (whole, some)]
        return [rows_to_clear(two.session, chunk) for chunk in chunks]

    assert counted() == [0, 0]
    two.applier.begin()
    two.applier.apply(before[0])
    assert counted() == [9, 5]
    two.session.run([Call(Query("COMMIT"))])
    two.compare()


def test_changes_of_a_table_that_is_copied_travel_together(
    pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = pair(_TABLES)
    replica_schema.ensure(two.replica)
    table_copies.await_copy(two.replica, "s", "t")
    two.replica.execute("SET session_replication_role = replica")
    two.replica.execute("INSERT INTO s.t (id, code) VALUES (-1, '77')")
    two.source.execute("INSERT INTO s.t (id, code, note) SELECT i, i, i FROM generate_series(1, 300) i")
    two.source.execute("UPDATE s.t SET note = 'changed ' || id WHERE id % 2 = 0")
    two.source.execute("DELETE FROM s.t WHERE id = 5")
    batches, run, exchanges = two.batches(), two.session.run, []

    def counted(calls: Sequence[Call] = ()) -> list[int]:
        exchanges.append(len(calls))
        return run(calls)

    monkeypatch.setattr(two.session, "run", counted)
    two.apply(batches)
    assert two.replays
    assert len(exchanges) < 30
    two.replica.execute("DELETE FROM embassy.awaited_copy")
    two.compare()


def test_a_copy_that_is_asked_for_between_two_transactions_is_noticed(pair: MakePair) -> None:
    """Where no table lacked rows lately, that is supposed, and looked at as the batch is applied."""
    two = pair(_TABLES)
    replica_schema.ensure(two.replica)
    for number in (1, 2, 3):
        two.source.execute("INSERT INTO s.t (id, note) VALUES (%s, %s)", (number, f"there {number}"))
        two.apply(two.batches())
    table_copies.await_copy(two.replica, "s", "t")
    two.replica.execute("SET session_replication_role = replica")
    two.replica.execute("DELETE FROM s.t WHERE id = 3")
    two.source.execute("UPDATE s.t SET note = 'changed ' || id WHERE id > 1")
    two.apply(two.batches())
    assert not two.replays
    found = two.replica.execute("SELECT id, note FROM s.t ORDER BY id").fetchall()
    assert found == [(1, "there 1"), (2, "changed 2")]
    two.replica.execute("DELETE FROM embassy.awaited_copy")
    two.source.execute("UPDATE s.t SET note = 'again ' || id")
    with pytest.raises(IntegrityError, match="no row has its key"):
        two.apply(two.batches())


def _is_as_it_was(two: TwoDatabases) -> None:
    """What was added NOT VALID is there, is asked about new rows, and has its comment, as at the source."""
    query = """
        SELECT conname, contype, convalidated, coninhcount, conislocal, obj_description(oid, 'pg_constraint')
        FROM pg_constraint WHERE connamespace = 's'::regnamespace ORDER BY 1, 4, 5, 6"""
    assert two.replica.execute(query).fetchall() == two.source.execute(query).fetchall()
    query = "SELECT relname, relchecks FROM pg_class WHERE relnamespace = 's'::regnamespace ORDER BY 1"
    assert two.replica.execute(query).fetchall() == two.source.execute(query).fetchall()
    query = """
        SELECT attrelid::regclass::text, attname, attnotnull FROM pg_attribute
        WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 's'::regnamespace) ORDER BY 1, 2"""
    assert two.replica.execute(query).fetchall() == two.source.execute(query).fetchall()


def test_rows_that_what_is_inherited_or_of_a_domain_does_not_speak_of_are_copied(pair: MakePair) -> None:
    two = pair(
        """CREATE SCHEMA s; CREATE DOMAIN s.code AS text CHECK (length(VALUE) < 9); CREATE DOMAIN s.short AS s.code;
        CREATE TYPE s.pair AS (one s.code, other s.short[]);
        CREATE TABLE s.whole (id int PRIMARY KEY, b int, t s.code, u s.short, p s.pair, r text) PARTITION BY RANGE (id);
        CREATE TABLE s.part PARTITION OF s.whole DEFAULT;
        CREATE TABLE s.parent (id int, b int); CREATE TABLE s.child (PRIMARY KEY (id)) INHERITS (s.parent)"""
    )
    replica_schema.ensure(two.replica)
    two.source.execute(
        "INSERT INTO s.part SELECT n, n, 'old', 'old', '(old,\"{old,new}\")' FROM generate_series(1, 9) n"
    )
    two.source.execute("INSERT INTO s.child SELECT n, n FROM generate_series(1, 9) n")
    two.both(
        """ALTER DOMAIN s.code ADD CONSTRAINT fresh CHECK (VALUE <> 'old') NOT VALID;
        COMMENT ON CONSTRAINT fresh ON DOMAIN s.code IS 'since the reform';
        ALTER TABLE s.whole ADD CONSTRAINT few CHECK (b < 5) NOT VALID, ADD CONSTRAINT positive CHECK (b > 0);
        COMMENT ON CONSTRAINT few ON s.part IS 'since the reform';
        ALTER TABLE s.parent ADD CONSTRAINT few CHECK (b < 5) NOT VALID"""
    )
    if two.replica.info.server_version >= 180000:
        two.both("ALTER TABLE s.whole ADD CONSTRAINT told NOT NULL r NOT VALID")
    for _ in range(2):
        for name in ("part", "child"):
            copy(two, name, Range())
        two.compare()
        two.replica.execute("SET session_replication_role = replica")
        two.replica.execute("DELETE FROM s.part WHERE id < 9; DELETE FROM s.child WHERE id < 9")
    two.replica.execute("SET session_replication_role = origin")
    _is_as_it_was(two)
    for row in ("(10, 9, 'new', 'new', NULL, '')", "(10, 1, 'new', 'old', NULL, '')"):
        with pytest.raises(psycopg.errors.CheckViolation):
            two.replica.execute(f"INSERT INTO s.whole VALUES {row}".encode())
    two.source.execute(
        "ALTER TABLE s.whole DROP CONSTRAINT positive; UPDATE s.whole SET b = -1, t = 'new', u = 'new',"
        " p = NULL, r = '' WHERE id = 2"
    )
    with pytest.raises(IntegrityError, match="positive"):
        copy(two, "part", Range())


def test_rows_that_a_constraint_does_not_speak_of_are_copied(pair: MakePair) -> None:
    two = pair("CREATE SCHEMA s; CREATE TABLE s.old (id int PRIMARY KEY, b int, t text UNIQUE)")
    replica_schema.ensure(two.replica)
    two.source.execute("INSERT INTO s.old SELECT n, n * 10, n FROM generate_series(1, 9) n")
    two.both(
        "ALTER TABLE s.old ADD CONSTRAINT few CHECK (b < 50) NOT VALID, ADD CONSTRAINT positive CHECK (b > 0)"
    )
    for _ in range(2):
        copy(two, "old", Range())
        two.compare()
        two.replica.execute("SET session_replication_role = replica; DELETE FROM s.old WHERE id < 9")
        two.replica.execute("UPDATE s.old SET id = 99, t = '5', b = 3")  # in the way of another row
    query = "SELECT conname, convalidated FROM pg_constraint WHERE contype = 'c' AND conrelid = 's.old'::regclass"
    assert set(two.replica.execute(query).fetchall()) == {("few", False), ("positive", True)}
    _is_as_it_was(two)
    two.source.execute("ALTER TABLE s.old DROP CONSTRAINT positive; UPDATE s.old SET b = -1 WHERE id = 2")
    with pytest.raises(IntegrityError, match="positive"):
        copy(two, "old", Range())
