-- DDL in the stream: what an event trigger sees of each command becomes a row of embassy.ddl, in the transaction and at
-- the place of the command. Run by an administrator at home, after source.sql; may be run again at any time. Event triggers
-- only a superuser may create: source_ddl_triggers.sql.
--
-- Nobody but these functions writes the rows: they run with their owner's rights, and PostgreSQL refuses to call a function
-- that returns event_trigger in any other way. Whose command it is cannot be seen from there, so a first trigger, which
-- runs as whoever is active, notes that; the second follows it at once, in order of their names.

CREATE TABLE IF NOT EXISTS embassy.ddl (
    ordinal bigint PRIMARY KEY,
    made_at timestamptz NOT NULL,         -- clock of the source
    tag text NOT NULL,                    -- the command, as PostgreSQL names it
    role text NOT NULL,                   -- who was active
    settings jsonb NOT NULL,              -- what the meaning of a statement depends on
    how text NOT NULL,                    -- statement: query is it; string: one of query's; context: query begins with it
    query text,                           -- NULL: the query of the row query_of
    query_of bigint,
    nth integer,                          -- string: which of its commands with this tag
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

CREATE SEQUENCE IF NOT EXISTS embassy.ddl_row_number;
CREATE SEQUENCE IF NOT EXISTS embassy.ddl_ordinal;
SELECT pg_catalog.setval('embassy.ddl_ordinal', greatest((SELECT max(ordinal) FROM embassy.ddl), last_value, 1))
FROM embassy.ddl_ordinal;

-- The publications that take in new tables.
CREATE TABLE IF NOT EXISTS embassy.ddl_publication (
    publication name PRIMARY KEY
);

-- A row is here while the product itself issues DDL, which belongs to this site.
CREATE TABLE IF NOT EXISTS embassy.ddl_own (
    pid integer PRIMARY KEY
);

-- Whether a table has rows of its own in the log, and nothing that says which of them a change means.
CREATE OR REPLACE FUNCTION embassy.lacks_identity(relation oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_class c
        WHERE c.oid = relation AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f'
          AND NOT EXISTS (
              SELECT FROM pg_catalog.pg_index i
              WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
                AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                WHERE a.attrelid = c.oid AND a.attgenerated <> ''
                                  AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))))
$$;

CREATE OR REPLACE FUNCTION embassy.is_published(relation oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel r
        JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
        JOIN embassy.ddl_publication d ON d.publication = p.pubname
        WHERE r.prrelid IN (SELECT relation UNION ALL SELECT a.relid FROM pg_catalog.pg_partition_ancestors(relation) a))
$$;

-- Takes a new table into the stream, able to say which of its rows a change means: otherwise home could not change them.
CREATE OR REPLACE FUNCTION embassy.publish(relation oid) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    name text := relation::regclass;
    publication name;
BEGIN
    INSERT INTO embassy.ddl_own VALUES (pg_catalog.pg_backend_pid());
    IF embassy.lacks_identity(relation) THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY FULL', name);
    END IF;
    IF NOT embassy.is_published(relation) THEN
        FOR publication IN
            SELECT d.publication FROM embassy.ddl_publication d
            JOIN pg_catalog.pg_publication p ON p.pubname = d.publication ORDER BY 1
        LOOP
            EXECUTE pg_catalog.format('ALTER PUBLICATION %I ADD TABLE ONLY %s', publication, name);
        END LOOP;
    END IF;
    DELETE FROM embassy.ddl_own WHERE pid = pg_catalog.pg_backend_pid();
END
$$;

-- The statement that makes an empty table with the columns of this one: what CREATE TABLE AS has left behind.
CREATE OR REPLACE FUNCTION embassy.empty_like(relation oid) RETURNS text
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT pg_catalog.format('CREATE %sTABLE %s (%s)%s%s%s',
        CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' ELSE '' END,
        c.oid::regclass,
        (SELECT pg_catalog.string_agg(pg_catalog.format('%I %s%s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                    CASE WHEN a.attcollation <> t.typcollation
                         THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END), ', ' ORDER BY a.attnum)
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = c.oid AND a.attnum > 0),
        (SELECT pg_catalog.format(' USING %I', m.amname) FROM pg_catalog.pg_am m WHERE m.oid = c.relam),
        (SELECT ' WITH (' || pg_catalog.string_agg(o.option, ', ') || ')'
         FROM (SELECT pg_catalog.unnest(c.reloptions)
               UNION ALL SELECT 'toast.' || pg_catalog.unnest(t.reloptions)
               FROM pg_catalog.pg_class t WHERE t.oid = c.reltoastrelid) o (option)),
        (SELECT pg_catalog.format(' TABLESPACE %I', t.spcname)
         FROM pg_catalog.pg_tablespace t WHERE t.oid = c.reltablespace))
    FROM pg_catalog.pg_class c WHERE c.oid = relation
$$;

-- Copies a table's rows to where the stream finds them, as text that means the same anywhere; returns which table it was.
CREATE OR REPLACE FUNCTION embassy.store_rows(ordinal bigint, relation oid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = '' SET row_security = off SET "DateStyle" = 'ISO' SET "IntervalStyle" = 'postgres'
    SET "TimeZone" = 'UTC' SET extra_float_digits = 3 SET bytea_output = 'hex' SET lc_monetary = 'C'
    SET xmloption = 'content' AS $$
BEGIN
    EXECUTE pg_catalog.format(
        'INSERT INTO embassy.ddl_rows SELECT $1, pg_catalog.nextval(''embassy.ddl_row_number''), $2, (embassy_row.*)::text'
        ' FROM ONLY %s embassy_row', relation::regclass)
    USING ordinal, relation::regclass::text;
    RETURN (
        SELECT pg_catalog.jsonb_build_object('table', relation::regclass::text,
            'columns', coalesce(pg_catalog.jsonb_agg(a.attname ORDER BY a.attnum), '[]'),
            'generated', coalesce(pg_catalog.jsonb_agg(a.attname) FILTER (WHERE a.attgenerated <> ''), '[]'))
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped);
END
$$;

CREATE OR REPLACE FUNCTION embassy.ddl_session() RETURNS event_trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.set_config('embassy.ddl_role', current_user::pg_catalog.text, true),
            pg_catalog.set_config('embassy.ddl_search_path', pg_catalog.current_setting('search_path'), true);
END
$$;

CREATE OR REPLACE FUNCTION embassy.ddl_capture() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lc_messages = 'C' AS $$
DECLARE
    context text;
    query text;
    how text;
    nth integer;
    query_of bigint;
    string jsonb;                         -- what is known of the client's query string
    string_key text;
    commands integer;
    scripted boolean;                     -- by an extension's script, which the replica runs too
    kept jsonb;
    relations oid[];
    relation oid;
    ordinal bigint;
    filled jsonb := '[]';
    role text := pg_catalog.current_setting('embassy.ddl_role');                -- now: DDL below would overwrite it
    path text := pg_catalog.current_setting('embassy.ddl_search_path');
BEGIN
    IF TG_TAG ~ ' (PUBLICATION|SUBSCRIPTION)$' OR TG_TAG = 'REINDEX'
       OR EXISTS (SELECT FROM embassy.ddl_own WHERE pid = pg_catalog.pg_backend_pid())
       OR (pg_catalog.current_setting('application_name') ~ '^embassy-'
           AND EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = session_user AND rolsuper)) THEN
        RETURN;
    END IF;

    IF TG_EVENT = 'sql_drop' THEN
        IF TG_TAG !~ '^DROP ' OR TG_TAG = 'DROP OWNED' THEN
            RETURN;
        END IF;
        SELECT count(*), false,
               coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('type', d.object_type, 'identity', d.object_identity))
                        FILTER (WHERE d.original AND NOT d.is_temporary AND d.schema_name IS DISTINCT FROM 'embassy'), '[]'),
               '{}'
        INTO commands, scripted, kept, relations
        FROM pg_catalog.pg_event_trigger_dropped_objects() d;
    ELSE
        SELECT count(*), coalesce(bool_and(d.in_extension), false),
               coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('type', d.object_type, 'identity', d.object_identity))
                        FILTER (WHERE d.own IS NOT TRUE), '[]'),
               coalesce(pg_catalog.array_agg(d.objid)
                        FILTER (WHERE d.own IS NOT TRUE AND d.classid = 'pg_catalog.pg_class'::regclass), '{}')
        INTO commands, scripted, kept, relations
        FROM (SELECT *, in_extension OR schema_name IN ('pg_temp', 'embassy')
                        OR object_identity ~ ' on (pg_temp|embassy)\.' AS own
              FROM pg_catalog.pg_event_trigger_ddl_commands()) d;
        IF scripted THEN
            RETURN;
        END IF;
    END IF;

    GET DIAGNOSTICS context = PG_CONTEXT;
    IF pg_catalog.strpos(context, E'\n') = 0 THEN
        how := 'string';
        query := pg_catalog.current_query();
        string_key := pg_catalog.date_part('epoch', pg_catalog.statement_timestamp()) || pg_catalog.md5(query);
        string := nullif(pg_catalog.current_setting('embassy.ddl_string', true), '')::jsonb;
        IF string IS NULL OR string ->> 'key' <> string_key THEN
            string := pg_catalog.jsonb_build_object('key', string_key, 'counts', '{}'::jsonb);
        END IF;
        nth := coalesce((string -> 'counts' ->> TG_TAG)::integer, 0) + 1;
        query_of := (string ->> 'query_of')::bigint;
        IF TG_EVENT = 'ddl_command_end' THEN
            string := pg_catalog.jsonb_set(string, ARRAY['counts', TG_TAG], pg_catalog.to_jsonb(nth));
            PERFORM pg_catalog.set_config('embassy.ddl_string', string::text, false);
        END IF;
    ELSE
        how := 'context';
        query := pg_catalog.substr(context, pg_catalog.strpos(context, E'\n') + 1);
    END IF;

    -- What an extension's script drops, the replica's script drops too; what it makes was told apart above.
    IF TG_TAG !~ ' EXTENSION$' AND (context ~ E'\nextension script file '
        OR query ~* CASE how WHEN 'string' THEN '^\s*(CREATE|ALTER)\s+EXTENSION\M'
                             ELSE '^SQL statement "\s*(CREATE|ALTER)\s+EXTENSION\M' END) THEN
        RETURN;
    END IF;
    IF (commands > 0 AND kept = '[]') OR (TG_EVENT = 'ddl_command_end' AND TG_TAG ~ '^DROP ' AND TG_TAG <> 'DROP OWNED') THEN
        RETURN;
    END IF;

    IF TG_TAG ~ '^CREATE (TABLE|SCHEMA)' OR TG_TAG = 'SELECT INTO' THEN
        FOR relation IN SELECT c.oid FROM pg_catalog.pg_class c
                        WHERE c.oid = ANY (relations) AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' LOOP
            PERFORM embassy.publish(relation);
        END LOOP;
    END IF;

    ordinal := pg_catalog.nextval('embassy.ddl_ordinal');
    IF TG_TAG IN ('CREATE TABLE AS', 'SELECT INTO') THEN
        IF commands = 0 THEN
            RETURN;                       -- IF NOT EXISTS, and it does
        END IF;
        relation := relations[1];
        how := 'statement';
        query := embassy.empty_like(relation);
        query_of := NULL;
        IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = relation AND relpersistence = 'p') THEN
            filled := pg_catalog.jsonb_build_array(embassy.store_rows(ordinal, relation));
        END IF;
    END IF;
    INSERT INTO embassy.ddl
    VALUES (ordinal, pg_catalog.clock_timestamp(), TG_TAG, role,
            (SELECT pg_catalog.jsonb_object_agg(s.name, s.setting) FROM pg_catalog.pg_settings s
             WHERE s.name = ANY ('{TimeZone,DateStyle,IntervalStyle,check_function_bodies,default_tablespace,
                 default_table_access_method,default_toast_compression,standard_conforming_strings,xmloption,array_nulls,
                 transform_null_equals,default_text_search_config,lc_monetary}'))
            || pg_catalog.jsonb_build_object('search_path', path),
            how, CASE WHEN query_of IS NULL THEN query END, query_of, nth, kept, filled, '[]', '[]');
    IF how = 'string' AND query_of IS NULL THEN
        string := pg_catalog.jsonb_set(string, '{query_of}', pg_catalog.to_jsonb(ordinal));
        PERFORM pg_catalog.set_config('embassy.ddl_string', string::text, false);
    END IF;
END
$$;

REVOKE ALL ON FUNCTION embassy.lacks_identity(oid), embassy.is_published(oid), embassy.publish(oid), embassy.empty_like(oid),
    embassy.store_rows(bigint, oid), embassy.ddl_session(), embassy.ddl_capture() FROM PUBLIC;
