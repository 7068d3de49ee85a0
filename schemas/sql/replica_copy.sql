-- Copies of tables, as the source tells them; columns as in source_copy.sql. A table with one that is not done is not
-- whole: what the stream changes in it may meet rows that have yet to come.
CREATE TABLE IF NOT EXISTS embassy.table_copy (
    copy bigint PRIMARY KEY,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    from_key text[],
    to_key text[],
    state text NOT NULL,
    reason text NOT NULL,
    requested_at timestamptz NOT NULL,
    requested_by text NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    rows_expected bigint,
    rows_copied bigint NOT NULL,
    bytes_copied bigint NOT NULL
);

-- Tables whose rows an operator knows to be wrong here: their changes may miss rows until a whole copy has come, so that
-- a stream that has halted at one goes on to it.
CREATE TABLE IF NOT EXISTS embassy.awaited_copy (
    schema_name text NOT NULL,
    table_name text NOT NULL,
    after_copy bigint NOT NULL,         -- a whole copy with a higher number, once done, ends it
    awaited_since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    awaited_by text NOT NULL DEFAULT session_user,
    PRIMARY KEY (schema_name, table_name)
);
