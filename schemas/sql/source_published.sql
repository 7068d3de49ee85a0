-- What is in the publication, as the product has put it there: whoever takes a table out for a while leaves a gap in the stream
-- that nothing else shows. Run by an administrator at home, after source.sql; may be run again at any time.

-- Each time that a table is put into a publication the catalogue gives that another number. Not published.
CREATE TABLE IF NOT EXISTS embassy.published (
    publication oid NOT NULL,
    relation oid NOT NULL,
    membership oid NOT NULL,              -- of pg_publication_rel; 0: changes were left out in another way
    PRIMARY KEY (publication, relation)
);

-- Notes the tables that were not noted before. The others keep what is noted of them, as long as they are there.
CREATE OR REPLACE FUNCTION embassy.note_published(named name) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM embassy.published n
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = n.relation)
       OR NOT EXISTS (SELECT FROM pg_catalog.pg_publication p WHERE p.oid = n.publication);
    INSERT INTO embassy.published
    SELECT p.oid, r.prrelid, r.oid
    FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
    WHERE p.pubname = named
    ON CONFLICT DO NOTHING
$$;

-- Notes one that was just put in, with all that it holds accounted for. DDL calls this: it touches no row of another table, on
-- which two transactions of home would wait for each other.
CREATE OR REPLACE FUNCTION embassy.note_published_anew(named name, taken oid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM embassy.published n USING pg_catalog.pg_publication p
    WHERE p.oid = n.publication AND p.pubname = named AND n.relation = taken;
    INSERT INTO embassy.published
    SELECT p.oid, r.prrelid, r.oid
    FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
    WHERE p.pubname = named AND r.prrelid = taken
$$;

-- Tables whose changes are not all in the stream: out of the publication, or put in again by someone else. One that was made
-- unlogged has none.
CREATE OR REPLACE FUNCTION embassy.publication_gaps(named name) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(
        SELECT pg_catalog.format('%s.%s', s.nspname, c.relname)
        FROM embassy.published n
        JOIN pg_catalog.pg_publication p ON p.oid = n.publication
        JOIN pg_catalog.pg_class c ON c.oid = n.relation JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
        WHERE p.pubname = named AND c.relpersistence = 'p'
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.oid = n.membership)
        ORDER BY 1)
$$;

-- The same; a publication that leaves out kinds of changes now has done so, whatever becomes of it.
CREATE OR REPLACE FUNCTION embassy.note_gaps(named name) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE embassy.published n SET membership = 0
    FROM pg_catalog.pg_publication p, pg_catalog.pg_class c
    WHERE p.oid = n.publication AND p.pubname = named AND c.oid = n.relation AND n.membership <> 0
      AND (NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate) OR (p.pubviaroot AND c.relkind = 'p'));
    RETURN embassy.publication_gaps(named);
END
$$;

REVOKE ALL ON FUNCTION embassy.note_published(name), embassy.note_published_anew(name, oid), embassy.publication_gaps(name),
    embassy.note_gaps(name) FROM PUBLIC;
