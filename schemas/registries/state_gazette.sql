-- State gazette: issues, acts and notices.
-- Hard for replication: texts of hundreds of kilobytes that stay unchanged beside other columns, xml, generated search
-- vectors, table inheritance, acts that amend acts not yet written (deferred self-reference), a whole issue withdrawn.
CREATE SCHEMA state_gazette;

CREATE TYPE state_gazette.act_kind AS ENUM ('act', 'regulation', 'decree', 'treaty');

CREATE SEQUENCE state_gazette.issue_number AS integer START 1000;

CREATE TABLE state_gazette.issue (
    number integer PRIMARY KEY,
    published_at timestamp with time zone NOT NULL,
    acts integer NOT NULL,
    pages integer NOT NULL,
    text_bytes bigint NOT NULL
);
COMMENT ON TABLE state_gazette.issue IS 'Its counts are those of the acts it holds';

CREATE TABLE state_gazette.act (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issue integer NOT NULL REFERENCES state_gazette.issue (number) ON UPDATE CASCADE ON DELETE CASCADE,
    kind state_gazette.act_kind NOT NULL,
    title text NOT NULL,
    pages smallint NOT NULL CHECK (pages > 0),
    in_force tstzrange NOT NULL,
    body text NOT NULL,
    annex xml,
    search tsvector GENERATED ALWAYS AS (to_tsvector('simple', title)) STORED,
    amends bigint REFERENCES state_gazette.act (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    readings integer NOT NULL DEFAULT 0
);
ALTER TABLE state_gazette.act ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX act_issue ON state_gazette.act (issue);
CREATE INDEX act_amends ON state_gazette.act (amends);
CREATE INDEX act_search ON state_gazette.act USING gin (search);

CREATE TABLE state_gazette.notice (
    id uuid PRIMARY KEY,
    text text NOT NULL,
    posted_at timestamp with time zone NOT NULL
);
CREATE TABLE state_gazette.bankruptcy_notice (
    debtor text NOT NULL,
    claims numeric,
    PRIMARY KEY (id)
) INHERITS (state_gazette.notice);
CREATE TABLE state_gazette.auction_notice (
    starts_at timestamp with time zone NOT NULL,
    lasts interval NOT NULL,
    PRIMARY KEY (id)
) INHERITS (state_gazette.notice);

CREATE TABLE state_gazette.notice_count (
    kind text PRIMARY KEY,
    notices integer NOT NULL
);

CREATE TABLE state_gazette.subscription (
    subscriber text PRIMARY KEY,
    keywords text[] NOT NULL,
    last_issue integer,
    visits integer NOT NULL DEFAULT 0
);

CREATE TABLE state_gazette.journal (
    token uuid NOT NULL,
    kind text NOT NULL,
    client integer NOT NULL,
    sequence bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE state_gazette.journal REPLICA IDENTITY FULL;
CREATE INDEX journal_token ON state_gazette.journal (token);
CREATE INDEX journal_client ON state_gazette.journal (client, sequence);
