"""DDL at home, at its exact place in the stream, on a real pipeline."""

from __future__ import annotations

from deploy.lab import databases
from tests.harness.pipeline import MakePipeline


def test_ddl_mixed_with_rows_arrives_in_order(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline("")
    pipeline.start_all()
    with pipeline.source() as source:
        source.execute(
            """BEGIN;
            CREATE TABLE first (id int PRIMARY KEY, name text);
            INSERT INTO first SELECT n, 'row ' || n FROM generate_series(1, 100) n;
            ALTER TABLE first ADD COLUMN extra int DEFAULT 7, DROP COLUMN name;
            UPDATE first SET extra = id WHERE id > 50;
            ALTER TABLE first RENAME COLUMN extra TO "Extra";
            INSERT INTO first VALUES (101, 1);
            CREATE TABLE keyless (a text);
            INSERT INTO keyless VALUES ('x'), ('x');
            COMMIT;"""
        )
        source.execute("DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless)")
        source.execute("CREATE TABLE gone (id int PRIMARY KEY)")
        source.execute("INSERT INTO gone VALUES (1)")
        source.execute("DROP TABLE gone")
    pipeline.wait_level()
    with pipeline.replica(databases.ADMIN) as replica:
        assert replica.execute("SELECT to_regclass('public.gone'), count(*) FROM public.keyless").fetchone() == (
            None,
            1,
        )
        assert replica.execute('SELECT sum("Extra") FROM public.first').fetchone() == (
            7 * 50 + sum(range(51, 101)) + 1,
        )
