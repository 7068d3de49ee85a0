-- A register as a snapshot finds it: wide rows, large values beside them, a long narrow history, small tables.
CREATE TABLE person (
  id bigint PRIMARY KEY, personal_code char(11) NOT NULL UNIQUE, given_name text NOT NULL, surname text NOT NULL,
  birth_name text, born date NOT NULL, died date, sex char(1) NOT NULL, citizenship char(3) NOT NULL,
  birth_place text, residence text, postal_code text, county smallint, municipality smallint, email text, phone text,
  marital_status smallint, spouse bigint, mother bigint, father bigint, education smallint, language char(2),
  documents jsonb NOT NULL, restricted boolean NOT NULL, income numeric(14, 2), photo_hash bytea,
  registered_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, source text, note text);
CREATE INDEX person_name ON person (surname, given_name);
CREATE INDEX person_residence ON person (county, municipality);
CREATE TABLE deed (
  id bigint PRIMARY KEY, number text NOT NULL UNIQUE, owner bigint NOT NULL, title text NOT NULL, body text NOT NULL,
  seal bytea NOT NULL, registered_at timestamptz NOT NULL);
CREATE INDEX deed_owner ON deed (owner);
CREATE TABLE entry (
  id bigint PRIMARY KEY, person bigint NOT NULL, kind smallint NOT NULL, field text NOT NULL, was text, is_now text,
  clerk integer NOT NULL, entered_at timestamptz NOT NULL);
CREATE INDEX entry_person ON entry (person, entered_at);
CREATE TABLE county (id smallint PRIMARY KEY, name text NOT NULL);
CREATE TABLE office (id integer PRIMARY KEY, county smallint REFERENCES county, name text NOT NULL, address text);
CREATE TABLE clerk (id integer PRIMARY KEY, office integer REFERENCES office, name text NOT NULL, active boolean);
CREATE TABLE mark (id bigint PRIMARY KEY, made_at timestamptz NOT NULL);
