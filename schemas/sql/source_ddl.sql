-- DDL in the stream: what an event trigger sees of each command becomes a row of embassy.ddl, in the transaction and at
-- the place of the command. Run by an administrator at home, after source_ddl_tables.sql; may be run again at any time. Event
-- triggers only a superuser may create: source_ddl_triggers.sql.
--
-- Nobody but these functions writes the rows: they run with their owner's rights, and PostgreSQL refuses to call a function
-- that returns event_trigger in any other way. Whose command it is cannot be seen from there, so a first trigger, which
-- runs as whoever is active, notes that; the second follows it at once, in order of their names.
-- Their text is read in whosever session it is: no plain string here has a backslash, for it may be one that escapes.

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

-- Whether the replica identity names an index that tells a table's rows apart in the stream: one that is checked at once, of
-- columns that are in the stream.
CREATE OR REPLACE FUNCTION embassy.has_key(relation oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
        WHERE c.oid = relation AND i.indisvalid AND i.indimmediate
          AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                          WHERE a.attrelid = c.oid AND a.attgenerated <> ''
                            AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])))
$$;

-- Whether a table has rows of its own in the log, and nothing that says which of them a change means.
CREATE OR REPLACE FUNCTION embassy.lacks_identity(relation oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_class c
        WHERE c.oid = relation AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f'
          AND NOT embassy.has_key(c.oid))
$$;

-- Whether home could not change a table's rows once it is published: from PostgreSQL 18 on no identity may have generated
-- columns, and a whole row has them.
CREATE OR REPLACE FUNCTION embassy.breaks_updates(relation oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_catalog.current_setting('server_version_num')::integer >= 180000 AND EXISTS (
        SELECT FROM pg_catalog.pg_class c
        WHERE c.oid = relation AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT embassy.has_key(c.oid)
          AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped))
$$;

CREATE OR REPLACE FUNCTION embassy.is_published(relation oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel r
        JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
        JOIN embassy.ddl_publication d ON d.publication = p.pubname
        WHERE r.prrelid IN (SELECT relation UNION ALL SELECT a.relid FROM pg_catalog.pg_partition_ancestors(relation) a))
$$;

-- Whether a table is kept out of the stream until it has a key: a copy of it is asked for, and waits.
CREATE OR REPLACE FUNCTION embassy.is_withheld(relation oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT NOT embassy.is_published(relation) AND EXISTS (
        SELECT FROM embassy.copied_table t JOIN embassy.table_copy c ON c.copy = t.copy
        WHERE t.relation = is_withheld.relation AND c.state <> 'done')
$$;

-- Keeps a table out of the stream, or takes it out, rather than let home lose its updates. The copy that is asked for tells
-- the replica that the table is not whole there. Partitions that have keys stay in the stream without their root.
CREATE OR REPLACE FUNCTION embassy.withhold(relation oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
    leaf oid;
BEGIN
    FOR found IN
        SELECT d.publication, r.prrelid FROM pg_catalog.pg_publication_rel r
        JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid JOIN embassy.ddl_publication d ON d.publication = p.pubname
        WHERE r.prrelid IN (SELECT withhold.relation
                            UNION ALL SELECT a.relid FROM pg_catalog.pg_partition_ancestors(withhold.relation) a)
    LOOP
        EXECUTE pg_catalog.format('ALTER PUBLICATION %I DROP TABLE ONLY %s', found.publication, found.prrelid::regclass);
        DELETE FROM embassy.published n WHERE n.relation = found.prrelid;
        FOR leaf IN SELECT t.relid FROM pg_catalog.pg_partition_tree(found.prrelid) t
                    WHERE t.isleaf AND t.relid <> found.prrelid AND NOT embassy.breaks_updates(t.relid) LOOP
            EXECUTE pg_catalog.format('ALTER PUBLICATION %I ADD TABLE ONLY %s', found.publication, leaf::regclass);
            PERFORM embassy.note_published_anew(found.publication, leaf);
        END LOOP;
    END LOOP;
    IF NOT embassy.is_withheld(relation)
       AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = withhold.relation AND c.relkind = 'r') THEN
        PERFORM embassy.request_copy(n.nspname, c.relname, reason => 'waits for a key: not replicated before')
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = withhold.relation;
        RAISE WARNING 'table % is not replicated: it has generated columns and no key', relation::regclass
            USING HINT = 'Give it a primary key of plain columns; then its rows are copied.';
    END IF;
END
$$;

-- Takes a table into the stream, able to say which of its rows a change means: otherwise home could not change them.
CREATE OR REPLACE FUNCTION embassy.publish(relation oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := relation::regclass;
    publication name;
BEGIN
    INSERT INTO embassy.ddl_own VALUES (pg_catalog.pg_backend_pid());
    IF embassy.breaks_updates(relation)
       AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = relation AND i.indisprimary AND i.indimmediate) THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', name);
    END IF;
    IF embassy.breaks_updates(relation) THEN
        PERFORM embassy.withhold(relation);
    ELSE
        IF embassy.lacks_identity(relation) THEN
            EXECUTE pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY FULL', name);
        END IF;
        IF NOT embassy.is_published(relation) THEN
            FOR publication IN
                SELECT d.publication FROM embassy.ddl_publication d
                JOIN pg_catalog.pg_publication p ON p.pubname = d.publication ORDER BY 1
            LOOP
                EXECUTE pg_catalog.format('ALTER PUBLICATION %I ADD TABLE ONLY %s', publication, name);
                PERFORM embassy.note_published_anew(publication, relation);
            END LOOP;
        END IF;
    END IF;
    DELETE FROM embassy.ddl_own WHERE pid = pg_catalog.pg_backend_pid();
END
$$;

-- Copies a table's rows to where the stream finds them, as text that means the same anywhere; returns which table it was. By
-- format: a cast of its rows to text may have been declared by the table's owner, and would be run with our rights.
CREATE OR REPLACE FUNCTION embassy.store_rows(ordinal bigint, relation oid) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off
    SET "DateStyle" = 'ISO' SET "IntervalStyle" = 'postgres' SET "TimeZone" = 'UTC' SET extra_float_digits = 3
    SET bytea_output = 'hex' SET lc_monetary = 'C' SET xmloption = 'content' AS $$
BEGIN
    EXECUTE pg_catalog.format(
        'INSERT INTO embassy.ddl_rows SELECT $1, pg_catalog.nextval(''embassy.ddl_row_number''), $2,'
        ' pg_catalog.format(''%%s'', embassy_row.*) FROM ONLY %s embassy_row', relation::regclass)
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

-- ALTER TABLE is about to write a table anew: noted until the command's end.
CREATE OR REPLACE FUNCTION embassy.ddl_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_catalog.set_config('embassy.ddl_rewritten', (
        coalesce(nullif(pg_catalog.current_setting('embassy.ddl_rewritten', true), ''), '{}')::jsonb
        || pg_catalog.jsonb_build_object(pg_catalog.pg_event_trigger_table_rewrite_oid(),
                                         pg_catalog.pg_event_trigger_table_rewrite_reason()))::text, true);
END
$$;

-- The tables whose rows must be copied because the log does not show what ALTER TABLE has stored in them, and another server
-- might store something else: made logged (1), a new column that is not generated (2), a conversion that was given, or may
-- be by a cast of the registry's own (4).
-- The session could have noted any table; who has rewritten one has it locked.
CREATE OR REPLACE FUNCTION embassy.ddl_rewritten(query text) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid
    FROM pg_catalog.jsonb_each_text(
        coalesce(nullif(pg_catalog.current_setting('embassy.ddl_rewritten', true), ''), '{}')::jsonb) r (relation, reason)
    JOIN pg_catalog.pg_class c ON c.oid = r.relation::oid
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND EXISTS (
        SELECT FROM pg_catalog.pg_locks l
        WHERE l.locktype = 'relation' AND l.relation = c.oid AND l.pid = pg_catalog.pg_backend_pid()
          AND l.granted AND l.mode = 'AccessExclusiveLock') AND (
        r.reason::integer & 1 <> 0
        OR r.reason::integer & 2 <> 0 AND EXISTS (
            SELECT FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
              AND (a.atthasdef OR a.attidentity <> ''
                   OR EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid AND t.typdefault IS NOT NULL))
              AND pg_catalog.age(a.xmin) <= 0)
        OR r.reason::integer & 4 <> 0 AND (query ~* E'\\mUSING\\M' OR EXISTS (
            SELECT FROM pg_catalog.pg_cast k JOIN pg_catalog.pg_proc p ON p.oid = k.castfunc
            WHERE k.oid >= 16384 AND p.provolatile = 'v')))
$$;

-- The tables that a command may have changed: those that it names, and what inherits from them.
CREATE OR REPLACE FUNCTION embassy.ddl_tables(named oid[]) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE below (relation) AS (
        SELECT pg_catalog.unnest(named)
        UNION SELECT i.indrelid FROM pg_catalog.pg_index i WHERE i.indexrelid = ANY (named)
        UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON b.relation = i.inhparent
    )
    SELECT c.oid FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.relation
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
$$;

-- Withheld tables that this command lets into the stream: it holds their locks, so nobody is writing to them.
CREATE OR REPLACE FUNCTION embassy.ddl_released(named oid[]) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.relation FROM embassy.ddl_tables(named) t (relation)
    WHERE embassy.is_withheld(t.relation) AND (
        NOT embassy.breaks_updates(t.relation)
        OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = t.relation AND i.indisprimary AND i.indimmediate))
      AND EXISTS (SELECT FROM pg_catalog.pg_locks l
                  WHERE l.locktype = 'relation' AND l.relation = t.relation AND l.pid = pg_catalog.pg_backend_pid()
                    AND l.granted AND l.mode = 'AccessExclusiveLock')
$$;

-- Partitions that this transaction has detached: their root was published, they themselves were not.
CREATE OR REPLACE FUNCTION embassy.ddl_detached(named oid[]) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition AND pg_catalog.age(c.xmin) <= 0
      AND NOT embassy.is_published(c.oid) AND c.oid <> ALL (named) AND n.nspname <> 'embassy' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)
      AND EXISTS (SELECT FROM pg_catalog.pg_class r WHERE r.oid = ANY (named) AND r.relkind = 'p')
$$;

-- Which command with this tag it is of a text that one client statement has executed, in a function, from 1: the text may be
-- several statements (EXECUTE), and be executed again. Its own count, since functions that are called in it run others.
CREATE OR REPLACE FUNCTION embassy.ddl_counted(said text, tag text, ended boolean) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    since text := pg_catalog.date_part('epoch', pg_catalog.statement_timestamp());
    key text := pg_catalog.md5(said || tag);
    counts jsonb := nullif(pg_catalog.current_setting('embassy.ddl_contexts', true), '')::jsonb;
    nth integer;
BEGIN
    IF counts IS NULL OR counts ->> 'since' <> since OR pg_catalog.length(counts::text) > 100000 THEN
        counts := pg_catalog.jsonb_build_object('since', since);
    END IF;
    nth := coalesce((counts ->> key)::integer, 0) + 1;
    IF ended THEN
        PERFORM pg_catalog.set_config('embassy.ddl_contexts', (counts || pg_catalog.jsonb_build_object(key, nth))::text, true);
    END IF;
    RETURN nth;
END
$$;

CREATE OR REPLACE FUNCTION embassy.ddl_capture() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lc_messages = 'C' AS $$
DECLARE
    context text;
    query text;
    how text;
    nth integer;
    query_of bigint;
    parts text[];                         -- its text means nothing abroad: what to execute, one after the other
    string jsonb;                         -- what is known of the client's query string
    string_key text;
    commands integer;
    scripted boolean;                     -- by an extension's script, which the replica runs too
    temporary boolean := false;           -- a DROP names temporary objects as well
    kept jsonb;
    named oid[];                          -- all objects that it is about
    relations oid[];
    relation oid;
    ordinal bigint;
    filled jsonb := '[]';
    stored jsonb := '[]';
    shapes jsonb := '[]';
    settings jsonb;
    released oid[] := '{}';
    detached oid[] := '{}';
    tablespace name := pg_catalog.current_setting('default_tablespace');
    role text := pg_catalog.current_setting('embassy.ddl_role');                -- now: DDL below would overwrite it
    path text := pg_catalog.current_setting('embassy.ddl_search_path');
BEGIN
    IF TG_TAG = 'ALTER PUBLICATION' THEN  -- before anyone puts it right again
        PERFORM embassy.note_gaps(d.publication) FROM embassy.ddl_publication d;
    END IF;
    IF TG_TAG ~ ' (PUBLICATION|SUBSCRIPTION)$' OR TG_TAG = 'REINDEX'
       OR EXISTS (SELECT FROM embassy.ddl_own WHERE pid = pg_catalog.pg_backend_pid())
       OR (pg_catalog.current_setting('application_name') ~ '^embassy-'
           AND EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = session_user AND rolsuper)) THEN
        RETURN;
    END IF;

    -- What was it about?
    IF TG_EVENT = 'sql_drop' THEN
        IF TG_TAG = 'DROP OWNED' THEN     -- takes what was reassigned since the stream was told of owners, too
            PERFORM embassy.say_dropped(d.object_type, d.object_identity)
            FROM pg_catalog.pg_event_trigger_dropped_objects() d
            WHERE d.original AND NOT d.is_temporary AND d.schema_name IS DISTINCT FROM 'embassy';
        END IF;
        IF TG_TAG !~ '^DROP ' OR TG_TAG = 'DROP OWNED' THEN
            RETURN;
        END IF;
        SELECT count(*), false, bool_or(d.original AND d.is_temporary),
               coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('type', d.object_type, 'identity', d.object_identity))
                        FILTER (WHERE d.original AND NOT d.is_temporary AND d.schema_name IS DISTINCT FROM 'embassy'
                                      AND d.object_identity !~ '( on |[(,])pg_temp[.]'
                                      AND (d.object_type, d.object_identity) <> ('schema', 'embassy')), '[]'),
               '{}', pg_catalog.array_agg(d.objid)
        INTO commands, scripted, temporary, kept, relations, named
        FROM pg_catalog.pg_event_trigger_dropped_objects() d;
    ELSE
        SELECT count(*), coalesce(bool_and(d.in_extension), false),
               coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('type', d.object_type, 'identity', d.object_identity))
                        FILTER (WHERE d.own IS NOT TRUE), '[]'),
               coalesce(pg_catalog.array_agg(d.objid)
                        FILTER (WHERE d.own IS NOT TRUE AND d.classid = 'pg_catalog.pg_class'::regclass), '{}'),
               pg_catalog.array_agg(d.objid)
        INTO commands, scripted, kept, relations, named
        FROM (SELECT *, in_extension OR schema_name IN ('pg_temp', 'embassy')
                        OR object_identity ~ '( on |[(,])pg_temp[.]| on embassy[.]'
                        OR classid <> 'pg_catalog.pg_class'::regclass AND embassy.needs_temporary(classid, objid)
                        OR pg_catalog.lower(object_type) IN ('large object', 'publication', 'subscription') AS own
              FROM pg_catalog.pg_event_trigger_ddl_commands()) d;
        IF scripted THEN
            RETURN;
        END IF;
    END IF;

    -- Where is its text?
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
        query_of := CASE WHEN query !~* 'PREPARE[[:space:]]+TRANSACTION' THEN (string ->> 'query_of')::bigint END;  -- may come later
        IF TG_EVENT = 'ddl_command_end' THEN
            string := pg_catalog.jsonb_set(string, ARRAY['counts', TG_TAG], pg_catalog.to_jsonb(nth));
            PERFORM pg_catalog.set_config('embassy.ddl_string', string::text, false);
        END IF;
    ELSE
        how := 'context';
        query := pg_catalog.substr(context, pg_catalog.strpos(context, E'\n') + 1);
        IF query ~ '^SQL function "' THEN     -- its context does not show the text, the catalogue does
            SELECT 'body', max(p.prosrc), (pg_catalog.regexp_match(query, '" statement ([0-9]+)'))[1]::integer
            INTO how, context, nth
            FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
            WHERE l.lanname = 'sql' AND p.proname = (pg_catalog.regexp_match(query, E'^SQL function "([^\n]*)" statement'))[1]
            HAVING count(*) = 1;
            how := coalesce(how, 'context');
            query := CASE how WHEN 'body' THEN context ELSE query END;
        ELSIF pg_catalog.strpos(query, ';') > 0 THEN
            nth := embassy.ddl_counted(query, TG_TAG, TG_EVENT = 'ddl_command_end');
        END IF;
    END IF;

    -- No command at all: IF (NOT) EXISTS had nothing to do, or it is what REFRESH … CONCURRENTLY does inside.
    IF (commands > 0 AND kept = '[]') OR (commands = 0 AND TG_TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE INDEX'))
       OR (TG_EVENT = 'ddl_command_end' AND TG_TAG ~ '^DROP ' AND TG_TAG <> 'DROP OWNED') THEN
        RETURN;
    END IF;

    -- Whose is everything? What is dropped by somebody who could not have done so as far as the stream tells was given to them.
    IF TG_EVENT = 'sql_drop' THEN
        PERFORM embassy.say_owner(d.object_type, d.object_identity, role)
        FROM pg_catalog.pg_event_trigger_dropped_objects() d JOIN embassy.ddl_owner k USING (classid, objid)
        WHERE d.original AND NOT d.is_temporary AND NOT pg_catalog.pg_has_role(role, k.owner, 'USAGE');
    END IF;
    IF TG_TAG = 'DROP OWNED' THEN         -- must not take more than it did here
        PERFORM embassy.follow_owners();
    ELSE
        BEGIN
            PERFORM embassy.sample_owners(coalesce(named, '{}')), embassy.note_owners(coalesce(named, '{}'));
        EXCEPTION WHEN serialization_failure OR deadlock_detected OR lock_not_available THEN
            NULL;                         -- home goes first; the producer will see to it
        END;
    END IF;

    -- What else does it take? Tables enter the stream; rows that the log does not show are copied.
    ordinal := pg_catalog.nextval('embassy.ddl_ordinal');
    IF temporary THEN
        SELECT 'statement', NULL, pg_catalog.format('%s %s CASCADE', TG_TAG,
                                                    pg_catalog.string_agg(k.object ->> 'identity', ', '))
        INTO how, query_of, query
        FROM pg_catalog.jsonb_array_elements(kept) k (object);
    ELSIF TG_TAG IN ('CREATE TABLE AS', 'SELECT INTO') THEN
        IF commands = 0 THEN
            RETURN;                       -- IF NOT EXISTS, and it does
        END IF;
        how := 'statement';
        query := embassy.empty_like(relations[1]);
        query_of := NULL;
        IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = relations[1] AND relpersistence = 'p') THEN
            filled := pg_catalog.jsonb_build_array(embassy.store_rows(ordinal, relations[1]));
        END IF;
    ELSIF TG_TAG = 'CREATE TABLE' AND embassy.is_like_temporary(query) THEN
        parts := (SELECT embassy.made_like(c.oid) FROM pg_catalog.pg_class c
                  WHERE c.oid = ANY (relations) AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.reloftype = 0);
        IF parts IS NOT NULL THEN         -- what is a partition, or of a type, is like nothing: another one in the string is
            how := 'statement';
            query := parts[pg_catalog.cardinality(parts)];
            query_of := NULL;
        END IF;
    ELSIF TG_TAG = 'CREATE INDEX' AND how = 'string' AND query ~* E'\\mCONCURRENTLY\\M'
          AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relations[1] AND c.relkind = 'i') THEN
        how := 'statement';               -- the table's lock is gone: it and its columns may have other names by now
        query_of := NULL;
        SELECT pg_catalog.pg_get_indexdef(c.oid), coalesce(t.spcname, '')
        INTO query, tablespace
        FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace WHERE c.oid = relations[1];
    ELSIF TG_TAG IN ('ALTER TABLE', 'ALTER TYPE') THEN
        SELECT coalesce(pg_catalog.jsonb_agg(embassy.store_rows(ordinal, r.relation)), '[]')
        INTO filled FROM embassy.ddl_rewritten(query) r (relation);
        SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                   'table', t.relation::regclass::text, 'column', m.name, 'value', m.value)), '[]')
        INTO stored
        FROM embassy.ddl_tables(relations) t (relation), embassy.missing_values(t.relation) m;
        detached := ARRAY(SELECT d.relation FROM embassy.ddl_detached(relations) d (relation));
        FOR relation IN SELECT r.relation FROM embassy.ddl_rewritten(query) r (relation)
                        WHERE NOT embassy.is_published(r.relation)
                        UNION SELECT pg_catalog.unnest(detached)
                        UNION SELECT t.relation FROM embassy.ddl_tables(relations) t (relation)
                        WHERE embassy.is_published(t.relation)
                          AND (embassy.lacks_identity(t.relation) OR embassy.breaks_updates(t.relation)) LOOP
            PERFORM embassy.publish(relation);
        END LOOP;
        FOR relation IN SELECT r.relation FROM embassy.ddl_released(relations) r (relation) LOOP
            PERFORM embassy.publish(relation);
            released := released || relation;
        END LOOP;
        PERFORM pg_catalog.set_config('embassy.ddl_rewritten', '', true);
    ELSIF TG_EVENT = 'sql_drop' THEN
        FOR relation IN SELECT c.oid FROM pg_catalog.pg_class c
                        WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f'
                          AND embassy.lacks_identity(c.oid) AND embassy.is_published(c.oid) LOOP
            PERFORM embassy.publish(relation);
        END LOOP;
    END IF;
    IF TG_TAG ~ '^CREATE (TABLE|SCHEMA)' OR TG_TAG = 'SELECT INTO' THEN
        FOR relation IN SELECT c.oid FROM pg_catalog.pg_class c
                        WHERE c.oid = ANY (relations) AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' LOOP
            PERFORM embassy.publish(relation);
        END LOOP;
    END IF;
    IF TG_EVENT = 'ddl_command_end' AND pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT') THEN
        PERFORM embassy.watch_table(u.relation) FROM embassy.unwatched_tables(
            ARRAY(SELECT t.relation FROM embassy.ddl_tables(relations) t (relation))) u (relation);
    END IF;
    SELECT coalesce(pg_catalog.jsonb_agg(embassy.table_shape(t.relation)), '[]')
    INTO shapes FROM embassy.ddl_tables(relations || detached) t (relation);
    BEGIN
        PERFORM embassy.follow_copies();
    EXCEPTION WHEN serialization_failure OR deadlock_detected OR lock_not_available THEN
        NULL;                             -- home goes first; the producer will see to it
    END;

    settings := (
        SELECT pg_catalog.jsonb_object_agg(s.name, s.setting) FROM pg_catalog.pg_settings s
        WHERE s.name = ANY ('{TimeZone,DateStyle,IntervalStyle,check_function_bodies,default_tablespace,
            default_table_access_method,default_toast_compression,standard_conforming_strings,xmloption,array_nulls,
            transform_null_equals,default_text_search_config,lc_monetary,extra_float_digits,bytea_output,xmlbinary}'))
        || pg_catalog.jsonb_build_object('search_path', path, 'default_tablespace', tablespace);
    -- What the replica has of a table that was withheld is old: it could be at odds with the key, and its copy follows.
    INSERT INTO embassy.ddl
    SELECT pg_catalog.nextval('embassy.ddl_ordinal'), pg_catalog.clock_timestamp(), 'DELETE', role, settings, 'statement',
           pg_catalog.format('DELETE FROM ONLY %s', r.relation::regclass), NULL, NULL,
           pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object('type', 'table', 'identity', r.relation::regclass::text)),
           '[]', '[]', '[]'
    FROM pg_catalog.unnest(released) r (relation);
    INSERT INTO embassy.ddl
    SELECT pg_catalog.nextval('embassy.ddl_ordinal'), pg_catalog.clock_timestamp(), TG_TAG, role, settings, how, p.text, NULL,
           NULL, kept, '[]', '[]', '[]'
    FROM pg_catalog.unnest(pg_catalog.trim_array(parts, 1)) WITH ORDINALITY p (text, place) ORDER BY p.place;
    INSERT INTO embassy.ddl
    VALUES (ordinal, pg_catalog.clock_timestamp(), TG_TAG, role, settings, how, CASE WHEN query_of IS NULL THEN query END, query_of, nth, kept, filled, stored, shapes);
    IF how = 'string' AND query_of IS NULL THEN
        string := pg_catalog.jsonb_set(string, '{query_of}', pg_catalog.to_jsonb(ordinal));
        PERFORM pg_catalog.set_config('embassy.ddl_string', string::text, false);
    END IF;
END
$$;

-- Empties what has been copied for the stream once nobody is writing there: the log has it.
CREATE OR REPLACE FUNCTION embassy.clear_ddl_rows() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM embassy.ddl_rows) THEN
        LOCK TABLE embassy.ddl_rows IN ACCESS EXCLUSIVE MODE NOWAIT;
        TRUNCATE embassy.ddl_rows;
    END IF;
EXCEPTION WHEN lock_not_available THEN
    NULL;                                 -- a transaction is writing there; there will be another time
END
$$;

REVOKE ALL ON FUNCTION embassy.has_key(oid), embassy.lacks_identity(oid), embassy.breaks_updates(oid), embassy.is_published(oid),
    embassy.is_withheld(oid), embassy.withhold(oid), embassy.ddl_released(oid[]), embassy.publish(oid),
    embassy.store_rows(bigint, oid), embassy.ddl_rewritten(text), embassy.ddl_tables(oid[]), embassy.ddl_detached(oid[]),
    embassy.ddl_counted(text, text, boolean), embassy.ddl_session(), embassy.ddl_rewrite(), embassy.ddl_capture(),
    embassy.clear_ddl_rows() FROM PUBLIC;
