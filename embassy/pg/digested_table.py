"""What the catalogue says of a table whose rows are read as keys and digests: columns, key, and how it is ordered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString, NamedTuple

import psycopg

from embassy.model.large_objects import OBJECTS
from embassy.model.verification import TableName

_PG_CATALOG = "pg_catalog"

_EXISTS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind = 'r')"""
# What orders a column's values: provider, locale and version, as far as the server knows them.
_COLUMNS = """
SELECT a.attnum, a.attname, pg_catalog.format_type(a.atttypid, -1),
       CASE WHEN a.attcollation = 0 THEN ''
            WHEN l.collprovider = 'd' THEN
                pg_catalog.concat_ws(' ', coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c'),
                                     coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale',
                                              pg_catalog.to_jsonb(d) ->> 'daticulocale', d.datcollate),
                                     pg_catalog.to_jsonb(d) ->> 'datcollversion')
            ELSE pg_catalog.concat_ws(' ', l.collprovider,
                                      coalesce(pg_catalog.to_jsonb(l) ->> 'colllocale',
                                               pg_catalog.to_jsonb(l) ->> 'colliculocale', l.collcollate),
                                      l.collversion) END,
       CASE WHEN a.attcollation = 0 THEN '' ELSE pg_catalog.format('%%I.%%I', ln.nspname, l.collname) END
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind = 'r'
  AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum"""
# What the replica identity is by; under FULL and NOTHING the primary key, if there is one.
_KEYS = """
SELECT i.indexrelid::bigint, k.number,
       (SELECT pg_catalog.array_agg(ARRAY[n.nspname, o.oprname] ORDER BY p.amopstrategy)
        FROM pg_catalog.pg_opclass c
        JOIN pg_catalog.pg_amop p ON p.amopfamily = c.opcfamily AND p.amopstrategy IN (1, 2, 3, 5)
             AND p.amoplefttype = c.opcintype AND p.amoprighttype = c.opcintype
        JOIN pg_catalog.pg_operator o ON o.oid = p.amopopr
        JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
        WHERE c.oid = k.class),
       CASE t.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace s ON s.oid = t.relnamespace
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = x.relam AND m.amname = 'btree'
CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::int2[]), pg_catalog.unnest(i.indclass::oid[]))
     WITH ORDINALITY AS k (number, class, position)
WHERE s.nspname = %(schema)s AND t.relname = %(name)s AND i.indisunique AND i.indimmediate AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL AND k.position <= i.indnkeyatts
ORDER BY i.indexrelid, k.position"""
# What is replicated of a large object beside its pages: roles by their names, rights whoever granted them.
_STANDINGS: LiteralString = """
SELECT m.oid, pg_catalog.pg_get_userbyid(m.lomowner) AS owner,
       (SELECT pg_catalog.string_agg(DISTINCT r.right_, ' ' ORDER BY r.right_) FROM (
            SELECT pg_catalog.format('%s=%s%s', CASE WHEN a.grantee <> 0 THEN
                pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, a.privilege_type,
                CASE WHEN a.is_grantable THEN '*' END) COLLATE pg_catalog."C"
            FROM pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) a
        ) r (right_)) AS rights,
       pg_catalog.obj_description(m.oid, 'pg_largeobject') AS comment,
       pg_catalog.concat_ws(' ', m.xmin, (
           SELECT d.xmin FROM pg_catalog.pg_description d
           WHERE d.objoid = m.oid AND d.classoid = 2613 AND d.objsubid = 0)) AS xmin
FROM pg_catalog.pg_largeobject_metadata m"""


class KeyColumn(NamedTuple):
    """A column of the key, and the operators of its index."""

    name: str
    type_name: str
    below: tuple[str, str]
    """Schema and name of the operator."""
    up_to: tuple[str, str]
    equals: tuple[str, str]
    above: tuple[str, str]
    collation: str
    """What it is ordered by: provider, locale and version; empty if by bytes, or by its type alone."""
    collate: str
    """The collation's name, quoted; empty if its type has none."""


class DigestedTable(NamedTuple):
    """A table whose rows are read as digests."""

    table: TableName
    columns: tuple[str, ...]
    key: tuple[KeyColumn, ...]
    """Empty if rows are told apart by their digests only."""
    read_from: LiteralString = ""
    """The query that has its rows, if that is not the table itself; its column ``xmin`` tells versions apart."""

    @property
    def key_names(self) -> tuple[str, ...]:
        """The key's columns."""
        return tuple(column.name for column in self.key)


def digested_table(
    connection: psycopg.Connection[Any], table: TableName, key: Sequence[str] | None = None
) -> DigestedTable | None:
    """What the catalogue says of a table; None if there is none of that name.

    Args:
        connection: where it is.
        table: its name.
        key: the columns that tell its rows apart; None: those of its replica identity or primary key.
    """
    if table == OBJECTS:
        return _OBJECTS
    named = {"schema": table.schema, "name": table.name}
    if connection.execute(_EXISTS, named).fetchone() != (True,):
        return None
    columns = {row[0]: _Described(*row[1:]) for row in connection.execute(_COLUMNS, named)}
    parts = connection.execute(_KEYS, named).fetchall()
    unfit = {index for index, number, *_ in parts if number not in columns}
    indexes: dict[int, tuple[list[KeyColumn], bool]] = {}
    for index, number, operators, identifies in parts:
        if index not in unfit:
            indexes.setdefault(index, ([], identifies))[0].append(_key_column(columns[number], operators))
    names = tuple(column.name for column in columns.values())
    for found, identifies in indexes.values():
        if identifies if key is None else [column.name for column in found] == list(key):
            return DigestedTable(table, names, tuple(found))
    by_name = {column.name: column for column in columns.values()}
    operators = [(_PG_CATALOG, operator) for operator in ("<", "<=", "=", ">")]
    wanted = [by_name[name] for name in key or () if name in by_name]
    return DigestedTable(table, names, tuple(_key_column(column, operators) for column in wanted))


class _Described(NamedTuple):
    name: str
    type_name: str
    order: str
    collate: str


def _key_column(column: _Described, operators: Sequence[Sequence[str]]) -> KeyColumn:
    below, up_to, equals, above = ((schema, operator) for schema, operator in operators)
    return KeyColumn(
        column.name, column.type_name, below, up_to, equals, above, _ordered_by(column.order), column.collate
    )


def _ordered_by(told: str) -> str:
    """Empty if the order is that of bytes, whichever version."""
    provider, _, rest = told.partition(" ")
    return "" if provider == "b" or rest in ("C", "POSIX") else told


_OBJECTS = DigestedTable(
    OBJECTS,
    ("oid", "owner", "rights", "comment"),
    (
        _key_column(
            _Described("oid", "oid", "", ""), [(_PG_CATALOG, operator) for operator in ("<", "<=", "=", ">")]
        ),
    ),
    _STANDINGS,
)
