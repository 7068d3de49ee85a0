-- The tables in which large objects travel: the same on both sides. pg_largeobject is a catalogue, and what changes in one is
-- in no stream of PostgreSQL's: functions at home write it here (source_large_objects.sql), a trigger of the replica takes it
-- from here (replica_large_objects.sql). Run by an administrator; may be run again at any time.

-- Always empty for whoever looks: a row is written and deleted in one transaction, and the stream has both.
CREATE TABLE IF NOT EXISTS embassy.large_object_change (
    ordinal bigint PRIMARY KEY,           -- rows of one transaction take effect in this order
    loid oid NOT NULL,
    what text NOT NULL,                   -- object: it is there; page: one page of it; gone: it is not there any more;
                                          -- objects: from this one on there are those listed, and no others
    standing jsonb,                       -- object: owner, rights and comment; NULL: as they are. objects: up to which; those there are
    page integer,                         -- page: which; object: from here on it has the pages listed, and no others
    pages int4multirange,                 -- object
    page_bytes integer,                   -- object: how large a page is at home
    data bytea                            -- page: all of it
) WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE embassy.large_object_change ALTER data SET STORAGE EXTERNAL;

-- How far each stream is with them.
CREATE TABLE IF NOT EXISTS embassy.large_object_state (
    stream bytea PRIMARY KEY,
    as_of timestamptz,                    -- what was committed before, by the source's clock, is in the stream; NULL: not all yet
    behind bigint NOT NULL                -- objects that were found changed and are still to come
);
