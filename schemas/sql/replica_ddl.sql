-- What the replica keeps of the DDL in the stream. Run by an administrator, after replica.sql; may be run again at any time.

-- Each statement that was applied; columns as in source_ddl.sql.
CREATE TABLE IF NOT EXISTS embassy.ddl (
    ordinal bigint PRIMARY KEY,
    made_at timestamptz NOT NULL,
    tag text NOT NULL,
    role text NOT NULL,
    settings jsonb NOT NULL,
    how text NOT NULL,
    query text,
    query_of bigint,
    nth integer,
    objects jsonb NOT NULL,
    filled jsonb NOT NULL,
    stored jsonb NOT NULL,
    shapes jsonb NOT NULL
);
CREATE TABLE IF NOT EXISTS embassy.ddl_rows (
    ordinal bigint NOT NULL,
    number bigint NOT NULL,
    target text NOT NULL,
    content text NOT NULL,
    PRIMARY KEY (ordinal, number)
);

-- DDL that an operator has done here by hand, because the stream's could not be applied: the consumer passes over it.
CREATE TABLE IF NOT EXISTS embassy.ddl_by_hand (
    ordinal bigint PRIMARY KEY,
    reason text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    decided_by text NOT NULL DEFAULT session_user
);
