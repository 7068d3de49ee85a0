"""Large objects are in the replica as they are at home: with their row, or with the next look.

Through all roles they go in acceptance/test_verify.py and faults/test_failback.py; here nothing is between, so that it
shows at which place of the stream each of them comes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.pg import large_objects
from embassy.pg.connection import connect
from tests.harness.lab import MakeDatabase
from tests.harness.large_objects import objects
from tests.harness.two_databases import TwoDatabases, new_pair

STREAM = b"\x02" * 16
_ROLES = "DO $$ BEGIN CREATE ROLE clerk; CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$"


@pytest.fixture
def two(lab: Lab, make_database: MakeDatabase) -> Iterator[TwoDatabases]:
    """Two databases with objects that were there before the stream."""
    found = new_pair(lab, make_database("home"), make_database("embassy-1"))
    for connection in (found.source, found.replica):
        connection.execute(_ROLES)
    found.replica.execute("SELECT lo_from_bytea(100, 'left over')")
    # more than one transaction carries, with a hole, rights, and a comment
    found.source.execute("SELECT lo_from_bytea(100, convert_to(repeat('population ', 400000), 'UTF8'))")
    found.source.execute("SELECT lo_create(101), lo_put(101, 300 * 2048 + 5, 'far')")
    found.source.execute("ALTER LARGE OBJECT 101 OWNER TO clerk; COMMENT ON LARGE OBJECT 101 IS 'it''s'")
    found.source.execute("GRANT SELECT ON LARGE OBJECT 101 TO reader")
    found.publish_with_ddl()
    yield found
    found.close()


def look(two: TwoDatabases) -> None:
    """As a producer does: note what is new, and carry it; then all is alike."""
    large_objects.carry_all(two.source, STREAM)
    two.apply(two.batches())
    assert objects(two.source) == objects(two.replica)
    state = "SELECT behind, as_of > now() - interval '1 minute' FROM embassy.large_object_state"
    for side in (two.source, two.replica):
        assert side.execute(state).fetchall() == [(0, True)]
        assert side.execute("SELECT count(*) FROM embassy.large_object_change").fetchone() == (0,)


def test_large_objects_travel(lab: Lab, two: TwoDatabases) -> None:
    home = two.source
    behind = large_objects.look(home, STREAM)
    assert behind == 2
    assert large_objects.carry(home, STREAM), "one transaction does not carry everything"
    two.apply(two.batches())
    assert two.replica.execute("SELECT behind > 0, as_of FROM embassy.large_object_state").fetchall() == [
        (True, None)
    ]
    look(two)

    # a row and the object that it refers to come together, from a role that may do nothing with the product's tables
    home.execute(
        "CREATE DOMAIN public.lo AS oid; CREATE TABLE public.scan (id bigint PRIMARY KEY, image public.lo, note text)"
    )
    home.execute(f"ALTER TABLE public.scan OWNER TO {databases.OWNER}".encode())
    dsn = lab.home.postgres.dsn(databases.OWNER, home.info.dbname)
    with connect(dsn, application_name="test", autocommit=True) as owner:
        owner.execute("CREATE TABLE public.late (id bigint PRIMARY KEY, image public.lo)")
        owner.execute(
            "INSERT INTO public.scan SELECT i, lo_from_bytea(0, convert_to(repeat('page', 1000 + i::int), 'UTF8')), 'new'"
            " FROM generate_series(1, 20) i; INSERT INTO public.late SELECT 1, lo_from_bytea(0, 'late')"
        )
        owner.execute("BEGIN; INSERT INTO public.late SELECT 2, lo_from_bytea(0, 'undone'); ROLLBACK")
    two.apply(two.batches())  # no look has been taken
    assert objects(home) == objects(two.replica)
    assert two.replica.execute("SELECT count(*) FROM public.scan").fetchone() == (20,)
    assert two.replica.execute("SELECT lo_get(image) FROM public.late").fetchall() == [(b"late",)]

    # written in place, made shorter, made anew under the same number, removed: whenever the next look is
    home.execute("SELECT lo_put(100, 5000, 'in place')")
    home.execute("BEGIN; SELECT lo_open(101, 131072); SELECT lo_truncate(0, 100); COMMIT")
    home.execute("SELECT lo_put(101, 40 * 2048, 'sparse')")
    home.execute("UPDATE public.scan SET note = 'gone' WHERE id = 1 RETURNING lo_unlink(image)")
    home.execute("SELECT lo_unlink(image), lo_from_bytea(image, 'other') FROM public.scan WHERE id = 2")
    home.execute("COMMENT ON LARGE OBJECT 101 IS NULL; REVOKE SELECT ON LARGE OBJECT 101 FROM reader")
    home.execute("SELECT lo_unlink(lo_from_bytea(0, 'made and gone'))")
    look(two)
    home.execute("SELECT lo_put(100, 0, 'once more')")
    home.execute("BEGIN; SELECT lo_put(100, 0, 'undone'); ROLLBACK")
    look(two)
