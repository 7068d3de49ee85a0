-- What a promotion keeps in the replica that it promotes: its journal, so that it goes on where it was killed.

-- Plans that were begun. A plan's nonce is used once: a row that has ended is never begun again.
CREATE TABLE IF NOT EXISTS embassy.promotion_plan (
    nonce bytea PRIMARY KEY,
    stream bytea NOT NULL,
    from_epoch bigint NOT NULL,
    to_epoch bigint NOT NULL,
    document text NOT NULL,               -- the plan with its signatures, as it was run
    begun_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ended_at timestamptz,
    outcome text CHECK (outcome IN ('promoted', 'aborted', 'replaced')),
    reason text
);

-- Its steps: an intent before each, a result behind it. The step that raises the epoch has its result in that very transaction.
CREATE TABLE IF NOT EXISTS embassy.promotion (
    nonce bytea NOT NULL REFERENCES embassy.promotion_plan,
    step text NOT NULL,
    intent_at timestamptz NOT NULL,
    done_at timestamptz,
    result jsonb,
    PRIMARY KEY (nonce, step)
);

-- The newest time that this server's clock has ever shown: approvals do not come back to life when it is wound back.
CREATE TABLE IF NOT EXISTS embassy.local_clock (
    id integer PRIMARY KEY CHECK (id = 1),
    newest timestamptz NOT NULL
);

-- What home says in the stream when it lets nobody write any more; columns as in source_fence.sql.
CREATE TABLE IF NOT EXISTS embassy.fence (
    nonce bytea PRIMARY KEY,
    stream bytea NOT NULL,
    to_epoch bigint NOT NULL,
    fenced_at timestamptz NOT NULL,
    fenced_by text NOT NULL,
    reason text NOT NULL,
    promoted boolean NOT NULL
);

-- The first write of a promoted replica.
CREATE TABLE IF NOT EXISTS embassy.smoke_write (
    nonce bytea PRIMARY KEY,
    written_at timestamptz NOT NULL
);

-- Failbacks of a database that was superseded: what it committed and never shipped was written to files before anything
-- else was done with it, and which tables that touches.
CREATE TABLE IF NOT EXISTS embassy.failback (
    nonce bytea PRIMARY KEY,              -- of the plan that superseded it
    stream bytea NOT NULL,
    epoch bigint NOT NULL,                -- the epoch that it becomes a replica of
    bundle jsonb NOT NULL,
    bundled_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    cleared_at timestamptz                -- since when none of it is in the tables any more
);
