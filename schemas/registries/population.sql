-- Population register.
-- Hard for replication: row-level security, a dropped column, large photographs that stay unchanged beside other columns
-- (TOAST), personal codes that change and cascade, infinity as a date, "char" and character(n), a range exclusion.
CREATE SCHEMA population;

CREATE TYPE population.marital_status AS ENUM ('single', 'married', 'divorced', 'widowed');
CREATE DOMAIN population.personal_code AS character(11) CHECK (VALUE ~ '^[1-8][0-9]{10}$');

CREATE SEQUENCE population.birth_number;

CREATE TABLE population.residence (
    id integer PRIMARY KEY,
    address text NOT NULL,
    residents integer NOT NULL DEFAULT 0 CHECK (residents >= 0)
);

CREATE TABLE population.person (
    personal_code population.personal_code PRIMARY KEY,
    obsolete_number text,
    given_name text NOT NULL,
    surname text NOT NULL,
    sex "char" NOT NULL CHECK (sex IN ('F', 'M')),
    born date NOT NULL,
    died date NOT NULL DEFAULT 'infinity',
    status population.marital_status NOT NULL DEFAULT 'single',
    citizenships character(3)[] NOT NULL,
    residence_id integer REFERENCES population.residence (id),
    details jsonb NOT NULL DEFAULT '{}',
    photo bytea,
    CHECK (born <= died)
);
ALTER TABLE population.person DROP COLUMN obsolete_number;
ALTER TABLE population.person ALTER COLUMN photo SET STORAGE EXTERNAL;
CREATE INDEX person_residence ON population.person (residence_id);
CREATE INDEX person_status ON population.person (status);
COMMENT ON COLUMN population.person.died IS 'infinity for the living';

ALTER TABLE population.person ENABLE ROW LEVEL SECURITY;
CREATE POLICY not_protected ON population.person FOR SELECT USING (NOT details ? 'protected');

CREATE TABLE population.kinship (
    parent population.personal_code REFERENCES population.person ON UPDATE CASCADE ON DELETE CASCADE,
    child population.personal_code REFERENCES population.person ON UPDATE CASCADE ON DELETE CASCADE,
    PRIMARY KEY (parent, child)
);
CREATE INDEX kinship_child ON population.kinship (child);

CREATE TABLE population.marriage (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    first_spouse population.personal_code NOT NULL REFERENCES population.person ON UPDATE CASCADE,
    second_spouse population.personal_code NOT NULL REFERENCES population.person ON UPDATE CASCADE,
    during daterange NOT NULL,
    CHECK (first_spouse <> second_spouse)
);
CREATE UNIQUE INDEX marriage_first ON population.marriage (first_spouse) WHERE upper_inf(during);
CREATE UNIQUE INDEX marriage_second ON population.marriage (second_spouse) WHERE upper_inf(during);
CREATE INDEX marriage_any_first ON population.marriage (first_spouse);
CREATE INDEX marriage_any_second ON population.marriage (second_spouse);

CREATE TABLE population.vital_statistics (
    year integer PRIMARY KEY,
    births integer NOT NULL DEFAULT 0,
    deaths integer NOT NULL DEFAULT 0,
    living integer NOT NULL
);

-- The office that keeps the building may hold it for one event at a time.
CREATE TABLE population.ceremony (
    id uuid PRIMARY KEY,
    during tstzrange NOT NULL,
    marriage_id bigint REFERENCES population.marriage (id) ON DELETE SET NULL,
    EXCLUDE USING gist (during WITH &&)
);

CREATE TABLE population.journal (
    token uuid NOT NULL,
    kind text NOT NULL,
    client integer NOT NULL,
    sequence bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE population.journal REPLICA IDENTITY FULL;
CREATE INDEX journal_token ON population.journal (token);
CREATE INDEX journal_client ON population.journal (client, sequence);
