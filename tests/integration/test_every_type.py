"""Every type of PostgreSQL, with its extreme values, alone and in arrays, as a column and as what rows are found by."""

from __future__ import annotations

from typing import Any, LiteralString

import pytest
from psycopg import sql

from deploy.lab import databases
from deploy.lab.lab import Lab
from tests.harness.every_type import KINDS, EveryType
from tests.harness.lab import MakeDatabase
from tests.harness.two_databases import MakePair, TwoDatabases, new_pair

exactly = pytest.mark.parametrize("exactly", [False, True], ids=["fast", "exact"])


@exactly
def test_every_value_of_every_type_arrives_as_it_was(pair: MakePair, *, exactly: bool) -> None:
    two = pair(KINDS)
    every = EveryType.of(two.source)
    for connection in (two.source, two.replica):
        connection.execute(every.ddl().encode())
    every.fill(two.source)
    two.carry(exactly=exactly)
    every.change(two.source)
    two.carry(exactly=exactly)


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1257", "EUC_JP"])
def test_texts_of_another_encoding_arrive_in_the_replicas(
    lab: Lab, make_database: MakeDatabase, encoding: LiteralString
) -> None:
    letters = {"LATIN1": "é÷ÿ£", "WIN1257": "šžõ€", "EUC_JP": "日本語ｶﾅ"}[encoding]
    two = _encoded(lab, make_database, encoding)

    def same() -> None:
        two.apply(two.batches())
        assert two.replays == []
        for table in (letters, "whole", "keyed"):
            query = f'SELECT t::text COLLATE "C" AS r FROM s."{table}" t'
            found = [sorted(side.execute(query.encode()).fetchall()) for side in (two.source, two.replica)]
            assert found[0]
            assert found[0] == found[1]

    try:
        two.both("""
        CREATE SCHEMA s;
        CREATE TYPE s.mood AS ENUM ('plain');
        """)
        for connection in (two.source, two.replica):
            connection.execute(f"ALTER TYPE s.mood ADD VALUE '{letters}'".encode())
            connection.execute(
                f"""CREATE TABLE s."{letters}" (id integer PRIMARY KEY, "{letters}" text, c char(4), v varchar(5), j json,
                    m s.mood, n name, a text[]);
                    CREATE TABLE s.whole (t text, j jsonb); ALTER TABLE s.whole REPLICA IDENTITY FULL;
                    CREATE TABLE s.keyed (k text PRIMARY KEY, v integer)""".encode()
            )
        two.publish()
        two.source.execute(
            f"""INSERT INTO s."{letters}" SELECT i, '{letters}' || i, '{letters[:2]}', '{letters}',
                '{{"{letters}":  "{letters}"}}', '{letters}', '{letters}', ARRAY['{letters}', NULL]
                FROM generate_series(1, 5) i""".encode()
        )
        two.source.execute(
            f"""INSERT INTO s.whole SELECT '{letters}', '{{"{letters}": 1}}' FROM generate_series(1, 3);
                INSERT INTO s.keyed SELECT '{letters}' || i, i FROM generate_series(1, 3) i""".encode()
        )
        same()
        two.source.execute(
            f"""UPDATE s."{letters}" SET "{letters}" = "{letters}" || '{letters[0]}' WHERE id < 4""".encode()
        )
        two.source.execute("DELETE FROM s.whole WHERE ctid = '(0,2)'")
        two.source.execute(f"UPDATE s.keyed SET v = 10 WHERE k = '{letters}1'".encode())
        two.source.execute(f"UPDATE s.keyed SET k = '{letters[1]}' WHERE k = '{letters}2'".encode())
        two.source.execute(f"DELETE FROM s.keyed WHERE k = '{letters}3'".encode())
        same()
    finally:
        for connection in (two.source, two.replica, two.session.connection):
            connection.close()


def _encoded(lab: Lab, make_database: MakeDatabase, encoding: LiteralString) -> TwoDatabases:
    """A source of that encoding, and a replica in UTF8."""
    names: dict[str, Any] = {site: make_database(site) for site in ("home", "embassy-1")}
    with lab.home.postgres.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(names["home"])))
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LOCALE 'C'").format(
                sql.Identifier(names["home"]), sql.Identifier(databases.OWNER), sql.Literal(encoding)
            )
        )
    return new_pair(lab, names["home"], names["embassy-1"])
