"""DDL mixed with rows, at random from a seed: what a database's people and programs may do to it in years.

Each step is a statement that the database may refuse; it runs behind a savepoint, so that what is refused leaves aborted
subtransactions in the log, as it does in life.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg

_TYPES = ("int", "bigint", "text", "numeric(12, 3)", "timestamptz", "int[]", "jsonb", "uuid", "mood")
_DEFAULTS = {
    "int": ("7", "(random() * 1000)::int", "NULL"),
    "bigint": ("1234567890123", "nextval('counter')"),
    "text": ("'it''s; \"odd\"'", "md5(random()::text)", "current_user"),
    "numeric(12, 3)": ("1.500", "random()::numeric(12, 3)"),
    "timestamptz": ("now()", "clock_timestamp()", "'2020-02-02 02:02:02+02'"),
    "int[]": ("'{1,NULL,3}'", "ARRAY[(random() * 9)::int]"),
    "jsonb": ("""'{"a": [1, null]}'""", "NULL"),
    "uuid": ("gen_random_uuid()", "'00000000-0000-0000-0000-000000000001'"),
    "mood": ("'calm'", "NULL"),
}
START = """CREATE TYPE mood AS ENUM ('calm', 'grim'); CREATE SEQUENCE counter; CREATE SCHEMA other;
CREATE TABLE seed (id int PRIMARY KEY, t text); CREATE TABLE last (id int PRIMARY KEY)"""


class DdlWorkload:
    """Does things to a database."""

    def __init__(self, connection: psycopg.Connection[Any], seed: int) -> None:
        self.connection = connection
        self.done = 0
        """Statements that the database took."""
        self._random = random.Random(seed)
        self._names = 0
        self._steps: tuple[tuple[int, Callable[[], str]], ...] = (
            (4, self._create), (1, self._create_as), (6, self._add_column), (3, self._drop_column),
            (3, self._rename_column), (2, self._rename), (1, self._move), (3, self._retype), (3, self._constrain),
            (2, self._unconstrain), (3, self._index),
            (1, self._unindex), (2, self._view), (2, self._function), (2, self._comment),
            (2, self._grant), (2, self._partition), (2, self._detach), (1, self._drop), (1, self._temporary),
            (2, self._identity), (14, self._insert), (10, self._update), (6, self._delete), (1, self._truncate),
        )  # fmt: skip

    def run(self, transactions: int) -> None:
        """Some transactions of a few steps each; one in six is rolled back."""
        for _ in range(transactions):
            roll = self._random.random()
            if roll < 0.1:
                self._alone(f"ALTER TYPE mood ADD VALUE '{self._name('m')}'")
                continue
            with self.connection.transaction(force_rollback=roll > 0.85):
                for _ in range(self._random.randint(1, 7)):
                    self._alone(self._statement())

    def _alone(self, statement: str) -> None:
        try:
            with self.connection.transaction():
                self._execute(statement)
        except psycopg.Error as error:
            if (error.sqlstate or "XX").startswith(("XX", "58")) or "embassy." in str(error.diag.context or ""):
                error.add_note(f"{statement}\n{error.diag.context}")
                raise
        else:
            self.done += 1

    def _execute(self, statement: str) -> None:
        """However people run statements."""
        way = self._random.randrange(6)
        if way == 0:
            quote = f"$q{self._random.randrange(1000)}$"
            self.connection.execute(f"DO $do$ BEGIN EXECUTE {quote}{statement}{quote}; END $do$".encode())
        elif way == 1:
            self.connection.execute(f"SELECT 1; /* ; */ {statement}; -- ;\nSELECT ';'".encode())
        elif way == 2:
            self.connection.execute(statement.encode(), prepare=True)
        else:
            self.connection.execute(statement.encode())

    def _statement(self) -> str:
        weights = [weight for weight, _ in self._steps]
        return self._random.choices([step for _, step in self._steps], weights)[0]()

    # ------------------------------------------------------------------ what there is

    def _pick(self, query: str, *parameters: object) -> str:
        rows = self.connection.execute(query.encode(), parameters).fetchall()
        return str(self._random.choice(rows)[0]) if rows else "nothing"

    def _table(self, kinds: str = "rp") -> str:
        return self._pick(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE relname <> 'last' AND relnamespace IN"
            " ('public'::regnamespace, 'other'::regnamespace)"
            " AND relkind::text = ANY (%s) ORDER BY 1",
            list(kinds),
        )

    def _column(self, table: str) -> str:
        return self._pick(
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0"
            " AND NOT attisdropped AND attgenerated = '' AND attidentity = '' ORDER BY attnum",
            table,
        )

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def _new_column(self) -> str:
        kind = self._random.choice(_TYPES)
        default = f" DEFAULT {self._random.choice(_DEFAULTS[kind])}" if self._random.random() < 0.7 else ""
        name = self._random.choice((self._name("c"), f'"{self._name("Odd ")}"'))
        return f"{name} {kind}{default}"

    # ------------------------------------------------------------------ DDL

    def _create(self) -> str:
        columns = ", ".join([self._new_column() for _ in range(self._random.randint(1, 4))])
        key = self._random.choice(
            ("id int PRIMARY KEY, ", "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ", "")
        )
        schema = self._random.choice(("", "other."))
        return f"CREATE TABLE {schema}{self._name('t')} ({key}{columns})"

    def _create_as(self) -> str:
        return f"CREATE TABLE {self._name('t')} AS SELECT *, random() AS r FROM {self._table()}"

    def _add_column(self) -> str:
        return f"ALTER TABLE {self._table()} ADD COLUMN {self._new_column()}"

    def _drop_column(self) -> str:
        table, columns = self._table(), set()
        for _ in range(8):
            columns.add(self._column(table))
        if len(columns) < 2:
            return self._comment()
        return f"ALTER TABLE {table} DROP COLUMN {min(columns)} CASCADE"

    def _rename_column(self) -> str:
        table = self._table()
        return f"ALTER TABLE {table} RENAME COLUMN {self._column(table)} TO {self._name('r')}"

    def _rename(self) -> str:
        return f"ALTER TABLE {self._table()} RENAME TO {self._name('t')}"

    def _move(self) -> str:
        return f"ALTER TABLE {self._table('r')} SET SCHEMA {self._random.choice(('public', 'other'))}"

    def _retype(self) -> str:
        table = self._table()
        column = self._column(table)
        kind = self._random.choice(("text", "bigint", "numeric(12, 3)"))
        using = self._random.choice(("", f" USING length({column}::text)", " USING (random() * 100)::int"))
        return f"ALTER TABLE {table} ALTER {column} DROP DEFAULT, ALTER {column} TYPE {kind}{using}"

    def _constrain(self) -> str:
        table = self._table()
        column = self._column(table)
        return f"ALTER TABLE {table} " + self._random.choice(
            (
                f"ALTER {column} SET NOT NULL",
                f"ALTER {column} DROP NOT NULL",
                f"ADD CONSTRAINT {self._name('k')} CHECK ({column} IS NOT NULL) NOT VALID",
                f"ADD CONSTRAINT {self._name('k')} UNIQUE ({column})",
                f"ADD PRIMARY KEY ({column})",
                f"ALTER {column} SET DEFAULT NULL",
            )
        )

    def _unconstrain(self) -> str:
        table = self._table()
        constraint = self._pick(
            "SELECT quote_ident(conname) FROM pg_constraint WHERE conrelid = to_regclass(%s) ORDER BY 1", table
        )
        return f"ALTER TABLE {table} DROP CONSTRAINT {constraint} CASCADE"

    def _index(self) -> str:
        table = self._table()
        return f"CREATE INDEX ON {table} ({self._column(table)})"

    def _unindex(self) -> str:
        return f"DROP INDEX {self._table('i')}"

    def _view(self) -> str:
        kind = self._random.choice(("VIEW", "MATERIALIZED VIEW"))
        return f"CREATE {kind} {self._name('v')} AS SELECT count(*) AS n FROM {self._table()}"

    def _function(self) -> str:
        name = self._random.choice(("f1", "f2"))
        body = f"SELECT {self._random.randrange(99)};"
        return f"CREATE OR REPLACE FUNCTION {name}(x int) RETURNS int LANGUAGE sql AS $$ {body} $$"

    def _comment(self) -> str:
        return f"COMMENT ON TABLE {self._table()} IS '{self._random.randrange(99)}; it''s'"

    def _grant(self) -> str:
        what = self._random.choice(("GRANT SELECT ON {} TO PUBLIC", "REVOKE ALL ON {} FROM PUBLIC"))
        return what.format(self._table("rpv"))

    def _partition(self) -> str:
        root, n = self._table("p"), self._random.randrange(5)
        return self._random.choice(
            (
                f"CREATE TABLE {self._name('root')} (id int, t text) PARTITION BY LIST (id)",
                f"CREATE TABLE {self._name('leaf')} PARTITION OF {root} FOR VALUES IN ({n})",
                f"CREATE TABLE {self._name('leaf')} PARTITION OF {root} DEFAULT",
                f"ALTER TABLE {root} ATTACH PARTITION {self._table('r')} FOR VALUES IN ({n})",
            )
        )

    def _detach(self) -> str:
        leaf = self._pick(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE relispartition AND relkind IN ('r', 'p') ORDER BY 1"
        )
        root = self._pick(
            "SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = to_regclass(%s)", leaf
        )
        return f"ALTER TABLE {root} DETACH PARTITION {leaf}"

    def _drop(self) -> str:
        return f"DROP TABLE IF EXISTS {self._table()}, {self._name('nothing')} CASCADE"

    def _temporary(self) -> str:
        name = self._name("t")
        return (
            f"DO $t$ BEGIN CREATE TEMP TABLE {name} AS SELECT * FROM {self._table()}; DROP TABLE {name}; END $t$"
        )

    def _identity(self) -> str:
        return f"ALTER TABLE {self._table('r')} REPLICA IDENTITY {self._random.choice(('FULL', 'DEFAULT'))}"

    # ------------------------------------------------------------------ rows

    def _insert(self) -> str:
        table = self._table()
        values = self.connection.execute(
            """SELECT quote_ident(attname), CASE
                 WHEN atttypid IN (20, 21, 23, 1700) THEN '(g * 3 + random() * 1000)::int'
                 WHEN atttypid = 25 THEN 'repeat(md5(g::text), g)'
                 WHEN atttypid = 1184 THEN 'clock_timestamp()' WHEN atttypid = 2950 THEN 'gen_random_uuid()'
                 WHEN atttypid = 1007 THEN 'ARRAY[g]' WHEN atttypid = 3802 THEN 'to_jsonb(g)'
                 WHEN atttypid = 701 THEN 'random()'
                 ELSE 'NULL' END
               FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attidentity = ''
               ORDER BY attnum""",
            (table,),
        ).fetchall()
        if not values:
            return f"INSERT INTO {table} DEFAULT VALUES"
        names, expressions = zip(*values, strict=True)
        rows = self._random.randint(1, 8)
        source = f"SELECT {', '.join(expressions)} FROM generate_series(1, {rows}) g"
        return f"INSERT INTO {table} ({', '.join(names)}) {source}"

    def _some(self, table: str) -> str:
        rows = f"ARRAY(SELECT ctid FROM ONLY {table} ORDER BY random() LIMIT {self._random.randint(1, 4)})"
        return f"ctid = ANY ({rows})"

    def _update(self) -> str:
        table = self._table("r")
        column = self._column(table)
        value = self._random.choice((column, "NULL", "DEFAULT"))
        return f"UPDATE ONLY {table} SET {column} = {value} WHERE {self._some(table)}"

    def _delete(self) -> str:
        table = self._table("r")
        return f"DELETE FROM ONLY {table} WHERE {self._some(table)}"

    def _truncate(self) -> str:
        return f"TRUNCATE {self._table()}"
