"""Every type of PostgreSQL with its extreme values: tables of them, and changes that touch each."""

from __future__ import annotations

import contextlib
from typing import Any, LiteralString, NamedTuple, Self

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

KINDS: LiteralString = """
CREATE SCHEMA s;
CREATE SCHEMA x;
CREATE EXTENSION citext SCHEMA x;
CREATE EXTENSION hstore SCHEMA x;
CREATE EXTENSION ltree SCHEMA x;
CREATE EXTENSION pg_trgm SCHEMA x;
CREATE EXTENSION cube SCHEMA x;
CREATE EXTENSION isn SCHEMA x;
CREATE EXTENSION intarray SCHEMA x;
CREATE EXTENSION seg SCHEMA x;
CREATE COLLATION s.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION s.estonian (provider = icu, locale = 'et-EE');
CREATE TYPE s."Mood, or so" AS ENUM ('', 'sad', 'it''s "ok"', 'happy, {very}');
CREATE DOMAIN s.cents AS numeric(12, 2) CHECK (VALUE >= 0);
CREATE DOMAIN s.codes AS s.cents CHECK (VALUE < 1000000);
CREATE DOMAIN s.words AS text[] CHECK (cardinality(VALUE) < 9);
CREATE TYPE s.address AS (street text, "House No" integer, tags text[], mood s."Mood, or so");
CREATE TYPE s.nested AS (a s.address, many s.address[], c s.codes);
CREATE DOMAIN s.valid_address AS s.address CHECK ((VALUE).street IS DISTINCT FROM 'no');
CREATE TYPE s.floats AS RANGE (subtype = double precision, multirange_type_name = s.many_floats);
"""

TYPES: dict[str, list[str]] = {
    "boolean": ["t", "f"],
    "smallint": ["-32768", "32767", "0"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "numeric": [
        "NaN", "Infinity", "-Infinity", "0", "0.000", "1.50000", "-1e-16383", "9" * 100_000, "0." + "7" * 16_383,
        "1e131071",
    ],
    "numeric(14,2)": ["-999999999999.99", "NaN", "0.10"],
    "numeric(3,-2)": ["99900", "-100"],
    "real": ["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1"],
    "double precision": ["NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308", "0.30000000000000004"],
    "money": ["-92233720368547758.08", "92233720368547758.07", "0"],
    "text": [
        "", "NULL", "null", "\\N", "\\.", "\\", " both ends ", "tab\t nl\n cr\r bs\b ff\f vt\v esc\x1b del\x7f one\x01",
        '"quoted" \'single\' {braces} (parens), comma', "é e\u0301 ß İ \u0131 🗺 \U0010ffff \u202eright", "x" * 300_000,
    ],
    'text COLLATE "s"."estonian"': ["õ", "Z", "š", ""],
    'text COLLATE "s"."caseless"': ["Straße", "", "ä"],
    "varchar(5)": ["", "éééé ", "     ", "🗺🗺🗺🗺🗺"],
    "char(6)": ["", "ab", "🗺", "abcdef", " b"],
    "char": ["", " ", "x"],
    '"char"': ["", "a", "\\377", " ", "\\"],
    "name": ["", "n" * 63, "é" * 31, 'a "b"'],
    "bytea": ["", "\\x" + bytes(range(256)).hex(), "\\x5c5c", "\\x00"],
    "date": ["4714-11-24 BC", "5874897-12-31", "infinity", "-infinity", "0001-01-01 BC", "2024-02-29"],
    "timestamp": ["4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "-infinity", "1999-12-31 23:59:60"],
    "timestamp(0)": ["2024-02-29 12:00:00.5"],
    "timestamptz": ["4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "1900-01-01 00:00+01:39:49"],
    "time": ["00:00", "24:00:00", "23:59:59.999999"],
    "timetz": ["00:00:00+15:59:59", "24:00:00-15:59:59", "12:00:00.000001+00"],
    "interval": [
        "-178000000 years", "178000000 years", "1 mon -1 day 00:00:00.000001", "-1 mon 1 day -00:00:00.000001",
        "-2562047788:00:54.775807", "0",
    ],
    "interval year to month": ["3 years -2 mons"],
    "interval second(2)": ["1.239 s"],
    "bit(5)": ["10101", "00000"],
    "bit varying": ["", "1", "01" * 500],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "inet": ["0.0.0.0/0", "::/0", "ffff:ffff::ffff/128", "::ffff:1.2.3.4", "10.0.0.1/24"],
    "cidr": ["0.0.0.0/0", "10.0.0.0/8", "::/0"],
    "macaddr": ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "point": ["(NaN,Infinity)", "(-0,5e-324)", "(1.5,-2)"],
    "line": ["{1,-1,0}", "{0,-1,Infinity}"],
    "lseg": ["[(0,0),(1,1e300)]", "[(0,0),(0,0)]"],
    "box": ["(1,4),(0,0)", "(2,2),(0,0)", "(Infinity,1),(-Infinity,0)"],
    "path": ["[(0,0),(1,1)]", "((0,0),(1,1))"],
    "polygon": ["((0,0),(1,1),(2,-0))", "((NaN,0))"],
    "circle": ["<(0,0),0>", "<(1e300,-0),Infinity>"],
    "json": ['{"b":1,  "a": [1,2], "b":\n2}', '"\\u0000 \\ud83d\\ude00"', "1e400", " null ", '"\\/"', "[-0.0, 1.10]"],
    "jsonb": ['{"b":1,"a":null}', "null", '"é\\n"', "[]", "1.10", "-0.0", '{"": {"": []}}', "1" + "0" * 2000],
    "jsonpath": ["$", 'strict $."a"[*] ? (@ > 1 && @ like_regex "^x")'],
    "xml": ["<a>&amp;<![CDATA[x]]></a>", "", "just text", "<!--c--><b c='d'/>"],
    "tsvector": ["", "'a b':1A,2B 'c''d':16383C 'e'", "'\\\\':1"],
    "tsquery": ["", "'a' & !'b':*AB <-> 'c d'", "'x' <5> ('y' | 'z')"],
    "int4range": ["empty", "(,)", "[-2147483648,5)", "[3,3]"],
    "int8range": ["[1,9223372036854775807)"],
    "numrange": ["[1.0,1.00]", "(NaN,)", "[-Infinity,Infinity)"],
    "daterange": ["[infinity,)", "(,2024-01-01)", "empty"],
    "tsrange": ['["2024-01-01 00:00:00","infinity")', "(,)"],
    "tstzrange": ['["4714-11-24 00:00:00+00 BC",)'],
    "int4multirange": ["{}", "{[1,2),[5,)}", "{(,)}"],
    "nummultirange": ["{[1.0,1.00],(5,6.10]}"],
    "datemultirange": ["{(,2000-01-01),[2001-01-01,infinity]}"],
    "s.floats": ["[-0,NaN)", "empty", "(,5e-324]"],
    "s.many_floats": ["{[1,2],[3,Infinity]}"],
    "oid": ["0", "4294967295"],
    "regclass": ["pg_catalog.pg_class", "-", "16999999"],
    "regtype": ["pg_catalog.int4", "bigint", "timestamp with time zone"],
    "regproc": ["pg_catalog.now", "-"],
    "regprocedure": ["pg_catalog.abs(numeric)"],
    "regoper": ["pg_catalog.||/"],
    "regoperator": ["pg_catalog.+(integer,integer)", "0"],
    "regrole": ["pg_monitor"],
    "regnamespace": ["pg_catalog"],
    "regconfig": ["pg_catalog.english"],
    "regdictionary": ["pg_catalog.simple"],
    "regcollation": ['pg_catalog."C"'],
    "xid": ["0", "4294967295"],
    "xid8": ["18446744073709551615"],
    "cid": ["4294967295"],
    "tid": ["(4294967295,65535)", "(0,1)"],
    "pg_lsn": ["0/0", "FFFFFFFF/FFFFFFFF"],
    "pg_snapshot": ["10:20:10,14,15"],
    "txid_snapshot": ["10:20:"],
    "oidvector": ["", "1 2 4294967295"],
    "int2vector": ["1 -2", ""],
    "refcursor": ["a cursor"],
    "aclitem": ["=r/registry_owner", "registry_owner=arwd*/registry_owner"],
    's."Mood, or so"': ["", "sad", 'it\'s "ok"', "happy, {very}"],
    "s.cents": ["0", "9999999999.99"],
    "s.codes": ["5.10"],
    "s.words": ["{}", '{a,NULL,""}'],
    "s.address": ["(,,,)", '("a ""b"", c\\\\",5,"{""x,y"",NULL,""""}","happy, {very}")', '("",-1,{},"")'],
    "s.nested": ['("(a,1,{b},sad)","{""(,,,)"",NULL}",5.10)', "(,,)"],
    "s.valid_address": ["(yes,,,)"],
    "integer[]": ["{}", "[-5:-4][7:8]={{1,2},{3,NULL}}", "{{{1}}}", "[2:2]={NULL}"],
    "text[]": ['{"",NULL,"NULL","{}","a\\"b\\\\c",é}', "[0:0]={x}"],
    "varchar(3)[]": ['{abc,NULL,"   "}'],
    "timestamptz[]": ["{infinity,NULL}"],
    "jsonb[]": ['{"{\\"a\\": [1]}",NULL}'],
    "bytea[]": ['{"\\\\x00ff",NULL}'],
    "daterange[]": ['{"[2024-01-01,)",empty}'],
    "x.citext": ["Aa", ""],
    "x.hstore": ["", '"a"=>NULL, "b c"=>"\\"x\\" => y"'],
    "x.ltree": ["Top.Science.Ea", ""],
    "x.lquery": ["*.Science@.*{1,2}.a|b"],
    "x.ltxtquery": ["Europe & Russia*@ & !Transportation"],
    "x.cube": ["(1, 2),(3, -0)", "()"],
    "x.isbn13": ["978-0-393-04002-9"],
    "x.query_int": ["1&(2|!3)"],
    "x.seg": ["1.0", "<5 .. ~6.50"],
}  # fmt: skip


_SHORT_CHARACTERS, _ARRAY_CHARACTERS = 1_000, 10_000


class EveryType(NamedTuple):
    """Tables with a column, an array and a key of each type, and what is done to them at a source.

    ``s.every`` has a key, ``s.whole`` is matched by its whole rows, ``s.k0`` … have a key of one type each.
    """

    values: dict[str, list[str]]
    """By type, as SQL; a type may have its collation behind it."""
    keyed: dict[int, str]
    """Those that can be a primary key, by their place."""

    @classmethod
    def of(cls, source: Connection) -> Self:
        """The types that a server knows; `KINDS` must have been executed there, in autocommit mode."""
        types = dict(TYPES)
        version = source.info.server_version
        if version >= 170_000:
            types["interval"] = [*types["interval"], "infinity", "-infinity"]
        values = {
            name: [f"{sql.Literal(text).as_string()}::{_bare(name)}" for text in texts]
            for name, texts in types.items()
        }
        if version < 170_000:
            values = {name: known for name, texts in values.items() if (known := _known(source, texts))}
        return cls(values, {i: name for i, name in enumerate(values) if _can_be_key(source, name)})

    def ddl(self) -> str:
        """What makes the tables."""
        columns = ", ".join(f"c{i} {name}, a{i} {_array(name)}" for i, name in enumerate(self.values))
        return ";".join(
            [
                f"CREATE TABLE s.every (id integer PRIMARY KEY, {columns})",
                f"CREATE TABLE s.whole (id integer, {columns})",
                "ALTER TABLE s.whole REPLICA IDENTITY FULL",
                *(
                    f"CREATE INDEX ON s.every USING {method} (c{text} x.{method}_trgm_ops)"
                    for text, name in enumerate(self.values)
                    if name == "varchar(5)"
                    for method in ("gin", "gist")
                ),
                *(f"CREATE TABLE s.k{i} (k {name} PRIMARY KEY, n integer)" for i, name in self.keyed.items()),
            ]
        )

    def fill(self, source: Connection) -> None:
        """Insert each value."""
        for row in range(max(map(len, self.values.values()))):
            for table in ("every", "whole"):
                cells = []
                for name, values in self.values.items():
                    one, other = (values[(row + more) % len(values)] for more in (0, 1))
                    if table == "whole" and len(one) > _SHORT_CHARACTERS:
                        one = values[0]
                    array = f"ARRAY[{one}, NULL, {values[0]}, {other}]"
                    without = _array(name) == name or name == "s.words" or len(array) > _ARRAY_CHARACTERS
                    cells += [one, "NULL" if without else array]
                source.execute(f"INSERT INTO s.{table} VALUES ({row}, {', '.join(cells)})".encode())
        source.execute("INSERT INTO s.every (id) VALUES (1000), (1001)")
        source.execute("INSERT INTO s.whole (id) VALUES (1000), (1000)")
        for i, name in self.keyed.items():
            rows = ", ".join(f"({v}, {n})" for n, v in enumerate(self.values[name]) if len(v) < _SHORT_CHARACTERS)
            source.execute(
                f"INSERT INTO s.k{i} SELECT v, n FROM (VALUES {rows}) t (v, n) ON CONFLICT DO NOTHING".encode()
            )

    def change(self, source: Connection) -> None:
        """Update and delete rows, by keys of each type and by whole rows; some keys change."""
        columns = ", ".join(f"c{i}, a{i}" for i in range(len(self.values)))
        for target, origin in ((1000, 1), (3, 2), (2, 1001)):
            source.execute(
                f"UPDATE s.every SET ({columns}) = (SELECT {columns} FROM s.every WHERE id = {origin})"
                f" WHERE id = {target}".encode()
            )
        source.execute("UPDATE s.every SET id = id + 10000 WHERE id < 3")
        source.execute("DELETE FROM s.every WHERE id IN (4, 5)")
        source.execute(
            "UPDATE s.whole SET id = id + 1 WHERE id < 5 OR ctid = (SELECT min(ctid) FROM s.whole WHERE id = 1000)"
        )
        source.execute("DELETE FROM s.whole WHERE id >= 5")
        for i in self.keyed:
            source.execute(f"UPDATE s.k{i} SET n = n + 10".encode())
            source.execute(f"DELETE FROM s.k{i} WHERE n = 10".encode())
            source.execute(
                f"UPDATE s.k{i} SET k = (SELECT c{i} FROM s.every WHERE id = 10000) WHERE n = 11".encode()
            )


def _known(source: Connection, values: list[str]) -> list[str]:
    """Those that an older server knows."""
    found = []
    for value in values:
        with contextlib.suppress(psycopg.DataError, psycopg.ProgrammingError):
            source.execute(f"SELECT {value}".encode())
            found.append(value)
    return found


def _bare(name: str) -> str:
    return name.split(" COLLATE ", maxsplit=1)[0]


def _array(name: str) -> str:
    bare, collate, collation = name.partition(" COLLATE ")
    return f"{bare if bare.endswith('[]') else bare + '[]'}{collate}{collation}"


def _can_be_key(source: Connection, name: str) -> bool:
    with source.transaction(force_rollback=True):
        try:
            source.execute(f"CREATE TABLE s.probe (k {name} PRIMARY KEY)".encode())
        except psycopg.errors.UndefinedObject:
            return False
    return True
