"""Large objects are in the replica as they are at home: with their row, or soon after."""

from __future__ import annotations

from tests.harness.large_objects import objects
from tests.harness.pipeline import MakePipeline, Pipeline, poll_until

SCHEMA = """
CREATE DOMAIN public.lo AS oid;
CREATE TABLE public.scan (id bigint PRIMARY KEY, image public.lo, note text);
"""
_ROLES = "DO $$ BEGIN CREATE ROLE clerk; CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$"


def await_alike(pipeline: Pipeline) -> None:
    """Wait until the replica's objects are home's: owner, rights, comment, and every page."""

    def alike() -> bool:
        with pipeline.source("embassy_admin") as source, pipeline.replica("embassy_admin") as replica:
            return objects(source) == objects(replica)

    poll_until(alike, "the large objects are alike")


def test_large_objects_travel(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(SCHEMA, provision=False)
    with pipeline.replica("embassy_admin") as replica, pipeline.source("embassy_admin") as source:
        for connection in (source, replica):
            connection.execute(_ROLES)
        replica.execute("SELECT lo_from_bytea(100, 'left over')")
        # there before the stream: more than one transaction carries, with a hole, rights, and a comment
        source.execute("SELECT lo_from_bytea(100, convert_to(repeat('population ', 400000), 'UTF8'))")
        source.execute("SELECT lo_create(101), lo_put(101, 300 * 2048 + 5, 'far')")
        source.execute("ALTER LARGE OBJECT 101 OWNER TO clerk; COMMENT ON LARGE OBJECT 101 IS 'it''s'")
        source.execute("GRANT SELECT ON LARGE OBJECT 101 TO reader")
    pipeline.provision()
    running = pipeline.start_all()
    await_alike(pipeline)

    with pipeline.source("embassy_admin") as source:
        # a row and the object that it refers to come together
        source.execute("CREATE TABLE public.late (id bigint PRIMARY KEY, image public.lo)")
        source.execute(
            "INSERT INTO public.scan SELECT i, lo_from_bytea(0, convert_to(repeat('page', 1000 + i::int), 'UTF8')), 'new'"
            " FROM generate_series(1, 20) i; INSERT INTO public.late SELECT 1, lo_from_bytea(0, 'late')"
        )
    torn = """SELECT count(*) FROM public.scan s WHERE NOT EXISTS (
                  SELECT FROM pg_catalog.pg_largeobject p WHERE p.loid = s.image AND p.pageno = 1)"""
    with pipeline.replica("embassy_admin") as replica:
        count = "SELECT count(*) FROM public.scan"

        def whole() -> bool:
            replica.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            arrived, without = (replica.execute(query).fetchone() for query in (count, torn))
            replica.execute("COMMIT")
            assert without == (0,), "a row is there without its object"
            return arrived == (20,)

        poll_until(whole, "the rows")
        late = "SELECT lo_get(image) FROM public.late"
        assert replica.execute(late).fetchone() == (b"late",)

    # with the producer dead: written in place, made shorter, made anew under the same number, removed
    pipeline.kill(running["producer"])
    with pipeline.source("embassy_admin") as source:
        source.execute("SELECT lo_put(100, 5000, 'in place')")
        source.execute("BEGIN; SELECT lo_open(101, 131072); SELECT lo_truncate(0, 100); COMMIT")
        source.execute("SELECT lo_put(101, 40 * 2048, 'sparse')")
        source.execute("UPDATE public.scan SET note = 'gone' WHERE id = 1 RETURNING lo_unlink(image)")
        source.execute("SELECT lo_unlink(image), lo_from_bytea(image, 'other') FROM public.scan WHERE id = 2")
        source.execute("COMMENT ON LARGE OBJECT 101 IS NULL; REVOKE SELECT ON LARGE OBJECT 101 FROM reader")
        source.execute("SELECT lo_unlink(lo_from_bytea(0, 'made and gone'))")
    running["producer"] = pipeline.start("producer")
    await_alike(pipeline)

    # while it runs: in place, and undone
    with pipeline.source("embassy_admin") as source:
        source.execute("SELECT lo_put(100, 0, 'while it runs')")
        source.execute("BEGIN; SELECT lo_put(100, 0, 'undone'); ROLLBACK")
    await_alike(pipeline)
    pipeline.wait_level()
    with pipeline.source("embassy_admin") as source:
        assert source.execute("SELECT count(*) FROM embassy.large_object_change").fetchone() == (0,)
    with pipeline.replica("embassy_admin") as replica:
        assert replica.execute("SELECT count(*) FROM embassy.large_object_change").fetchone() == (0,)
        state = "SELECT behind, as_of > now() - interval '1 minute' FROM embassy.large_object_state"
        assert replica.execute(state).fetchall() == [(0, True)]
