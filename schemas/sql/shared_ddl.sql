-- The tables in which DDL travels, and what a table is compared by: the same on both sides. Run by an administrator, after
-- source.sql or replica.sql; may be run again at any time.

CREATE TABLE IF NOT EXISTS embassy.ddl (
    ordinal bigint PRIMARY KEY,
    made_at timestamptz NOT NULL,         -- clock of the source
    tag text NOT NULL,                    -- the command, as PostgreSQL names it
    role text NOT NULL,                   -- who was active
    settings jsonb NOT NULL,              -- what the meaning of a statement depends on
    how text NOT NULL,                    -- statement: query is it; string: one of query's; context: query begins with it
    query text,                           -- NULL: the query of the row query_of
    query_of bigint,
    nth integer,                          -- string, context: which of its commands with this tag
    objects jsonb NOT NULL,               -- what it made, altered or dropped; for people
    filled jsonb NOT NULL,                -- tables whose rows are in embassy.ddl_rows, with their columns
    stored jsonb NOT NULL,                -- values that rows of before have in new columns
    shapes jsonb NOT NULL                 -- the tables' descriptions afterwards
);

-- Rows that a command stored and that the log does not show as such, as text of the whole row.
CREATE TABLE IF NOT EXISTS embassy.ddl_rows (
    ordinal bigint NOT NULL,
    number bigint NOT NULL,
    target text NOT NULL,
    content text NOT NULL,
    PRIMARY KEY (ordinal, number)
);

-- What a table is, as far as two servers can be asked to agree on it: columns, and what of one major version also tells
-- constraints and indexes, whose texts differ between versions; constants in them are written alike in every session.
CREATE OR REPLACE FUNCTION embassy.table_shape(relation oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    SET "DateStyle" = 'ISO' SET "IntervalStyle" = 'postgres' SET "TimeZone" = 'UTC'
    SET extra_float_digits = 3 SET bytea_output = 'hex' SET lc_monetary = 'C' SET xmloption = 'content'
    SET quote_all_identifiers = off AS $$
    SELECT pg_catalog.jsonb_build_object(
        'table', relation::regclass::text,
        'version', pg_catalog.current_setting('server_version_num')::integer / 10000,
        'columns', (
            SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.concat_ws(' ', pg_catalog.format('%I', a.attname),
                pg_catalog.format_type(a.atttypid, a.atttypmod),
                CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                CASE WHEN a.attgenerated <> '' THEN 'GENERATED' END,
                CASE WHEN a.attidentity <> '' THEN 'IDENTITY ' || a.attidentity::text END) ORDER BY a.attnum), '[]')
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped),
        'constraints', (
            SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.format('%I %s', c.conname, pg_catalog.pg_get_constraintdef(c.oid))
                ORDER BY c.conname), '[]')
            FROM pg_catalog.pg_constraint c WHERE c.conrelid = relation AND c.contype <> 'n'),
        'indexes', (
            SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.pg_get_indexdef(i.indexrelid) ORDER BY i.indexrelid::regclass::text),
                '[]')
            FROM pg_catalog.pg_index i WHERE i.indrelid = relation AND i.indisvalid))
$$;

-- What rows that are older than a column have in it, of columns that were made in this transaction: text, as any server
-- with these settings reads and writes it.
CREATE OR REPLACE FUNCTION embassy.missing_values(relation oid) RETURNS TABLE (number smallint, name name, value text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    SET "DateStyle" = 'ISO' SET "IntervalStyle" = 'postgres' SET "TimeZone" = 'UTC'
    SET extra_float_digits = 3 SET bytea_output = 'hex' SET lc_monetary = 'C' SET xmloption = 'content' AS $$
    SELECT a.attnum, a.attname, (a.attmissingval::text::text[])[1]
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.atthasmissing
      AND pg_catalog.age(a.xmin) <= 0
$$;

REVOKE ALL ON FUNCTION embassy.table_shape(oid), embassy.missing_values(oid) FROM PUBLIC;
