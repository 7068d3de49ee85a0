-- Whose objects are. REASSIGN OWNED fires no event trigger; and where it was not told, DROP OWNED would take from a replica what
-- home has given to somebody else. So what the stream has told of owners is kept, and the difference is told as DDL: before
-- each command that is captured, and now and then by the producer. Run by an administrator at home, after source_ddl.sql; may
-- be run again at any time.

CREATE TABLE IF NOT EXISTS embassy.ddl_owner (
    classid oid NOT NULL,
    objid oid NOT NULL,
    owner oid NOT NULL,
    PRIMARY KEY (classid, objid)
);

-- Whether an object has another one's owner, as a column's sequence has its table's, or comes with an extension.
CREATE OR REPLACE FUNCTION embassy.owned_with_another(classid oid, objid oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_depend d WHERE d.classid = $1 AND d.objid = $2 AND (
            d.deptype = 'e' OR d.deptype IN ('a', 'i') AND d.refclassid = 'pg_catalog.pg_class'::regclass AND EXISTS (
                SELECT FROM pg_catalog.pg_class c WHERE c.oid = $2 AND c.relkind = 'S')))
$$;

-- What belongs to whom. What belongs to a role that is part of PostgreSQL (the one that made the cluster, pg_database_owner) is in
-- no row.
CREATE OR REPLACE FUNCTION embassy.owned_objects() RETURNS TABLE (classid oid, objid oid, owner oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.classid, s.objid, s.refobjid FROM pg_catalog.pg_shdepend s
    WHERE s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
      AND s.deptype = 'o' AND s.refclassid = 'pg_catalog.pg_authid'::regclass
      AND s.classid NOT IN ('pg_catalog.pg_largeobject'::regclass, 'pg_catalog.pg_default_acl'::regclass)
$$;

-- Whose an object is that belongs to a role which is part of PostgreSQL.
CREATE OR REPLACE FUNCTION embassy.pinned_owner(classid oid, objid oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(CASE $1
        WHEN 'pg_catalog.pg_class'::regclass THEN (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = $2)
        WHEN 'pg_catalog.pg_proc'::regclass THEN (SELECT p.proowner FROM pg_catalog.pg_proc p WHERE p.oid = $2)
        WHEN 'pg_catalog.pg_type'::regclass THEN (SELECT t.typowner FROM pg_catalog.pg_type t WHERE t.oid = $2)
        WHEN 'pg_catalog.pg_namespace'::regclass THEN (SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.oid = $2)
        WHEN 'pg_catalog.pg_collation'::regclass THEN (SELECT c.collowner FROM pg_catalog.pg_collation c WHERE c.oid = $2)
        WHEN 'pg_catalog.pg_conversion'::regclass THEN (SELECT c.conowner FROM pg_catalog.pg_conversion c WHERE c.oid = $2)
        WHEN 'pg_catalog.pg_operator'::regclass THEN (SELECT o.oprowner FROM pg_catalog.pg_operator o WHERE o.oid = $2)
        WHEN 'pg_catalog.pg_opclass'::regclass THEN (SELECT o.opcowner FROM pg_catalog.pg_opclass o WHERE o.oid = $2)
        WHEN 'pg_catalog.pg_opfamily'::regclass THEN (SELECT o.opfowner FROM pg_catalog.pg_opfamily o WHERE o.oid = $2)
        WHEN 'pg_catalog.pg_ts_dict'::regclass THEN (SELECT d.dictowner FROM pg_catalog.pg_ts_dict d WHERE d.oid = $2)
        WHEN 'pg_catalog.pg_ts_config'::regclass THEN (SELECT c.cfgowner FROM pg_catalog.pg_ts_config c WHERE c.oid = $2)
        WHEN 'pg_catalog.pg_foreign_data_wrapper'::regclass THEN
            (SELECT w.fdwowner FROM pg_catalog.pg_foreign_data_wrapper w WHERE w.oid = $2)
        WHEN 'pg_catalog.pg_foreign_server'::regclass THEN
            (SELECT s.srvowner FROM pg_catalog.pg_foreign_server s WHERE s.oid = $2)
        WHEN 'pg_catalog.pg_statistic_ext'::regclass THEN
            (SELECT s.stxowner FROM pg_catalog.pg_statistic_ext s WHERE s.oid = $2)
        WHEN 'pg_catalog.pg_language'::regclass THEN (SELECT l.lanowner FROM pg_catalog.pg_language l WHERE l.oid = $2)
        END, 10)
$$;

-- Note the owners of these objects as told; of all others that are not known yet, if NULL.
CREATE OR REPLACE FUNCTION embassy.note_owners(objects oid[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO embassy.ddl_owner AS k SELECT o.* FROM embassy.owned_objects() o WHERE $1 IS NULL OR o.objid = ANY ($1)
    ON CONFLICT (classid, objid) DO UPDATE SET owner = excluded.owner WHERE $1 IS NOT NULL AND k.owner <> excluded.owner
$$;

-- A kind of object, as statements name it that give it away or drop it; NULL: it has no owner.
CREATE OR REPLACE FUNCTION embassy.kind_of_owned(type text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE $1 WHEN 'statistics object' THEN 'STATISTICS' WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER'
                   ELSE pg_catalog.upper($1) END
    WHERE $1 IN ('table', 'view', 'materialized view', 'foreign table', 'sequence', 'type', 'function', 'procedure', 'aggregate',
                 'schema', 'collation', 'conversion', 'operator', 'operator class', 'operator family', 'text search dictionary',
                 'text search configuration', 'foreign-data wrapper', 'server', 'statistics object', 'language')
$$;

-- Tell of an object that has an owner: the statement's words before its kind, before its name and behind that.
CREATE OR REPLACE FUNCTION embassy.say_of_owned(
    type text, identity text, tag text, verb text, middle text, behind text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO embassy.ddl
    SELECT pg_catalog.nextval('embassy.ddl_ordinal'), pg_catalog.clock_timestamp(), $3, current_user,
           '{"search_path": ""}', 'statement', $4 || k.kind || $5 || $2 || $6, NULL, NULL,
           pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object('type', $1, 'identity', $2)), '[]', '[]', '[]'
    FROM embassy.kind_of_owned($1) k (kind) WHERE k.kind IS NOT NULL
$$;

-- Tell that an object has another owner.
CREATE OR REPLACE FUNCTION embassy.say_owner(type text, identity text, owner text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT embassy.say_of_owned($1, $2, 'ALTER OWNER', 'ALTER ', ' ', ' OWNER TO ' || pg_catalog.quote_ident($3))
$$;

-- Tell that an object is gone that the replica may hold for somebody else's.
CREATE OR REPLACE FUNCTION embassy.say_dropped(type text, identity text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT embassy.say_of_owned($1, $2, 'DROP OWNED', 'DROP ', ' IF EXISTS ', ' CASCADE')
$$;

-- Tell which objects have other owners than the stream says, but for those that a command has named: it is told itself.
CREATE OR REPLACE FUNCTION embassy.follow_owners(but oid[] DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed record;
BEGIN
    IF NOT EXISTS (SELECT FROM embassy.ddl_publication) THEN
        RETURN;                           -- DDL stays with the operators of both sides
    END IF;
    FOR changed IN
        WITH present AS MATERIALIZED (SELECT * FROM embassy.owned_objects())
        SELECT k.classid, k.objid, w.owner, i.type, i.schema, i.identity
        FROM embassy.ddl_owner k LEFT JOIN present p USING (classid, objid)
        CROSS JOIN LATERAL (SELECT coalesce(p.owner, embassy.pinned_owner(k.classid, k.objid))) w (owner)
        CROSS JOIN LATERAL pg_catalog.pg_identify_object(k.classid, k.objid, 0) i
        WHERE k.owner <> w.owner AND k.objid <> ALL (but)
        ORDER BY k.classid, k.objid
    LOOP
        IF changed.identity IS NULL THEN
            DELETE FROM embassy.ddl_owner k WHERE k.classid = changed.classid AND k.objid = changed.objid;
            CONTINUE;
        END IF;
        UPDATE embassy.ddl_owner k SET owner = changed.owner WHERE k.classid = changed.classid AND k.objid = changed.objid;
        IF coalesce(changed.schema, '') !~ '^(embassy$|pg_)' AND changed.identity <> 'embassy'
           AND NOT embassy.owned_with_another(changed.classid, changed.objid) THEN
            PERFORM embassy.say_owner(changed.type, changed.identity, pg_catalog.pg_get_userbyid(changed.owner));
        END IF;
    END LOOP;
    IF but = '{}' THEN
        PERFORM embassy.note_owners(NULL);
    END IF;
END
$$;

-- The same, without waiting for somebody who is just telling of one of them.
CREATE OR REPLACE FUNCTION embassy.sample_owners(but oid[] DEFAULT '{}') RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
    SELECT embassy.follow_owners($1)
$$;

REVOKE ALL ON embassy.ddl_owner FROM PUBLIC;
REVOKE ALL ON FUNCTION embassy.owned_objects(), embassy.owned_with_another(oid, oid), embassy.pinned_owner(oid, oid), embassy.note_owners(oid[]), embassy.kind_of_owned(text),
    embassy.say_of_owned(text, text, text, text, text, text), embassy.say_owner(text, text, text), embassy.say_dropped(text, text),
    embassy.follow_owners(oid[]), embassy.sample_owners(oid[]) FROM PUBLIC;
