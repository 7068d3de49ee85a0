"""What of a database at home is in the stream: the publication, and what its tables need so that nothing breaks.

The publication names tables one by one. One for all tables would take in each new table at once, and a new table
without a key then refuses its own updates (PostgreSQL cannot say which row they mean).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from embassy.pg.catalog import SourceTable

# What its versions do not all have is read by name.
_STATE = """
SELECT p.puballtables, p.pubviaroot, p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate,
       {by_schema},
       coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 'n') <> 'n',
       ARRAY(SELECT pg_catalog.format('%%s.%%s', n.nspname, c.relname)
             FROM pg_catalog.pg_publication_rel r
             JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE r.prpubid = p.oid
               AND coalesce(pg_catalog.to_jsonb(r) ->> 'prqual', pg_catalog.to_jsonb(r) ->> 'prattrs') IS NOT NULL
             ORDER BY 1)
FROM pg_catalog.pg_publication p WHERE p.pubname = %(publication)s"""
_BY_SCHEMA = "EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = p.oid)"
_BY_SCHEMA_VERSION = 150_000


_LEAVES = """
SELECT n.nspname, c.relname
FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
CROSS JOIN LATERAL (SELECT r.oid UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree(r.oid) t) l (oid)
JOIN pg_catalog.pg_class c ON c.oid = l.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE rn.nspname = %(schema)s AND r.relname = %(name)s AND c.relkind = 'r' AND c.relpersistence = 'p'
  AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_publication_rel b JOIN pg_catalog.pg_publication p ON p.oid = b.prpubid
      WHERE p.pubname = %(publication)s AND b.prrelid IN (
          SELECT c.oid UNION ALL SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) a))
ORDER BY 1, 2"""


class PublicationState(NamedTuple):
    """A publication as it is."""

    all_tables: bool
    via_root: bool
    all_operations: bool
    by_schema: bool
    generated_columns: bool
    filtered: list[str]
    """Tables with a row filter or a column list."""

    @property
    def faults(self) -> list[str]:
        """What keeps it from carrying each change of each table."""
        told = {
            "it is for all tables: a new table without a key could not be updated at home": self.all_tables,
            "it is for tables in schema: a new table without a key could not be updated at home": self.by_schema,
            "publish_via_partition_root is on: TRUNCATE of a partition would be lost": self.via_root,
            "it does not publish insert, update, delete and truncate": not self.all_operations,
            "publish_generated_columns is on: the replica makes its own": self.generated_columns,
            f"row filters or column lists leave out changes of {', '.join(self.filtered)}": bool(self.filtered),
        }
        return [text for text, wrong in told.items() if wrong]


def publication_state(connection: psycopg.Connection[Any], publication: str) -> PublicationState | None:
    """The publication, or None if there is none."""
    by_schema = _BY_SCHEMA if connection.info.server_version >= _BY_SCHEMA_VERSION else "false"
    query = _STATE.replace("{by_schema}", by_schema)
    row = connection.execute(query.encode(), {"publication": publication}).fetchone()
    return None if row is None else PublicationState(*row)


def create(connection: psycopg.Connection[Any], publication: str) -> None:
    """Create it, empty. Partitions are published as themselves: a TRUNCATE of one would be lost otherwise."""
    connection.execute(
        sql.SQL("CREATE PUBLICATION {} WITH (publish_via_partition_root = false)").format(
            sql.Identifier(publication)
        )
    )


def add(connection: psycopg.Connection[Any], publication: str, table: SourceTable) -> None:
    """Add a table, without a row filter or a column list."""
    connection.execute(
        sql.SQL("ALTER PUBLICATION {} ADD TABLE {}{}").format(
            sql.Identifier(publication), _only(table), _name(table)
        )
    )


def leave(connection: psycopg.Connection[Any], publication: str, table: SourceTable) -> None:
    """Take a table out, if it is in by itself."""
    row = connection.execute(
        """SELECT EXISTS (SELECT FROM pg_catalog.pg_publication_rel r
                          JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
                          WHERE p.pubname = %s AND r.prrelid = %s::pg_catalog.regclass)""",
        (publication, _name(table).as_string()),
    ).fetchone()
    if row == (True,):
        connection.execute(
            sql.SQL("ALTER PUBLICATION {} DROP TABLE {}{}").format(
                sql.Identifier(publication), _only(table), _name(table)
            )
        )


def identify_by_whole_row(connection: psycopg.Connection[Any], table: SourceTable) -> None:
    """REPLICA IDENTITY FULL: for a table without a usable key, before it is published."""
    connection.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(_name(table)))


def keep_writers_out(connection: psycopg.Connection[Any], table: SourceTable) -> None:
    """Lock a table against writers until the transaction ends; those who have begun to write are waited for."""
    connection.execute(sql.SQL("LOCK TABLE {}{} IN SHARE ROW EXCLUSIVE MODE").format(_only(table), _name(table)))


def unpublished_leaves(
    connection: psycopg.Connection[Any], publication: str, table: SourceTable
) -> list[SourceTable]:
    """What holds the rows of a table, itself or its partitions, as far as nothing of it is in the publication yet."""
    return [
        SourceTable(schema, name)
        for schema, name in connection.execute(
            _LEAVES.encode(), {"publication": publication, "schema": table.schema, "name": table.name}
        )
    ]


def let_read(connection: psycopg.Connection[Any], table: SourceTable, role: str) -> None:
    """Let a role read a table, if it may not."""
    row = connection.execute(
        """SELECT pg_catalog.has_schema_privilege(%(role)s, n.oid, 'USAGE'),
                  pg_catalog.has_table_privilege(%(role)s, c.oid, 'SELECT')
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = %(schema)s AND c.relname = %(name)s""",
        {"role": role, "schema": table.schema, "name": table.name},
    ).fetchone()
    enters, reads = row or (True, True)
    grantee = sql.Identifier(role)
    if not enters:
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(table.schema), grantee))
    if not reads:
        connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(_name(table), grantee))


def holding_rows(connection: psycopg.Connection[Any], tables: Iterable[SourceTable]) -> list[str]:
    """The names of those tables that are not empty; a partitioned one has its partitions' rows.

    No view has a sample: one that has come in a table's place is refused, and not computed with this session's rights.
    """
    found = []
    for table in tables:
        sample = sql.SQL("SELECT EXISTS (SELECT FROM {}{} TABLESAMPLE SYSTEM (100))")
        row = connection.execute(sample.format(_only(table), _name(table))).fetchone()
        if row == (True,):
            found.append(str(table))
    return found


def _name(table: SourceTable) -> sql.Identifier:
    return sql.Identifier(table.schema, table.name)


def _only(table: SourceTable) -> sql.SQL:
    """Partitions come with their root; the children that inherit from a table stand for themselves."""
    return sql.SQL("" if table.partitioned else "ONLY ")
