-- Identity documents register.
-- Hard for replication: network and bit types, a keyless log that is updated and deleted, document numbers that change and
-- cascade, an exclusion of number ranges, one hot row that every revocation updates, enum arrays.
CREATE SCHEMA identity_documents;

CREATE TYPE identity_documents.document_kind AS ENUM ('id card', 'passport', 'residence permit', 'diplomatic passport');
CREATE TYPE identity_documents.document_status AS ENUM ('valid', 'suspended', 'revoked');

CREATE TABLE identity_documents.blank_stock (
    series character varying(4) NOT NULL,
    numbers int8range NOT NULL,
    next_number bigint NOT NULL,
    issued bigint NOT NULL DEFAULT 0,
    kinds identity_documents.document_kind[] NOT NULL,
    PRIMARY KEY (series),
    EXCLUDE USING gist (numbers WITH &&),
    CHECK (next_number <@ numbers)
);

CREATE TABLE identity_documents.document (
    number character varying(20) PRIMARY KEY,
    series character varying(4) NOT NULL REFERENCES identity_documents.blank_stock (series),
    holder text NOT NULL,
    kind identity_documents.document_kind NOT NULL,
    status identity_documents.document_status NOT NULL,
    changes integer NOT NULL DEFAULT 1,
    valid_for daterange NOT NULL,
    certificate text NOT NULL,
    chip bytea
);
ALTER TABLE identity_documents.document ALTER COLUMN certificate SET STORAGE EXTERNAL;
CREATE INDEX document_holder ON identity_documents.document (holder);
CREATE INDEX document_status ON identity_documents.document (status);

CREATE TABLE identity_documents.status_change (
    number character varying(20) NOT NULL
        REFERENCES identity_documents.document ON UPDATE CASCADE ON DELETE CASCADE,
    change integer NOT NULL,
    status identity_documents.document_status NOT NULL,
    officer uuid NOT NULL,
    changed_at timestamp with time zone NOT NULL DEFAULT now(),
    effective_until timestamp with time zone NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (number, change)
);

CREATE TABLE identity_documents.revocation (
    number character varying(20) PRIMARY KEY
        REFERENCES identity_documents.document ON UPDATE CASCADE ON DELETE CASCADE,
    list_version bigint NOT NULL,
    reason text NOT NULL
);

CREATE TABLE identity_documents.revocation_list (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL,
    entries bigint NOT NULL,
    signed_at timestamp without time zone NOT NULL
);
COMMENT ON TABLE identity_documents.revocation_list IS 'One hot row: every revocation raises its version';

CREATE TABLE identity_documents.reader_log (
    reader macaddr NOT NULL,
    address inet NOT NULL,
    number text,
    flags bit(8) NOT NULL,
    trace bit varying
);
ALTER TABLE identity_documents.reader_log REPLICA IDENTITY FULL;
CREATE INDEX reader_log_reader ON identity_documents.reader_log (reader);

CREATE TABLE identity_documents.reader (
    reader macaddr PRIMARY KEY,
    network cidr NOT NULL,
    log_lines integer NOT NULL DEFAULT 0
);

CREATE TABLE identity_documents.journal (
    token uuid NOT NULL,
    kind text NOT NULL,
    client integer NOT NULL,
    sequence bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE identity_documents.journal REPLICA IDENTITY FULL;
CREATE INDEX journal_token ON identity_documents.journal (token);
CREATE INDEX journal_client ON identity_documents.journal (client, sequence);

CREATE VIEW identity_documents.valid_document AS
    SELECT number, holder, kind FROM identity_documents.document WHERE status = 'valid';
