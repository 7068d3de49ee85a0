-- Where the registry's sequences stood when they were last sampled: the same on both sides. Nothing in the log's changes
-- says so: the producer samples them, and what has changed travels as rows. What is drawn between two samples shows with the
-- second. Promotion sets the replica's own from it, with headroom for what was drawn since.
CREATE TABLE IF NOT EXISTS embassy.sequence_state (
    schema_name text NOT NULL,
    sequence_name text NOT NULL,
    last_value bigint NOT NULL,
    is_called boolean NOT NULL,
    increment_by bigint NOT NULL,
    observed_at timestamptz NOT NULL,
    PRIMARY KEY (schema_name, sequence_name)
);
