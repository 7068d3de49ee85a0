-- What operators ask of a stream's producer about its keys.

-- The latest request for a fresh data key. The producer looks with each heartbeat. Not published.
CREATE TABLE IF NOT EXISTS embassy.rotation_request (
    stream bytea PRIMARY KEY,
    requested_at timestamptz NOT NULL,
    requested_by text NOT NULL
);

CREATE OR REPLACE FUNCTION embassy.request_rotation(named bytea) RETURNS timestamptz
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO embassy.rotation_request AS r (stream, requested_at, requested_by)
    VALUES (named, pg_catalog.clock_timestamp(), session_user)
    ON CONFLICT (stream) DO UPDATE SET requested_at = excluded.requested_at, requested_by = excluded.requested_by
    RETURNING requested_at
$$;

REVOKE ALL ON FUNCTION embassy.request_rotation(bytea) FROM PUBLIC;
