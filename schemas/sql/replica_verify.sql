-- How the replica's rows compare with home's, as of the places in the stream at which home told of its own.

-- Published by the source, columns as in source_verify.sql; empty here too.
CREATE TABLE IF NOT EXISTS embassy.verify_message (
    run uuid NOT NULL,
    ordinal bigint NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (run, ordinal)
);

-- Verifications, the newest few of each stream.
CREATE TABLE IF NOT EXISTS embassy.verify_run (
    run uuid PRIMARY KEY,
    stream bytea NOT NULL,
    whole boolean NOT NULL,                -- every row of every published table was to be compared
    began_at timestamptz NOT NULL,         -- this server's clock
    ended_at timestamptz,
    tables bigint,                         -- how many tables home told of
    outcome text CHECK (outcome IN ('match', 'differs', 'undecided'))
);

-- The newest result of each table.
CREATE TABLE IF NOT EXISTS embassy.verification (
    stream bytea NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    run uuid NOT NULL,
    verified_at timestamptz NOT NULL,
    rows bigint NOT NULL,                  -- that home had
    matched bigint NOT NULL,
    mismatched bigint NOT NULL,
    missing bigint NOT NULL,
    extra bigint NOT NULL,
    in_flight bigint NOT NULL,             -- changed at home while they were compared, each time
    undecided text NOT NULL,               -- why rows could not be compared at all; empty if they were
    PRIMARY KEY (stream, schema_name, table_name)
);

-- The rows that differ, by key: at most ten thousand of a table. Keys are row data.
CREATE TABLE IF NOT EXISTS embassy.verify_finding (
    stream bytea NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    run uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('mismatched', 'missing', 'extra')),
    key_columns text[] NOT NULL,           -- empty: the key is the digest of a row without one
    key text[] NOT NULL
);
CREATE INDEX IF NOT EXISTS verify_finding_table ON embassy.verify_finding (stream, schema_name, table_name);
