-- What the replica keeps of the DDL in the stream. Run by an administrator, after shared_ddl.sql; may be run again at any time.

-- DDL that an operator has done here by hand, because the stream's could not be applied: the consumer passes over it.
CREATE TABLE IF NOT EXISTS embassy.ddl_by_hand (
    ordinal bigint PRIMARY KEY,
    reason text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    decided_by text NOT NULL DEFAULT session_user
);
