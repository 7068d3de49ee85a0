-- The event triggers that put DDL into the stream. Run by a superuser at home, after source_ddl.sql; may be run again at any
-- time. ALWAYS: a session that sets session_replication_role changes tables, too.

DO $$
DECLARE
    name text;
    event text;
    function text;
BEGIN
    FOR name, event, function IN VALUES
        ('embassy_1_end', 'ddl_command_end', 'ddl_session'), ('embassy_2_end', 'ddl_command_end', 'ddl_capture'),
        ('embassy_rewrite', 'table_rewrite', 'ddl_rewrite'),
        ('embassy_1_drop', 'sql_drop', 'ddl_session'), ('embassy_2_drop', 'sql_drop', 'ddl_capture')
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = name) THEN
            EXECUTE pg_catalog.format('CREATE EVENT TRIGGER %I ON %s EXECUTE FUNCTION embassy.%I()', name, event, function);
        END IF;
        EXECUTE pg_catalog.format('ALTER EVENT TRIGGER %I ENABLE ALWAYS', name);
    END LOOP;
END
$$;
