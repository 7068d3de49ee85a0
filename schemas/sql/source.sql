-- What the product keeps in a registry's database at home. Run by an administrator; may be run again at any time.
--
-- Everything that the product says in the stream travels as rows of these tables, published like any other: nobody
-- can forge them with pg_logical_emit_message. They are written only by the functions below, with their owner's rights.

CREATE SCHEMA IF NOT EXISTS embassy;

-- The beat of the stream's heart: one row, renewed again and again. The replica's age of it is the true lag, end to end.
CREATE TABLE IF NOT EXISTS embassy.heartbeat (
    id integer PRIMARY KEY CHECK (id = 1),
    beat_at timestamptz NOT NULL,      -- the source's clock
    captured_at timestamptz,           -- beat_at of the newest beat that the producer had read when this one was written
    published_at timestamptz           -- and of the newest that the home cluster had acknowledged
);

-- Streams that have begun: a second beginning is never made.
CREATE TABLE IF NOT EXISTS embassy.stream (
    stream bytea PRIMARY KEY,
    began_at timestamptz NOT NULL
);

-- What each stream began with. Written once the tables have been looked at in the very snapshot that the slot begins
-- with: rows that are there and not in the stream would be missing abroad for ever. A publication that was dropped and
-- made anew has another oid; what was committed in between is in no stream (from 18 on without a word). Not published.
CREATE TABLE IF NOT EXISTS embassy.slot_proof (
    stream bytea PRIMARY KEY,
    slot text NOT NULL,
    begins_at pg_lsn NOT NULL,
    publication oid NOT NULL,
    replica_was_level boolean NOT NULL,   -- tables held rows, and an operator asserted that the replica holds the same
    made_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    made_by text NOT NULL DEFAULT session_user
);

-- Epochs that this database writes after it was promoted; the first epoch of a stream needs none. Not published.
CREATE TABLE IF NOT EXISTS embassy.reign (
    stream bytea NOT NULL,
    epoch bigint NOT NULL,
    slot text NOT NULL,                   -- made before anyone could write
    made_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    began_at timestamptz,                 -- its first record is in the topic: a second beginning is never made
    PRIMARY KEY (stream, epoch)
);

-- Epochs in which this database was found restored from an older state than the stream has: its log may grow past the stream's
-- end, and is another one all the same. Not published.
CREATE TABLE IF NOT EXISTS embassy.restored (
    stream bytea NOT NULL,
    epoch bigint NOT NULL,
    found_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    log_end pg_lsn NOT NULL,
    stream_end pg_lsn NOT NULL,
    PRIMARY KEY (stream, epoch)
);

CREATE OR REPLACE FUNCTION embassy.note_restored(named bytea, written bigint, log_end pg_lsn, stream_end pg_lsn) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO embassy.restored (stream, epoch, log_end, stream_end)
    VALUES (named, written, note_restored.log_end, note_restored.stream_end) ON CONFLICT DO NOTHING
$$;

-- The incarnations of each stream's writer, by name: noted before the KEY that begins one is in the topic. A database that does not
-- know the name of the topic's newest KEY is in an older state than the stream, however long its log. Not published.
CREATE TABLE IF NOT EXISTS embassy.incarnation (
    stream bytea NOT NULL,
    epoch bigint NOT NULL,
    names bytea[] NOT NULL,               -- oldest first, from the one that counted when the last one was noted
    noted_at timestamptz NOT NULL,        -- of the last one
    PRIMARY KEY (stream, epoch)
);

-- Those before the one that is followed go: it has counted, so the topic's newest is that one or a later one. If it is not known, as one
-- that a lost primary had noted, all stay.
CREATE OR REPLACE FUNCTION embassy.note_incarnation(named bytea, written bigint, name bytea, follows bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO embassy.incarnation AS i (stream, epoch, names, noted_at)
    VALUES (named, written, ARRAY[name], pg_catalog.clock_timestamp())
    ON CONFLICT (stream, epoch) DO UPDATE
        SET names = i.names[coalesce(pg_catalog.array_position(i.names, follows), 1):] || excluded.names,
            noted_at = excluded.noted_at
$$;

CREATE OR REPLACE FUNCTION embassy.beat(captured timestamptz, published timestamptz) RETURNS timestamptz
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO embassy.heartbeat AS h (id, beat_at, captured_at, published_at)
    VALUES (1, pg_catalog.clock_timestamp(), captured, published)
    ON CONFLICT (id) DO UPDATE
        SET beat_at = excluded.beat_at, captured_at = excluded.captured_at, published_at = excluded.published_at
    RETURNING beat_at
$$;

CREATE OR REPLACE FUNCTION embassy.mark_genesis(named bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO embassy.stream (stream, began_at) VALUES (named, pg_catalog.clock_timestamp()) ON CONFLICT DO NOTHING
$$;

CREATE OR REPLACE FUNCTION embassy.mark_reign(named bytea, written bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE embassy.reign SET began_at = pg_catalog.clock_timestamp()
    WHERE stream = named AND epoch = written AND began_at IS NULL
$$;

REVOKE ALL ON FUNCTION embassy.beat(timestamptz, timestamptz), embassy.mark_genesis(bytea),
    embassy.mark_reign(bytea, bigint), embassy.note_restored(bytea, bigint, pg_lsn, pg_lsn),
    embassy.note_incarnation(bytea, bigint, bytea, bytea) FROM PUBLIC;
