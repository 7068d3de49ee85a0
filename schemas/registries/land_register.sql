-- Land register (e-Land): who owns which property, in which shares, under which mortgages.
-- Hard for replication: owner sets replaced whole, mortgage ranks swapped under a deferred unique constraint, list partitions
-- of sub-partitions, row moves between them, numeric keys, a property renumbered with everything under it.
CREATE SCHEMA land_register;

CREATE SEQUENCE land_register.property_number START 100000 INCREMENT 7;

CREATE TABLE land_register.property (
    number bigint PRIMARY KEY DEFAULT nextval('land_register.property_number'),
    cadastral_code text NOT NULL UNIQUE,
    mortgaged numeric(16, 2) NOT NULL DEFAULT 0,
    mortgages smallint NOT NULL DEFAULT 0,
    entries integer NOT NULL DEFAULT 0,
    description text,
    attributes jsonb NOT NULL DEFAULT '{}'
);
ALTER TABLE land_register.property ALTER COLUMN description SET STORAGE EXTERNAL;

CREATE TABLE land_register.owner (
    number bigint NOT NULL REFERENCES land_register.property ON UPDATE CASCADE ON DELETE CASCADE,
    owner text NOT NULL,
    numerator integer NOT NULL CHECK (numerator > 0),
    denominator integer NOT NULL CHECK (denominator > 0 AND 5040 % denominator = 0),
    since timestamp with time zone NOT NULL DEFAULT now(),
    PRIMARY KEY (number, owner)
);
COMMENT ON TABLE land_register.owner IS 'The shares of a property always sum to one';

CREATE TABLE land_register.mortgage (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number bigint NOT NULL REFERENCES land_register.property ON UPDATE CASCADE ON DELETE CASCADE,
    rank smallint NOT NULL CHECK (rank > 0),
    creditor text NOT NULL,
    amount numeric(16, 2) NOT NULL CHECK (amount > 0),
    UNIQUE (number, rank) DEFERRABLE INITIALLY IMMEDIATE
);

CREATE SEQUENCE land_register.entry_number;
CREATE TABLE land_register.entry (
    part text NOT NULL,
    id bigint NOT NULL DEFAULT nextval('land_register.entry_number'),
    number bigint NOT NULL REFERENCES land_register.property ON UPDATE CASCADE ON DELETE CASCADE,
    made_on date NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (part, id, made_on)
) PARTITION BY LIST (part);
CREATE TABLE land_register.entry_ownership PARTITION OF land_register.entry FOR VALUES IN ('I', 'II');
CREATE TABLE land_register.entry_burden PARTITION OF land_register.entry FOR VALUES IN ('III');
CREATE TABLE land_register.entry_mortgage PARTITION OF land_register.entry FOR VALUES IN ('IV') PARTITION BY RANGE (made_on);
CREATE TABLE land_register.entry_mortgage_old
    PARTITION OF land_register.entry_mortgage FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE land_register.entry_mortgage_new
    PARTITION OF land_register.entry_mortgage FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
CREATE INDEX entry_property ON land_register.entry (number);

CREATE TABLE land_register.creditor_total (
    creditor text PRIMARY KEY,
    amount numeric(18, 2) NOT NULL
);

CREATE TABLE land_register.fee (
    code numeric(6, 2) PRIMARY KEY,
    title text NOT NULL,
    euros numeric(10, 2)
);

CREATE TABLE land_register.journal (
    token uuid NOT NULL,
    kind text NOT NULL,
    client integer NOT NULL,
    sequence bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE land_register.journal REPLICA IDENTITY FULL;
CREATE INDEX journal_token ON land_register.journal (token);
CREATE INDEX journal_client ON land_register.journal (client, sequence);
