"""What a database at home consists of, as far as the stream is concerned."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg

from embassy.model.own_tables import OWN_SCHEMA, PUBLISHED

GENERATED_IDENTITY_VERSION = 180_000
"""From here on the source refuses updates of a published table whose identity has a generated column."""

# A key can tell rows apart if it is checked at once, and if its columns are in the stream: generated ones are not.
_TABLES = """
SELECT n.nspname, c.relname, c.relkind = 'p', c.relpersistence = 'u', c.relreplident::text,
       EXISTS (SELECT FROM pg_catalog.pg_index i
               WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
                 AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                 WHERE a.attrelid = c.oid AND a.attgenerated <> ''
                                   AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))),
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped ORDER BY a.attnum),
       EXISTS (SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
               WHERE p.pubname = %(publication)s AND r.prrelid IN (
                   SELECT c.oid UNION ALL SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) a)),
       c.relispartition
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND (n.nspname <> %(own_schema)s OR c.relname = ANY (%(own_tables)s))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2"""


class SourceTable(NamedTuple):
    """A table at home."""

    schema: str
    name: str
    partitioned: bool = False
    """It holds no rows itself; its partitions do."""
    unlogged: bool = False
    """What is written to it is not in the log, and never in a stream."""
    identity: str = "d"
    """pg_class.relreplident: d default, n nothing, f full, i index."""
    has_key: bool = True
    """The identity names an index that can tell rows apart in the stream."""
    generated: tuple[str, ...] = ()
    """Generated columns; the stream does not have them, the replica makes its own."""
    published: bool = False
    """Itself or one of its ancestors."""
    partition: bool = False

    @property
    def identifies_rows(self) -> bool:
        """Whether PostgreSQL can say which row an update or delete means."""
        return self.has_key or self.identity == "f"

    @property
    def needs_whole_row(self) -> bool:
        """Whether it must be made to identify its rows by all their columns."""
        return not (self.partitioned or self.unlogged or self.identifies_rows)

    def breaks_updates(self, server_version: int) -> bool:
        """Whether home could not update its rows once it is published, whatever its identity is set to."""
        by_whole_row = not (self.partitioned or self.unlogged or self.has_key)
        return by_whole_row and bool(self.generated) and server_version >= GENERATED_IDENTITY_VERSION

    @property
    def own(self) -> bool:
        """Whether it is the product's, not the registry's."""
        return self.schema == OWN_SCHEMA

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


OWN_TABLES = tuple(SourceTable(OWN_SCHEMA, name) for name in PUBLISHED)
"""What the product publishes of its own, as it is when just made."""


def source_tables(connection: psycopg.Connection[Any], publication: str) -> list[SourceTable]:
    """Every table that is not temporary, outside the system's schemas and of no extension, in order of their names."""
    return [
        SourceTable(schema, name, partitioned, unlogged, identity, has_key, tuple(generated), *rest)
        for schema, name, partitioned, unlogged, identity, has_key, generated, *rest in connection.execute(
            _TABLES.encode(),
            {"publication": publication, "own_schema": OWN_SCHEMA, "own_tables": list(PUBLISHED)},
        )
    ]


def brief(names: list[str], most: int = 10) -> str:
    """A list of names for a message, cut short."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
