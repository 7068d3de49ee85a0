-- The state of one sequence that nothing has been drawn from since it was set. Called by name it would be another relation's, if
-- its schema was renamed meanwhile: a view's, which would be computed with our rights.
DROP FUNCTION IF EXISTS embassy.sequence_as_set(text, text);
CREATE OR REPLACE FUNCTION embassy.sequence_as_set(relation oid, OUT last_value bigint, OUT is_called boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL THEN
        PERFORM pg_catalog.set_config('restrict_nonsystem_relation_kind', 'view, foreign-table', true);
    END IF;
    EXECUTE pg_catalog.format('SELECT s.last_value, s.is_called FROM %s s', relation::regclass) INTO last_value, is_called;
END
$$;

-- Note what has changed; returns how many rows it wrote, and writes nothing where nothing has. A sequence that someone
-- has locked (a DROP that is not committed yet) is left out until it is free; nobody is waited for.
CREATE OR REPLACE FUNCTION embassy.sample_sequences() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    written bigint;
    gone bigint;
BEGIN
    WITH sequences AS MATERIALIZED (
        SELECT c.oid, n.nspname::text AS schema_name, c.relname::text AS sequence_name, s.seqincrement
        FROM pg_catalog.pg_sequence s
        JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relpersistence <> 't' AND n.nspname <> 'embassy' AND n.nspname <> 'information_schema'
          AND n.nspname !~ '^pg_'
          AND c.oid NOT IN (SELECT l.relation FROM pg_catalog.pg_locks l
                            WHERE l.relation IS NOT NULL AND l.mode = 'AccessExclusiveLock')
    ), drawn AS MATERIALIZED (
        SELECT sequences.*, pg_catalog.pg_sequence_last_value(oid) AS last_value FROM sequences
    ), present AS MATERIALIZED (
        SELECT d.schema_name, d.sequence_name, coalesce(d.last_value, e.last_value) AS last_value,
               d.last_value IS NOT NULL OR e.is_called AS is_called, d.seqincrement
        FROM drawn d
        LEFT JOIN LATERAL embassy.sequence_as_set(d.oid) e ON d.last_value IS NULL
    )
    INSERT INTO embassy.sequence_state AS t
    SELECT p.*, pg_catalog.clock_timestamp()
    FROM present p LEFT JOIN embassy.sequence_state b USING (schema_name, sequence_name)
    WHERE (b.last_value, b.is_called, b.increment_by) IS DISTINCT FROM (p.last_value, p.is_called, p.seqincrement)
    ON CONFLICT (schema_name, sequence_name) DO UPDATE
        SET last_value = excluded.last_value, is_called = excluded.is_called, increment_by = excluded.increment_by,
            observed_at = excluded.observed_at;
    GET DIAGNOSTICS written = ROW_COUNT;
    DELETE FROM embassy.sequence_state t WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'S' AND n.nspname = t.schema_name AND c.relname = t.sequence_name);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN written + gone;
END
$$;

REVOKE ALL ON FUNCTION embassy.sequence_as_set(oid), embassy.sample_sequences() FROM PUBLIC;
