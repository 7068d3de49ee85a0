-- What operators and thresholds say about applying a stream. The consumer commits only under the version that it has read.
CREATE TABLE IF NOT EXISTS embassy.control (
    stream bytea PRIMARY KEY,
    version bigint NOT NULL DEFAULT 0,    -- one more with each change
    frozen_at timestamptz,                -- this server's clock; NULL: not frozen
    frozen_by text,                       -- a person, or what in the product did it
    freeze_reason text,
    freezes bigint NOT NULL DEFAULT 0,    -- how often it was frozen, for people
    suspect_xid bigint,                   -- the transaction for which a threshold froze the stream
    suspect_lsn pg_lsn,
    stop_at_lsn pg_lsn,                   -- applying freezes behind this commit
    stop_at_time timestamptz,             -- or behind the commits up to this time of the source
    at_once boolean NOT NULL DEFAULT false, -- up to there, the apply delay does not hold
    admitted_xid bigint,                  -- the suspect that two persons let pass
    admitted_lsn pg_lsn,
    cut_head bytea,                       -- the record before a batch of which only the first transactions are applied
    cut_transactions integer,
    cut_lsn pg_lsn,                       -- commit of the last of them
    apply_delay_seconds double precision NOT NULL DEFAULT 0, -- what the consumer that runs keeps to
    freeze_order text                     -- the signed word by which a person froze it
);
-- Only where they are missing: ALTER TABLE waits for whoever reads the table, a consumer amid a large transaction too.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'embassy.control'::regclass AND attname = 'lifted_by' AND NOT attisdropped) THEN
        ALTER TABLE embassy.control
            ADD COLUMN freeze_id uuid,    -- of the freeze that stands: an order to lift it names it
            ADD COLUMN lifted_by text;    -- the nonce of the order that lifted the one before
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = 'embassy.control'::regclass AND attname = 'admitted_record' AND NOT attisdropped) THEN
        ALTER TABLE embassy.control
            ADD COLUMN suspect_record bytea,    -- of copied rows, in the place of a transaction: the record's hash
            ADD COLUMN admitted_record bytea;
    END IF;
END $$;
UPDATE embassy.control SET freeze_id = pg_catalog.gen_random_uuid() WHERE frozen_at IS NOT NULL AND freeze_id IS NULL;
