-- Large objects as the stream tells of them. Run by a superuser in the replica, after shared_large_objects.sql; may be run
-- again at any time. Pages are written to pg_largeobject itself, which a superuser may: lo_put cannot make a hole where there
-- was a page, nor a page that is shorter than the one before.

CREATE OR REPLACE FUNCTION embassy.large_object_needs(role text, loid oid) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF role <> '' AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) THEN
        RAISE EXCEPTION 'large object % needs role "%", which does not exist: CREATE ROLE %, then start the consumer again',
            loid, role, pg_catalog.quote_ident(role) USING ERRCODE = 'undefined_object';
    END IF;
    RETURN CASE WHEN role = '' THEN 'PUBLIC' ELSE pg_catalog.quote_ident(role) END;
END
$$;

-- Owner, rights and comment. Rights are given anew, all of them.
CREATE OR REPLACE FUNCTION embassy.large_object_stands(loid oid, standing jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    grantee text;
    granted record;
BEGIN
    EXECUTE pg_catalog.format('ALTER LARGE OBJECT %s OWNER TO %s', loid, embassy.large_object_needs(standing ->> 'owner', loid));
    FOR grantee IN
        SELECT DISTINCT CASE WHEN a.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END
        FROM pg_catalog.pg_largeobject_metadata m,
             pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) a
        WHERE m.oid = loid
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON LARGE OBJECT %s FROM %s CASCADE', loid, embassy.large_object_needs(grantee, loid));
    END LOOP;
    FOR granted IN SELECT * FROM pg_catalog.jsonb_to_recordset(standing -> 'rights') AS r (role text, may text, may_grant boolean) LOOP
        IF granted.may NOT IN ('SELECT', 'UPDATE') THEN
            RAISE EXCEPTION 'large object %: right % is not known to this version', loid, pg_catalog.quote_literal(granted.may)
                USING ERRCODE = 'feature_not_supported';
        END IF;
        EXECUTE pg_catalog.format('GRANT %s ON LARGE OBJECT %s TO %s%s', granted.may, loid,
            embassy.large_object_needs(granted.role, loid), CASE WHEN granted.may_grant THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    EXECUTE pg_catalog.format('COMMENT ON LARGE OBJECT %s IS %L', loid, standing ->> 'comment');
END
$$;

CREATE OR REPLACE FUNCTION embassy.apply_large_object() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.what = 'page' THEN
        UPDATE pg_catalog.pg_largeobject SET data = NEW.data WHERE loid = NEW.loid AND pageno = NEW.page;
        IF NOT FOUND THEN
            INSERT INTO pg_catalog.pg_largeobject (loid, pageno, data) VALUES (NEW.loid, NEW.page, NEW.data);
        END IF;
        RETURN NULL;
    END IF;
    IF NEW.what = 'object' THEN
        IF NEW.page_bytes <> pg_catalog.current_setting('block_size')::integer / 4 THEN
            RAISE EXCEPTION 'large objects have pages of % bytes at home and of % here: this server has another block size',
                NEW.page_bytes, pg_catalog.current_setting('block_size')::integer / 4 USING ERRCODE = 'feature_not_supported';
        END IF;
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata WHERE oid = NEW.loid) THEN
            PERFORM pg_catalog.lo_create(NEW.loid);
        END IF;
        IF NEW.pages IS NOT NULL THEN
            DELETE FROM pg_catalog.pg_largeobject
            WHERE loid = NEW.loid AND pageno >= NEW.page AND NOT NEW.pages @> pageno;
        END IF;
        IF NEW.standing IS NOT NULL THEN
            PERFORM embassy.large_object_stands(NEW.loid, NEW.standing);
        END IF;
    ELSIF NEW.what = 'gone' THEN
        PERFORM pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata WHERE oid = NEW.loid;
    ELSIF NEW.what = 'objects' THEN
        PERFORM pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata
        WHERE oid BETWEEN NEW.loid AND (NEW.standing ->> 'last')::oid
          AND NOT (NEW.standing ->> 'there')::int8multirange @> oid::bigint;
    ELSE
        RAISE EXCEPTION 'embassy.large_object_change says "%", which this version does not know', NEW.what
            USING ERRCODE = 'feature_not_supported';
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER apply_large_object AFTER INSERT ON embassy.large_object_change
    FOR EACH ROW EXECUTE FUNCTION embassy.apply_large_object();
ALTER TABLE embassy.large_object_change ENABLE REPLICA TRIGGER apply_large_object;   -- while the stream is applied, and only then

REVOKE ALL ON FUNCTION embassy.large_object_needs(text, oid), embassy.large_object_stands(oid, jsonb),
    embassy.apply_large_object() FROM PUBLIC;
