-- What changes in large objects, put into the stream. Run by an administrator at home who may read pg_largeobject (a superuser
-- may), after shared_large_objects.sql; may be run again at any time.
--
-- Two ways lead there. A transaction that writes a row with the number of an object takes along, as it commits, what it wrote in
-- that object (the triggers below). Everything else a look finds (look_for_large_objects, carry_large_objects): pages tell by
-- their xmin that they are new, so a look needs to remember only below which transaction it has seen everything.
--
-- Whoever carries keeps a lock on embassy.large_object_turn from before it reads until it has committed: transactions that carry
-- what they wrote share it, what a look has found is carried alone. So what was read later commits later, and no older page
-- comes after a newer one.

CREATE SEQUENCE IF NOT EXISTS embassy.large_object_ordinal;

-- Objects that a replica may have, and whether they have a comment there. Not published, nor is what follows.
CREATE TABLE IF NOT EXISTS embassy.large_object_known (
    loid oid PRIMARY KEY,
    commented boolean NOT NULL
);

-- What the newest look of each stream has seen.
CREATE TABLE IF NOT EXISTS embassy.large_object_look (
    stream bytea PRIMARY KEY,
    seen_below bigint NOT NULL,           -- every transaction with a lower number (of 64 bits) had ended
    looked_at timestamptz NOT NULL        -- taken before
);

-- What was found and is still to be carried.
CREATE TABLE IF NOT EXISTS embassy.large_object_due (
    loid oid PRIMARY KEY,
    standing boolean NOT NULL,            -- owner, rights and comment too
    from_page integer,                    -- not NULL: from here on pages may be gone
    pages int4multirange NOT NULL
);

-- Versions of pages and objects that are carried already although the next look will find them new: it leaves them out.
CREATE TABLE IF NOT EXISTS embassy.large_object_note (
    loid oid NOT NULL,
    newest bigint NOT NULL,               -- transaction; superfluous once a look has seen everything up to it
    file oid NOT NULL,                    -- pg_largeobject's: places are other ones in another file
    places tid[] NOT NULL,
    xids xid[] NOT NULL,
    standing_place tid,
    standing_xid xid
);

-- Objects whose pages are to be carried once more from a page on: who told of them may not have seen the pages of others.
CREATE TABLE IF NOT EXISTS embassy.large_object_doubt (
    loid oid NOT NULL,
    from_page integer NOT NULL
);

-- Objects that are to come once more, all between two numbers, because a replica was found to have others there.
CREATE TABLE IF NOT EXISTS embassy.large_object_wish (
    wish bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    first oid NOT NULL,
    last oid NOT NULL,
    reason text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    requested_by text NOT NULL DEFAULT session_user
);

-- Never has a row, so that no vacuum takes a lock on it: it is there to be locked.
CREATE TABLE IF NOT EXISTS embassy.large_object_turn ();

-- Rows are deleted as soon as they are written; what remains is the trigger that fires for each as the transaction commits.
CREATE UNLOGGED TABLE IF NOT EXISTS embassy.large_object_pending (
    loids oid[] NOT NULL
);

-- How many versions of pages (pg_largeobject, 2613) and objects (pg_largeobject_metadata, 2995) this session has written in this
-- transaction, or in one before that statistics do not show yet. NULL: not counted. Of a form that is inlined.
CREATE OR REPLACE FUNCTION embassy.large_object_writes() RETURNS bigint
LANGUAGE sql AS $$
    SELECT CASE WHEN pg_catalog.current_setting('track_counts')::boolean
        THEN pg_catalog.pg_stat_get_xact_tuples_inserted(2613) + pg_catalog.pg_stat_get_xact_tuples_updated(2613)
            + pg_catalog.pg_stat_get_xact_tuples_deleted(2613) + pg_catalog.pg_stat_get_xact_tuples_inserted(2995)
            + pg_catalog.pg_stat_get_xact_tuples_updated(2995) + pg_catalog.pg_stat_get_xact_tuples_deleted(2995) END
$$;

CREATE OR REPLACE FUNCTION embassy.large_object_standing(loid oid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT pg_catalog.jsonb_build_object(
        'owner', pg_catalog.pg_get_userbyid(m.lomowner),
        'rights', (
            SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                'role', CASE WHEN a.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END,
                'may', a.privilege_type, 'may_grant', a.is_grantable)), '[]')
            FROM pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) a),
        'comment', pg_catalog.obj_description(m.oid, 'pg_largeobject'))
    FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = large_object_standing.loid
$$;

CREATE OR REPLACE FUNCTION embassy.large_object_pages(loid oid, from_page integer) RETURNS int4multirange
LANGUAGE sql STABLE AS $$
    SELECT coalesce(pg_catalog.range_agg(pg_catalog.int4range(p.pageno, p.pageno, '[]')), '{}')
    FROM pg_catalog.pg_largeobject p WHERE p.loid = $1 AND p.pageno >= $2
$$;

-- The columns of a table that may refer to large objects: oid, lo, and other domains of oid. Of a form that is inlined.
CREATE OR REPLACE FUNCTION embassy.large_object_columns(relation oid) RETURNS SETOF name
LANGUAGE sql STABLE AS $$
    SELECT a.attname FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
      AND 'pg_catalog.oid'::regtype IN (t.oid, t.typbasetype, b.typbasetype)
$$;

-- ---------------------------------------------------------------------- with the transaction that writes a row

-- After each statement: which objects do its rows refer to? Nothing is asked before the transaction has written one, in which
-- case PostgreSQL's own count says so at once. Of more than a million rows, a million are asked.
CREATE OR REPLACE FUNCTION embassy.large_objects_of_rows() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    columns text;
    found oid[];
    place tid;
BEGIN
    IF embassy.large_object_writes() = 0 THEN
        RETURN NULL;
    END IF;
    SELECT pg_catalog.string_agg(pg_catalog.format('r.%I::oid', c.name), ', ')
    INTO columns FROM embassy.large_object_columns(TG_RELID) c (name);
    IF columns IS NOT NULL THEN
        EXECUTE 'SELECT pg_catalog.array_agg(DISTINCT v.v) FROM (SELECT pg_catalog.unnest(ARRAY[' || columns
            || ']) FROM embassy_rows r LIMIT 1000000) v (v) WHERE v.v <> 0' INTO found;
        IF found IS NOT NULL THEN
            INSERT INTO embassy.large_object_pending VALUES (found) RETURNING ctid INTO place;
            DELETE FROM embassy.large_object_pending WHERE ctid = place;
        END IF;
    END IF;
    RETURN NULL;
END
$$;

-- The 64 bits of a transaction's number if it is this transaction or a subtransaction of it, else NULL. What is newer than this
-- transaction and visible to it is asked for; what only looks newer, because numbers have come round, is an error to ask for.
CREATE OR REPLACE FUNCTION embassy.own_transaction(xid xid) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine bigint := pg_catalog.pg_current_xact_id()::text::bigint;
    asked bigint := mine + ((xid::text::bigint - mine) & 4294967295);
BEGIN
    RETURN CASE WHEN pg_catalog.pg_xact_status(asked::text::xid8) = 'in progress' THEN asked END;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN NULL;
END
$$;

-- Put an object into the stream, and of the pages listed as many as may be.
CREATE OR REPLACE FUNCTION embassy.say_large_object(
    loid oid, standing boolean, from_page integer, pages int4multirange, most bigint, OUT said bigint, OUT last_page integer
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    places tid[];
    place tid;
BEGIN
    INSERT INTO embassy.large_object_change (ordinal, loid, what, standing, page, pages, page_bytes)
    VALUES (pg_catalog.nextval('embassy.large_object_ordinal'), say_large_object.loid, 'object',
            CASE WHEN say_large_object.standing THEN embassy.large_object_standing(say_large_object.loid) END, say_large_object.from_page,
            CASE WHEN say_large_object.from_page IS NOT NULL
                 THEN embassy.large_object_pages(say_large_object.loid, say_large_object.from_page) END,
            pg_catalog.current_setting('block_size')::integer / 4)
    RETURNING ctid INTO place;
    WITH written AS (
        INSERT INTO embassy.large_object_change (ordinal, loid, what, page, data)
        SELECT pg_catalog.nextval('embassy.large_object_ordinal'), p.loid, 'page', p.pageno, p.data
        FROM (SELECT l.loid, l.pageno, l.data FROM pg_catalog.pg_largeobject l
              WHERE l.loid = say_large_object.loid AND say_large_object.pages @> l.pageno
                AND l.pageno >= pg_catalog.lower(say_large_object.pages)
              ORDER BY l.pageno LIMIT say_large_object.most) p
        RETURNING ctid, page
    )
    SELECT count(*), max(w.page), pg_catalog.array_agg(w.ctid) INTO said, last_page, places FROM written w;
    DELETE FROM embassy.large_object_change WHERE ctid = ANY (pg_catalog.array_append(places, place));
END
$$;

-- As the transaction commits: what has it written in these objects?
CREATE OR REPLACE FUNCTION embassy.capture_large_objects() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = 0 SET enable_seqscan = off
    SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    writes bigint := embassy.large_object_writes();
    pages_deleted bigint := pg_catalog.pg_stat_get_xact_tuples_deleted(2613);
    objects_altered bigint := pg_catalog.pg_stat_get_xact_tuples_updated(2995);
    mine xid[];
    newest bigint;
    captured text[];                      -- this transaction, what it had written, and the objects captured since
    object record;
    pages int4multirange;
    created boolean;
    shrunk boolean;
    first integer;
BEGIN
    IF writes = 0 OR NOT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT') THEN
        RETURN NULL;
    END IF;
    SELECT pg_catalog.array_agg(x.xid), max(x.own) INTO mine, newest FROM (
        SELECT y.xid, embassy.own_transaction(y.xid) AS own FROM (
            SELECT p.xmin AS xid FROM pg_catalog.pg_largeobject p
            WHERE p.loid = ANY (NEW.loids) AND pg_catalog.age(p.xmin) <= 0
            UNION SELECT m.xmin FROM pg_catalog.pg_largeobject_metadata m
            WHERE m.oid = ANY (NEW.loids) AND pg_catalog.age(m.xmin) <= 0) y
    ) x WHERE x.own IS NOT NULL;
    IF mine IS NULL THEN
        RETURN NULL;
    END IF;
    LOCK TABLE embassy.large_object_turn IN ROW EXCLUSIVE MODE;
    captured := pg_catalog.string_to_array(pg_catalog.current_setting('embassy.large_objects_captured', true), ' ');
    IF writes IS NULL OR pg_catalog.cardinality(captured) > 100
       OR captured[1] IS DISTINCT FROM pg_catalog.pg_current_xact_id() || '/' || writes THEN
        captured := ARRAY[pg_catalog.pg_current_xact_id() || '/' || coalesce(writes, -1)];
    END IF;
    FOR object IN
        SELECT m.oid AS loid, m.xmin = ANY (mine) AS own, m.ctid AS place, m.xmin AS xid
        FROM pg_catalog.pg_largeobject_metadata m
        WHERE m.oid = ANY (NEW.loids) AND m.oid::text <> ALL (captured) AND (m.xmin = ANY (mine)
           OR EXISTS (SELECT FROM pg_catalog.pg_largeobject p WHERE p.loid = m.oid AND p.xmin = ANY (mine)))
    LOOP
        SELECT coalesce(pg_catalog.range_agg(pg_catalog.int4range(p.pageno, p.pageno, '[]')), '{}') INTO pages
        FROM pg_catalog.pg_largeobject p WHERE p.loid = object.loid AND p.xmin = ANY (mine);
        created := object.own AND writes IS NOT NULL AND objects_altered = 0;
        -- Where pages may have gone, others may have been writing such as this transaction does not see.
        shrunk := writes IS NULL OR pages_deleted <> 0 OR (object.own AND NOT created);
        first := CASE WHEN object.own THEN 0 ELSE pg_catalog.lower(pages) END;
        PERFORM embassy.say_large_object(object.loid, object.own, CASE WHEN created OR shrunk THEN first END, pages, NULL);
        INSERT INTO embassy.large_object_note
        SELECT object.loid, newest, pg_catalog.pg_relation_filenode('pg_catalog.pg_largeobject'),
               coalesce(pg_catalog.array_agg(p.ctid), '{}'), coalesce(pg_catalog.array_agg(p.xmin), '{}'),
               CASE WHEN object.own THEN object.place END, CASE WHEN object.own THEN object.xid END
        FROM pg_catalog.pg_largeobject p WHERE p.loid = object.loid AND p.xmin = ANY (mine);
        IF shrunk THEN
            INSERT INTO embassy.large_object_doubt VALUES (object.loid, first);
        END IF;
        captured := captured || object.loid::text;
    END LOOP;
    PERFORM pg_catalog.set_config('embassy.large_objects_captured', pg_catalog.array_to_string(captured, ' '), true);
    RETURN NULL;
END
$$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 'embassy.large_object_pending'::regclass
                                                       AND tgname = 'capture_large_objects') THEN
        CREATE CONSTRAINT TRIGGER capture_large_objects AFTER INSERT ON embassy.large_object_pending
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION embassy.capture_large_objects();
        ALTER TABLE embassy.large_object_pending ENABLE ALWAYS TRIGGER capture_large_objects;
    END IF;
END
$$;

-- Tables that may refer to large objects and do not take them along.
CREATE OR REPLACE FUNCTION embassy.unwatched_tables(among oid[] DEFAULT NULL) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE (among IS NULL OR c.oid = ANY (among))
      AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('information_schema', 'embassy')
      AND n.nspname !~ '^pg_' AND EXISTS (SELECT FROM embassy.large_object_columns(c.oid))
      AND (SELECT count(*) FROM pg_catalog.pg_trigger t
           WHERE t.tgrelid = c.oid AND t.tgfoid = 'embassy.large_objects_of_rows()'::regprocedure AND t.tgenabled = 'A') < 2
    ORDER BY n.nspname, c.relname
$$;

CREATE OR REPLACE FUNCTION embassy.watch_table(relation oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    event text;
BEGIN
    INSERT INTO embassy.ddl_own VALUES (pg_catalog.pg_backend_pid());
    FOREACH event IN ARRAY ARRAY['insert', 'update'] LOOP
        EXECUTE pg_catalog.format(
            'CREATE OR REPLACE TRIGGER %1$I AFTER %2$s ON %3$s REFERENCING NEW TABLE AS embassy_rows FOR EACH STATEMENT'
            ' EXECUTE FUNCTION embassy.large_objects_of_rows()', 'embassy_large_objects_' || event, event, relation::regclass);
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation::regclass, 'embassy_large_objects_' || event);
    END LOOP;
    DELETE FROM embassy.ddl_own WHERE pid = pg_catalog.pg_backend_pid();
END
$$;

-- ---------------------------------------------------------------------- whatever no row tells of

-- Note what is new since the stream's look before: all there is, if there was none. Returns how many objects are to be carried.
CREATE OR REPLACE FUNCTION embassy.look_for_large_objects(stream bytea) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    began timestamptz := pg_catalog.clock_timestamp();
    snapshot pg_snapshot;
    present oid := pg_catalog.pg_relation_filenode('pg_catalog.pg_largeobject');
    seen bigint;                          -- below, everything was seen
    below bigint;                         -- below, everything will have been
    span bigint;                          -- how many transactions are new
    seen_age bigint;
    below_age bigint;
    found bigint;
BEGIN
    LOCK TABLE embassy.large_object_turn IN SHARE UPDATE EXCLUSIVE MODE;     -- one look at a time
    snapshot := pg_catalog.pg_current_snapshot();
    below := pg_catalog.pg_snapshot_xmin(snapshot)::text::bigint;
    SELECT l.seen_below INTO seen FROM embassy.large_object_look l WHERE l.stream = look_for_large_objects.stream;
    span := pg_catalog.pg_snapshot_xmax(snapshot)::text::bigint - seen;
    IF span IS NULL OR span < 0 OR span >= 4294967296 THEN   -- never, or in another database's time
        span := 4294967296;
        seen := below;
    END IF;
    -- Ages are differences of 32 bits, counted from one number: what lies between two of them is right, whatever came round.
    seen_age := pg_catalog.age((seen % 4294967296)::text::xid);
    below_age := pg_catalog.age((below % 4294967296)::text::xid);

    INSERT INTO embassy.large_object_known
    SELECT DISTINCT n.loid, pg_catalog.obj_description(n.loid, 'pg_largeobject') IS NOT NULL FROM embassy.large_object_note n
    ON CONFLICT DO NOTHING;
    WITH noted AS MATERIALIZED (
        SELECT n.loid, v.place, v.xid
        FROM embassy.large_object_note n, unnest(n.places, n.xids) v (place, xid) WHERE n.file = present
    ), pages AS MATERIALIZED (
        SELECT f.* FROM (
            SELECT p.loid, p.pageno, p.ctid AS place, p.xmin AS xid, (below_age - pg_catalog.age(p.xmin)) & 4294967295 AS later
            FROM pg_catalog.pg_largeobject p WHERE ((seen_age - pg_catalog.age(p.xmin)) & 4294967295) < span
        ) f WHERE NOT EXISTS (SELECT FROM noted n WHERE n.place = f.place AND n.xid = f.xid AND n.loid = f.loid)
    ), objects AS MATERIALIZED (
        SELECT m.oid AS loid, m.ctid AS place, m.xmin AS xid, (below_age - pg_catalog.age(m.xmin)) & 4294967295 AS later
        FROM pg_catalog.pg_largeobject_metadata m
        WHERE ((seen_age - pg_catalog.age(m.xmin)) & 4294967295) < span AND NOT EXISTS (
            SELECT FROM embassy.large_object_note n
            WHERE n.loid = m.oid AND n.standing_place = m.ctid AND n.standing_xid = m.xmin)
    ), doubts AS (
        DELETE FROM embassy.large_object_doubt RETURNING loid, from_page
    ), remembered AS (
        INSERT INTO embassy.large_object_note
        SELECT p.loid, below + max(p.later), present, pg_catalog.array_agg(p.place), pg_catalog.array_agg(p.xid), NULL, NULL
        FROM pages p WHERE p.later < 2147483648 GROUP BY p.loid
        UNION ALL
        SELECT o.loid, below + o.later, present, '{}', '{}', o.place, o.xid FROM objects o WHERE o.later < 2147483648
    )
    INSERT INTO embassy.large_object_due AS d
    SELECT n.loid, bool_or(n.standing), min(n.from_page), coalesce(pg_catalog.range_agg(n.pages), '{}') FROM (
        SELECT p.loid, false, p.pageno, pg_catalog.int4range(p.pageno, p.pageno, '[]') FROM pages p
        UNION ALL SELECT o.loid, true, 0, NULL FROM objects o
        UNION ALL SELECT b.loid, false, b.from_page, pg_catalog.int4range(b.from_page, NULL) FROM doubts b
        UNION ALL SELECT c.objoid, true, NULL, NULL FROM pg_catalog.pg_description c
            WHERE c.classoid = 'pg_catalog.pg_largeobject'::regclass
              AND ((seen_age - pg_catalog.age(c.xmin)) & 4294967295) < span
        UNION ALL SELECT k.loid, true, NULL, NULL FROM embassy.large_object_known k
            WHERE k.commented AND pg_catalog.obj_description(k.loid, 'pg_largeobject') IS NULL
        UNION ALL SELECT k.loid, true, NULL, NULL FROM embassy.large_object_known k
            WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = k.loid)
    ) n (loid, standing, from_page, pages) GROUP BY n.loid
    ON CONFLICT (loid) DO UPDATE
        SET standing = d.standing OR excluded.standing, from_page = least(d.from_page, excluded.from_page),
            pages = d.pages + excluded.pages;
    DELETE FROM embassy.large_object_note n WHERE n.newest < below;
    INSERT INTO embassy.large_object_look AS l VALUES (stream, below, began)
    ON CONFLICT ON CONSTRAINT large_object_look_pkey DO UPDATE SET seen_below = excluded.seen_below, looked_at = excluded.looked_at;
    SELECT (SELECT count(*) FROM embassy.large_object_due) + (SELECT count(*) FROM embassy.large_object_wish) INTO found;
    PERFORM embassy.say_large_object_state(stream, found);
    RETURN found;
END
$$;

-- Tell how far the stream is.
CREATE OR REPLACE FUNCTION embassy.say_large_object_state(stream bytea, behind bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO embassy.large_object_state AS s (stream, as_of, behind)
    SELECT l.stream, CASE $2 WHEN 0 THEN l.looked_at END, $2 FROM embassy.large_object_look l WHERE l.stream = $1
    ON CONFLICT (stream) DO UPDATE SET as_of = coalesce(excluded.as_of, s.as_of), behind = excluded.behind
$$;

-- Ask for all objects between two numbers once more. Returns when that was: what the stream is as of later has them.
CREATE OR REPLACE FUNCTION embassy.request_large_objects(first oid, last oid, reason text DEFAULT '') RETURNS timestamptz
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO embassy.large_object_wish (first, last, reason) VALUES ($1, $2, $3) RETURNING requested_at
$$;

-- Say which objects there are where they were asked for, so that a replica has no others, and have all of them carried. Whoever
-- calls this holds the lock alone: an object that is made meanwhile comes later in the stream.
CREATE OR REPLACE FUNCTION embassy.say_large_objects_wished() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wished embassy.large_object_wish;
    place tid;
BEGIN
    FOR wished IN DELETE FROM embassy.large_object_wish RETURNING * LOOP
        INSERT INTO embassy.large_object_change (ordinal, loid, what, standing)
        SELECT pg_catalog.nextval('embassy.large_object_ordinal'), wished.first, 'objects', pg_catalog.jsonb_build_object(
            'last', wished.last::bigint,
            'there', coalesce(pg_catalog.range_agg(pg_catalog.int8range(m.oid::bigint, m.oid::bigint, '[]')), '{}')::text)
        FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid BETWEEN wished.first AND wished.last
        RETURNING ctid INTO place;
        DELETE FROM embassy.large_object_change WHERE ctid = place;
        INSERT INTO embassy.large_object_due AS d
        SELECT m.oid, true, 0, '{[0,)}' FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid BETWEEN wished.first AND wished.last
        ON CONFLICT (loid) DO UPDATE SET standing = true, from_page = 0, pages = excluded.pages;
    END LOOP;
END
$$;

-- Carry what was found, up to so many pages, in this transaction; an object that has no more is carried whole. Returns how many
-- objects are left. Who holds the lock at home is waited for a moment only.
CREATE OR REPLACE FUNCTION embassy.carry_large_objects(stream bytea, most bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' SET enable_seqscan = off
    SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    room bigint := most;
    due embassy.large_object_due;
    due_pages bigint;
    told record;
    behind bigint;
    place tid;
BEGIN
    IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'what is carried must be read once the lock is held: READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    LOCK TABLE embassy.large_object_turn IN SHARE ROW EXCLUSIVE MODE;
    PERFORM embassy.say_large_objects_wished();
    FOR due IN SELECT * FROM embassy.large_object_due ORDER BY loid LIMIT most LOOP
        EXIT WHEN room <= 0;
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = due.loid) THEN
            INSERT INTO embassy.large_object_change (ordinal, loid, what)
            VALUES (pg_catalog.nextval('embassy.large_object_ordinal'), due.loid, 'gone') RETURNING ctid INTO place;
            DELETE FROM embassy.large_object_change WHERE ctid = place;
            DELETE FROM embassy.large_object_known k WHERE k.loid = due.loid;
            DELETE FROM embassy.large_object_note n WHERE n.loid = due.loid;
            DELETE FROM embassy.large_object_due d WHERE d.loid = due.loid;
            room := room - 1;
            CONTINUE;
        END IF;
        SELECT count(*) INTO due_pages FROM (
            SELECT FROM pg_catalog.pg_largeobject l
            WHERE l.loid = due.loid AND due.pages @> l.pageno AND l.pageno >= pg_catalog.lower(due.pages) LIMIT most + 1) x;
        EXIT WHEN due_pages > room AND room < most AND due_pages <= most;
        told := embassy.say_large_object(due.loid, due.standing, due.from_page, due.pages, room);
        INSERT INTO embassy.large_object_known AS k
        VALUES (due.loid, pg_catalog.obj_description(due.loid, 'pg_largeobject') IS NOT NULL)
        ON CONFLICT (loid) DO UPDATE SET commented = excluded.commented WHERE k.commented <> excluded.commented AND due.standing;
        IF due_pages > told.said THEN
            UPDATE embassy.large_object_due d
            SET standing = false, from_page = NULL, pages = d.pages * pg_catalog.int4range(told.last_page + 1, NULL)::int4multirange
            WHERE d.loid = due.loid;
        ELSE
            DELETE FROM embassy.large_object_due d WHERE d.loid = due.loid;
        END IF;
        room := room - told.said - 1;
    END LOOP;
    SELECT count(*) INTO behind FROM embassy.large_object_due;
    PERFORM embassy.say_large_object_state(stream, behind);
    RETURN behind;
END
$$;

-- ---------------------------------------------------------------------- what the stream has not brought yet

-- Versions count as new here as they do for a look: in the snapshot of whoever asks, which has what the newest look has seen, what
-- was carried, and what is due. So what is not new is in the stream before anything that this snapshot does not see.

-- By which ages a stream's look tells what is new.
CREATE OR REPLACE FUNCTION embassy.large_object_horizon(stream bytea, OUT seen_age bigint, OUT span bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_catalog.age((coalesce(n.seen, n.xmin) % 4294967296)::text::xid),
           CASE WHEN n.xmax - n.seen BETWEEN 0 AND 4294967295 THEN n.xmax - n.seen ELSE 4294967296 END
    FROM (SELECT (SELECT l.seen_below FROM embassy.large_object_look l WHERE l.stream = $1) AS seen,
                 pg_catalog.pg_snapshot_xmin(s.s)::text::bigint AS xmin, pg_catalog.pg_snapshot_xmax(s.s)::text::bigint AS xmax
          FROM pg_catalog.pg_current_snapshot() s (s)) n
$$;

-- Objects between two numbers that a replica may have, and which are not there any more.
CREATE OR REPLACE FUNCTION embassy.large_objects_gone(after_loid oid, until_loid oid) RETURNS SETOF oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.loid FROM (SELECT k.loid FROM embassy.large_object_known k UNION SELECT n.loid FROM embassy.large_object_note n) k
    WHERE k.loid BETWEEN $1 AND $2 AND NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = k.loid)
$$;

-- Objects of which pages between two places are new, and from which page on. Behind a new page there may be others that are gone
-- here and still to be taken away: so the page before the first place counts, too.
CREATE OR REPLACE FUNCTION embassy.large_object_pages_behind(
    stream bytea, after_loid oid, after_page integer, until_loid oid, until_page integer
) RETURNS TABLE (loid oid, from_page integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH horizon AS MATERIALIZED (
        SELECT * FROM embassy.large_object_horizon($1)
    ), candidates AS (
        SELECT p.loid, p.pageno, p.ctid AS place, p.xmin AS xid FROM pg_catalog.pg_largeobject p
        WHERE (p.loid, p.pageno) > ($2, $3) AND (p.loid, p.pageno) <= ($4, $5)
        UNION ALL
        (SELECT p.loid, p.pageno, p.ctid, p.xmin FROM pg_catalog.pg_largeobject p
         WHERE p.loid = $2 AND p.pageno <= $3 ORDER BY p.pageno DESC LIMIT 1)
    ), pages AS MATERIALIZED (
        SELECT c.* FROM candidates c, horizon h WHERE ((h.seen_age - pg_catalog.age(c.xid)) & 4294967295) < h.span
    )
    SELECT b.loid, min(b.from_page) FROM (
        SELECT p.loid, p.pageno FROM pages p WHERE NOT EXISTS (
            SELECT FROM embassy.large_object_note n, unnest(n.places, n.xids) v (place, xid)
            WHERE n.loid = p.loid AND n.file = pg_catalog.pg_relation_filenode('pg_catalog.pg_largeobject')
              AND v.place = p.place AND v.xid = p.xid)
        UNION ALL SELECT m.oid, 0 FROM pg_catalog.pg_largeobject_metadata m, horizon h
            WHERE m.oid BETWEEN $2 AND $4 AND ((h.seen_age - pg_catalog.age(m.xmin)) & 4294967295) < h.span AND NOT EXISTS (
                SELECT FROM embassy.large_object_note n
                WHERE n.loid = m.oid AND n.standing_place = m.ctid AND n.standing_xid = m.xmin)
        UNION ALL SELECT d.loid, d.from_page FROM embassy.large_object_doubt d WHERE d.loid BETWEEN $2 AND $4
        UNION ALL SELECT d.loid, least(d.from_page, pg_catalog.lower(d.pages)) FROM embassy.large_object_due d
            WHERE d.loid BETWEEN $2 AND $4
        UNION ALL SELECT g.loid, 0 FROM embassy.large_objects_gone($2, $4) g (loid)
    ) b (loid, from_page) WHERE b.from_page IS NOT NULL GROUP BY b.loid
$$;

-- Objects between two numbers whose owner, rights or comment are new, or which are new or gone.
CREATE OR REPLACE FUNCTION embassy.large_objects_behind(stream bytea, after_loid oid, until_loid oid) RETURNS SETOF oid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    WITH horizon AS MATERIALIZED (
        SELECT * FROM embassy.large_object_horizon($1)
    )
    SELECT m.oid FROM pg_catalog.pg_largeobject_metadata m, horizon h
        WHERE m.oid BETWEEN $2 AND $3 AND ((h.seen_age - pg_catalog.age(m.xmin)) & 4294967295) < h.span AND NOT EXISTS (
            SELECT FROM embassy.large_object_note n
            WHERE n.loid = m.oid AND n.standing_place = m.ctid AND n.standing_xid = m.xmin)
    UNION SELECT c.objoid FROM pg_catalog.pg_description c, horizon h
        WHERE c.classoid = 'pg_catalog.pg_largeobject'::regclass AND c.objoid BETWEEN $2 AND $3
          AND ((h.seen_age - pg_catalog.age(c.xmin)) & 4294967295) < h.span
    UNION SELECT k.loid FROM embassy.large_object_known k
        WHERE k.loid BETWEEN $2 AND $3 AND k.commented AND pg_catalog.obj_description(k.loid, 'pg_largeobject') IS NULL
    UNION SELECT d.loid FROM embassy.large_object_due d WHERE d.loid BETWEEN $2 AND $3 AND d.standing
    UNION SELECT g.loid FROM embassy.large_objects_gone($2, $3) g (loid)
$$;

REVOKE ALL ON embassy.large_object_change, embassy.large_object_known, embassy.large_object_look, embassy.large_object_due,
    embassy.large_object_note, embassy.large_object_doubt, embassy.large_object_turn, embassy.large_object_pending,
    embassy.large_object_wish FROM PUBLIC;
REVOKE ALL ON FUNCTION embassy.large_object_writes(), embassy.large_object_standing(oid), embassy.large_object_pages(oid, integer),
    embassy.large_object_columns(oid), embassy.large_objects_of_rows(), embassy.own_transaction(xid),
    embassy.say_large_object(oid, boolean, integer, int4multirange, bigint), embassy.capture_large_objects(),
    embassy.unwatched_tables(oid[]), embassy.watch_table(oid), embassy.look_for_large_objects(bytea),
    embassy.say_large_object_state(bytea, bigint), embassy.carry_large_objects(bytea, bigint),
    embassy.request_large_objects(oid, oid, text), embassy.say_large_objects_wished(), embassy.large_object_horizon(bytea),
    embassy.large_object_pages_behind(bytea, oid, integer, oid, integer), embassy.large_objects_behind(bytea, oid, oid),
    embassy.large_objects_gone(oid, oid) FROM PUBLIC;
