-- Home after it was superseded, or while it hands over: who shut it, on whose word, and for which epoch.

-- One row for each fencing. It travels in the stream: nothing of the registry's follows it there.
CREATE TABLE IF NOT EXISTS embassy.fence (
    nonce bytea PRIMARY KEY,              -- of the plan that two persons have approved
    stream bytea NOT NULL,
    to_epoch bigint NOT NULL,             -- the epoch that the embassy has, or is about to have
    fenced_at timestamptz NOT NULL,
    fenced_by text NOT NULL,
    reason text NOT NULL,
    promoted boolean NOT NULL             -- whether the embassy had the registry already, proven by its report
);

-- Event triggers of logins that the fence has disabled: what they write would be refused, and nobody could log in.
CREATE TABLE IF NOT EXISTS embassy.fenced_login (
    name name PRIMARY KEY,
    enabled "char" NOT NULL
);

CREATE OR REPLACE FUNCTION embassy.refuse_fenced_write() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%.% is fenced: the registry is written to in the embassy', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'read_only_sql_transaction',
              HINT = 'Connect to the embassy; home is opened again by failback.';
END
$$;
