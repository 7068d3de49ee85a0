-- Statements that make a table as it is here, for commands whose text would not do abroad. Run by an administrator at home,
-- after shared_ddl.sql; may be run again at any time.

-- A column's name and type, where it has another collation than its type that, too.
CREATE OR REPLACE FUNCTION embassy.column_type(relation oid, number smallint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_catalog.format('%I %s%s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END)
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = relation AND a.attnum = number
$$;

-- CREATE TABLE with these elements, of the same kind and stored like this one.
CREATE OR REPLACE FUNCTION embassy.table_with(relation oid, elements text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_catalog.format('CREATE %sTABLE %s (%s)%s%s%s%s%s',
        CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' ELSE '' END,
        c.oid::regclass,
        elements,
        (SELECT pg_catalog.format(' INHERITS (%s)',
                                  pg_catalog.string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno))
         FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid HAVING count(*) > 0),
        ' PARTITION BY ' || pg_catalog.pg_get_partkeydef(c.oid),
        (SELECT pg_catalog.format(' USING %I', m.amname) FROM pg_catalog.pg_am m WHERE m.oid = c.relam),
        (SELECT ' WITH (' || pg_catalog.string_agg(o.option, ', ') || ')'
         FROM (SELECT pg_catalog.unnest(c.reloptions)
               UNION ALL SELECT 'toast.' || pg_catalog.unnest(t.reloptions)
               FROM pg_catalog.pg_class t WHERE t.oid = c.reltoastrelid) o (option)),
        (SELECT pg_catalog.format(' TABLESPACE %I', t.spcname)
         FROM pg_catalog.pg_tablespace t WHERE t.oid = c.reltablespace))
    FROM pg_catalog.pg_class c WHERE c.oid = relation
$$;

-- The statement that makes an empty table with the columns of this one: what CREATE TABLE AS has left behind.
CREATE OR REPLACE FUNCTION embassy.empty_like(relation oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT embassy.table_with(relation, (
        SELECT pg_catalog.string_agg(embassy.column_type(relation, a.attnum), ', ' ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0))
$$;

-- Whether an object goes with a temporary one, when the session ends that has it: no event trigger fires then.
CREATE OR REPLACE FUNCTION embassy.needs_temporary(class oid, object oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        LEFT JOIN pg_catalog.pg_type e ON d.refclassid = 'pg_catalog.pg_type'::regclass AND e.oid = d.refobjid
        LEFT JOIN pg_catalog.pg_class c ON d.refclassid = 'pg_catalog.pg_class'::regclass AND c.oid = d.refobjid
        JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(e.typnamespace, c.relnamespace)
        WHERE d.classid = class AND d.objid = object AND d.deptype = 'n' AND n.nspname ~ '^pg_temp_')
$$;

-- Whether CREATE TABLE … (LIKE …) may name one of the session's temporary tables: what it says means nothing elsewhere.
CREATE OR REPLACE FUNCTION embassy.is_like_temporary(query text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT query ~* E'\\mLIKE\\M' AND EXISTS (
        SELECT FROM pg_catalog.pg_class c
        WHERE c.relnamespace = pg_catalog.pg_my_temp_schema() AND c.relkind IN ('r', 'p', 'v', 'f', 'c')
          AND pg_catalog.strpos(pg_catalog.lower(query), pg_catalog.lower(c.relname::text)) > 0)
$$;

-- The statements that make a table that was made just now, and what came with it: sequences, indexes, statistics, comments.
-- A default that needs a temporary object is left out: home loses it with that, and rows have its values.
CREATE OR REPLACE FUNCTION embassy.made_like(relation oid) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    SET "DateStyle" = 'ISO' SET "IntervalStyle" = 'postgres' SET "TimeZone" = 'UTC'
    SET extra_float_digits = 3 SET bytea_output = 'hex' SET lc_monetary = 'C' SET xmloption = 'content'
    SET quote_all_identifiers = off AS $$
    WITH sequences AS (
        SELECT d.deptype, d.refobjsubid AS number, s.seqrelid AS sequence,
               pg_catalog.format('INCREMENT %s MINVALUE %s MAXVALUE %s START %s CACHE %s%s', s.seqincrement, s.seqmin,
                                 s.seqmax, s.seqstart, s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' END) AS options,
               pg_catalog.format_type(s.seqtypid, NULL) AS type
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_sequence s ON s.seqrelid = d.objid
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
          AND d.refobjid = relation AND d.deptype IN ('a', 'i')
    ), columns AS (
        SELECT a.attnum, a.attname, pg_catalog.concat_ws(' ', embassy.column_type(relation, a.attnum),
            CASE WHEN a.attcompression <> '' THEN
                'COMPRESSION ' || CASE a.attcompression WHEN 'l' THEN 'lz4' ELSE 'pglz' END END,
            CASE WHEN a.attidentity <> '' THEN pg_catalog.format('GENERATED %s AS IDENTITY (SEQUENCE NAME %s %s)',
                    CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, s.sequence::regclass, s.options)
                WHEN a.attgenerated <> '' THEN pg_catalog.format('GENERATED ALWAYS AS (%s) %s',
                    pg_catalog.pg_get_expr(f.adbin, relation), CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END)
                WHEN NOT embassy.needs_temporary('pg_catalog.pg_attrdef'::regclass, f.oid) THEN
                    'DEFAULT ' || pg_catalog.pg_get_expr(f.adbin, relation) END,
            CASE WHEN a.attnotnull AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_constraint k
                WHERE k.conrelid = relation AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]) THEN 'NOT NULL' END) AS text
        FROM pg_catalog.pg_attribute a
        LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = relation AND f.adnum = a.attnum
        LEFT JOIN sequences s ON s.deptype = 'i' AND s.number = a.attnum
        WHERE a.attrelid = relation AND a.attnum > 0 AND a.attislocal
    ), constraints AS (
        SELECT k.oid, k.conname, k.conindid, pg_catalog.pg_get_constraintdef(k.oid) AS text
        FROM pg_catalog.pg_constraint k
        WHERE k.conrelid = relation AND k.conislocal AND k.conparentid = 0 AND k.contype IN ('c', 'f', 'n', 'p', 'u', 'x')
    ), indexes AS (
        SELECT i.indexrelid AS oid FROM pg_catalog.pg_index i
        WHERE i.indrelid = relation AND i.indexrelid NOT IN (SELECT k.conindid FROM constraints k)
    ), parts AS (
        SELECT 1 AS place, pg_catalog.format('CREATE SEQUENCE %s AS %s %s', s.sequence::regclass, s.type, s.options) AS text
        FROM sequences s WHERE s.deptype = 'a'
        UNION ALL SELECT 2, embassy.table_with(relation, pg_catalog.concat_ws(', ',
            (SELECT pg_catalog.string_agg(c.text, ', ' ORDER BY c.attnum) FROM columns c),
            (SELECT pg_catalog.string_agg(pg_catalog.format('CONSTRAINT %I %s', k.conname, k.text), ', ' ORDER BY k.oid)
             FROM constraints k)))
        UNION ALL SELECT 3, pg_catalog.format('ALTER SEQUENCE %s OWNED BY %s.%I', s.sequence::regclass, relation::regclass,
                                              c.attname)
        FROM sequences s JOIN columns c ON c.attnum = s.number WHERE s.deptype = 'a'
        UNION ALL SELECT 3, pg_catalog.format('ALTER TABLE %s ALTER %I SET STORAGE %s', relation::regclass, a.attname,
            CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'x' THEN 'EXTENDED' ELSE 'MAIN' END)
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = relation AND a.attnum > 0 AND a.attislocal AND a.attstorage <> t.typstorage
        UNION ALL SELECT 4, pg_catalog.pg_get_indexdef(i.oid) FROM indexes i
        UNION ALL SELECT 4, pg_catalog.pg_get_statisticsobjdef(s.oid) FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = relation
        UNION ALL SELECT 5, pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', relation::regclass, c.attname, d.description)
        FROM pg_catalog.pg_description d JOIN columns c ON c.attnum = d.objsubid
        WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = relation
        UNION ALL SELECT 5, pg_catalog.format('COMMENT ON CONSTRAINT %I ON %s IS %L', k.conname, relation::regclass, d.description)
        FROM pg_catalog.pg_description d JOIN constraints k ON k.oid = d.objoid
        WHERE d.classoid = 'pg_catalog.pg_constraint'::regclass
        UNION ALL SELECT 5, pg_catalog.format('COMMENT ON INDEX %s IS %L', i.indexrelid::regclass, d.description)
        FROM pg_catalog.pg_description d JOIN pg_catalog.pg_index i ON i.indexrelid = d.objoid AND i.indrelid = relation
        WHERE d.classoid = 'pg_catalog.pg_class'::regclass
        UNION ALL SELECT 5, pg_catalog.format('COMMENT ON STATISTICS %I.%I IS %L', n.nspname, s.stxname, d.description)
        FROM pg_catalog.pg_description d JOIN pg_catalog.pg_statistic_ext s ON s.oid = d.objoid AND s.stxrelid = relation
        JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
        WHERE d.classoid = 'pg_catalog.pg_statistic_ext'::regclass
    )
    SELECT pg_catalog.array_agg(p.text ORDER BY p.place, p.text) FROM parts p
$$;

REVOKE ALL ON FUNCTION embassy.column_type(oid, smallint), embassy.table_with(oid, text), embassy.empty_like(oid),
    embassy.needs_temporary(oid, oid), embassy.is_like_temporary(text), embassy.made_like(oid) FROM PUBLIC;
