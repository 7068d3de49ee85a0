-- What the product keeps in a replica. Run by an administrator; may be run again at any time.

CREATE SCHEMA IF NOT EXISTS embassy;

-- Where each stream has got to: moved by compare-and-set, in the transaction that applies the rows.
CREATE TABLE IF NOT EXISTS embassy.progress (
    stream bytea PRIMARY KEY,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    hash bytea NOT NULL,
    incarnation bytea NOT NULL,
    resume_lsn pg_lsn NOT NULL,
    key_record bytea NOT NULL,            -- the KEY record of the incarnation, whole; empty before the first
    next_offset bigint NOT NULL,          -- where to read on in the foreign topic: only a hint
    applied_at timestamptz,               -- this server's clock
    committed_at timestamptz              -- source time of the last transaction applied
);

-- The two tables that the source publishes about the stream itself; columns as in source.sql.
CREATE TABLE IF NOT EXISTS embassy.heartbeat (
    id integer PRIMARY KEY,
    beat_at timestamptz NOT NULL,
    captured_at timestamptz,
    published_at timestamptz
);
CREATE TABLE IF NOT EXISTS embassy.stream (
    stream bytea PRIMARY KEY,
    began_at timestamptz NOT NULL
);

-- Triggers and rules that would fire although the session replicates, and event triggers; promotion enables them again.
CREATE TABLE IF NOT EXISTS embassy.disabled_triggers (
    relation text NOT NULL,               -- qualified and quoted; empty for an event trigger
    kind text NOT NULL,                   -- trigger, rule or event trigger
    name text NOT NULL,
    enabled "char" NOT NULL,              -- A: always, R: replica; O: an event trigger's
    PRIMARY KEY (relation, kind, name)
);
ALTER TABLE embassy.disabled_triggers DROP CONSTRAINT IF EXISTS disabled_triggers_kind_check;

-- The guard. It does not fire for a session that replicates (session_replication_role = replica), which only a role
-- that was granted that setting can become.
CREATE OR REPLACE FUNCTION embassy.refuse_write() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%.% is a replica: nobody writes here until it is promoted', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'read_only_sql_transaction',
              HINT = 'Write to the registry at home; in an emergency its operators promote this replica.';
END
$$;
