-- What home says of its rows, so that replicas can be compared with them (embassy/model/verification.py has the form).

-- Published; always empty for whoever looks: a message is written and deleted in one transaction, and the stream has both.
CREATE TABLE IF NOT EXISTS embassy.verify_message (
    run uuid NOT NULL,
    ordinal bigint NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (run, ordinal)
);

-- Returns the number of the transaction that says it.
CREATE OR REPLACE FUNCTION embassy.verify_say(run uuid, ordinal bigint, body text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO embassy.verify_message (run, ordinal, body) VALUES ($1, $2, $3);
    DELETE FROM embassy.verify_message m WHERE m.run = $1 AND m.ordinal = $2;
    SELECT pg_catalog.pg_current_xact_id()::text;
$$;

REVOKE ALL ON embassy.verify_message FROM PUBLIC;
REVOKE ALL ON FUNCTION embassy.verify_say(uuid, bigint, text) FROM PUBLIC;
