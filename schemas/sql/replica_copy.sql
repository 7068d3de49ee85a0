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
