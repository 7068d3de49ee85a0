"""A replica that is opened hands out no value of a sequence that home may have handed out."""

from __future__ import annotations

from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.pg import replica_opening, replica_schema
from embassy.pg.connection import connect
from tests.harness.lab import MakeDatabase

_SCHEMA = """
CREATE TABLE public.deed (id serial PRIMARY KEY, no bigint GENERATED ALWAYS AS IDENTITY (INCREMENT 10));
INSERT INTO public.deed (id) SELECT generate_series(1, 500);
CREATE SCHEMA "Odd ""one";
CREATE SEQUENCE "Odd ""one"."down" INCREMENT -5 START -7;
CREATE SEQUENCE public.near_its_end MAXVALUE 1020;
CREATE SEQUENCE public.round_and_round MAXVALUE 9 CYCLE;
CREATE SEQUENCE public.untold;
INSERT INTO embassy.sequence_state
SELECT s, n, last, true, step, now() FROM (VALUES
    ('public', 'deed_id_seq', 300, 1), ('public', 'deed_no_seq', 90000, 10), ('Odd "one', 'down', -12, -5),
    ('public', 'near_its_end', 1000, 1), ('public', 'round_and_round', 5, 1), ('public', 'gone', 5, 1)
) AS told (s, n, last, step)
"""
SET = {
    ("public.deed_id_seq", 600, "rows", 100),
    ("public.deed_no_seq", 91_000, "sample", 1_000),
    ('Odd "one.down', -512, "sample", 500),
    ("public.near_its_end", 1_020, "sample", 20),
    ("public.round_and_round", 9, "sample", 4),
    ("public.untold", 1, "nothing", 0),
}


def test_sequences_are_set_beyond_what_home_has_said_and_what_rows_show(
    lab: Lab, make_database: MakeDatabase
) -> None:
    dsn = lab.site("embassy-1").postgres.dsn(databases.ADMIN, make_database("embassy-1"))
    with connect(dsn, application_name="embassy-test", autocommit=True) as replica:
        replica_schema.ensure(replica)
        replica.execute(_SCHEMA.encode())
        assert {tuple(found) for found in replica_opening.set_sequences(replica, 100)} == SET
        (next_id,) = replica.execute("INSERT INTO public.deed DEFAULT VALUES RETURNING id").fetchone() or (0,)
        assert next_id == 601
        again = replica_opening.set_sequences(replica, 100)  # a promotion that was killed goes on
        values = {found.sequence: found.value for found in again}
        assert values["public.deed_id_seq"] == 701
        assert values["public.deed_no_seq"] == 92_010
        assert values['Odd "one.down'] == -512
