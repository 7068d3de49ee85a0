"""What of a database at home is in the stream: the publication, and what its tables need so that nothing breaks.

The publication names tables one by one. One for all tables would take in each new table at once, and a new table
without a key then refuses its own updates (PostgreSQL cannot say which row they mean).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from psycopg import sql

_TABLES = """
SELECT n.nspname, c.relname, c.relkind::text, c.relreplident::text,
       EXISTS (SELECT FROM pg_catalog.pg_index i
               WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
                 AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END),
       EXISTS (SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
               WHERE p.pubname = %(publication)s AND r.prrelid IN (
                   SELECT c.oid UNION ALL SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) a))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2"""


class SourceTable(NamedTuple):
    """A permanent table at home."""

    schema: str
    name: str
    partitioned: bool
    """It holds no rows itself; its partitions do."""
    identity: str
    """pg_class.relreplident: d default, n nothing, f full, i index."""
    has_key: bool
    """The identity names an index that can tell rows apart."""
    published: bool
    """Itself or one of its ancestors."""

    @property
    def identifies_rows(self) -> bool:
        """Whether PostgreSQL can say which row an update or delete means."""
        return self.has_key or self.identity == "f"

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def source_tables(connection: psycopg.Connection[Any], publication: str) -> list[SourceTable]:
    """Every permanent table outside the system's schemas and of no extension, in order of their names."""
    return [
        SourceTable(schema, name, kind == "p", identity, has_key, published)
        for schema, name, kind, identity, has_key, published in connection.execute(
            _TABLES.encode(), {"publication": publication}
        )
    ]


def identify_by_whole_row(connection: psycopg.Connection[Any], table: SourceTable) -> None:
    """REPLICA IDENTITY FULL: for a table without a usable key, before it is published."""
    connection.execute(
        sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(sql.Identifier(table.schema, table.name))
    )


def exists(connection: psycopg.Connection[Any], publication: str) -> bool:
    """Whether the publication is there."""
    row = connection.execute("SELECT FROM pg_catalog.pg_publication WHERE pubname = %s", (publication,)).fetchone()
    return row is not None


def create(connection: psycopg.Connection[Any], publication: str) -> None:
    """Create it, empty. Partitions are published as themselves: a TRUNCATE of one would be lost otherwise."""
    connection.execute(
        sql.SQL("CREATE PUBLICATION {} WITH (publish_via_partition_root = false)").format(
            sql.Identifier(publication)
        )
    )


def add(connection: psycopg.Connection[Any], publication: str, tables: list[SourceTable]) -> None:
    """Add tables, without a row filter or a column list."""
    connection.execute(
        sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(
            sql.Identifier(publication),
            sql.SQL(", ").join(
                sql.SQL("{}{}").format(
                    sql.SQL("" if table.partitioned else "ONLY "), sql.Identifier(table.schema, table.name)
                )
                for table in tables
            ),
        )
    )


def holding_rows(connection: psycopg.Connection[Any], tables: list[SourceTable]) -> list[SourceTable]:
    """Those of the tables that are not empty."""
    found = []
    for table in tables:
        if table.partitioned:
            continue
        row = connection.execute(
            sql.SQL("SELECT EXISTS (SELECT FROM ONLY {})").format(sql.Identifier(table.schema, table.name))
        ).fetchone()
        if row is not None and row[0]:
            found.append(table)
    return found
