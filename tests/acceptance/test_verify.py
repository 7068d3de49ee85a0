"""A flipped bit, a missing row and an extra one are found under load, through the whole chain, by the commands; large
objects as well."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy.lab import databases
from embassy.model.row_text import row_digest
from tests.harness.meanwhile import meanwhile
from tests.harness.pipeline import MakePipeline, Pipeline

SCHEMA = """
    CREATE TABLE public."Lot 1" (district integer, "no ""1"" x" text, v text, PRIMARY KEY (district, "no ""1"" x"));
    CREATE TABLE public.deed (id bigint PRIMARY KEY, v text);
    CREATE TABLE public.note (id integer, v text);
"""
ROWS = """
    INSERT INTO public."Lot 1" SELECT i % 10, 'lot ' || i, 'v' || i FROM generate_series(1, 3000) i;
    INSERT INTO public.deed SELECT i, repeat('x', i % 50) FROM generate_series(1, 20000) i;
    SELECT lo_from_bytea(4711, convert_to(repeat('page', 1500), 'UTF8'));
    INSERT INTO public.note SELECT i % 100, 'n' || i % 7 FROM generate_series(1, 500) i;
"""


@contextmanager
def load(pipeline: Pipeline) -> Iterator[None]:
    """A client that changes rows all the time."""

    def work(stop: threading.Event) -> None:
        with pipeline.source() as connection:
            turn = 0
            while not stop.wait(0.005):
                turn += 1
                connection.execute("UPDATE deed SET v = v || 'y' WHERE id %% 997 = %s", (turn % 900 + 10,))
                connection.execute(
                    """UPDATE "Lot 1" SET v = %s WHERE district = 1 AND "no ""1"" x" = %s""",
                    (str(turn), f"lot {turn % 300 * 10 + 1}"),
                )
                connection.execute("INSERT INTO deed VALUES (%s, 'new')", (100_000 + turn,))
                connection.execute("INSERT INTO note VALUES (%s, 'new')", (turn,))

    with meanwhile(work):
        yield


def spoil(pipeline: Pipeline, *statements: str) -> None:
    with pipeline.replica(databases.ADMIN) as connection, connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            connection.execute(statement.encode())


def command(pipeline: Pipeline, role: str, *arguments: str) -> dict[str, Any]:
    done = pipeline.embassy_command(role, *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def findings(found: dict[str, Any]) -> set[tuple[str, ...]]:
    return {
        (table["table"], finding["kind"], *finding["key"])
        for table in found["tables"]
        for finding in table["findings"]
    }


def matched(pipeline: Pipeline) -> dict[str, Any]:
    """Verify until no row was in flight each time it was told: where the machine is slow, some may be."""
    while True:
        found = verified(pipeline, codes={0, 4})
        assert found["run"]["outcome"] in ("match", "undecided"), found
        assert not any(table["undecided"] for table in found["tables"]), found
        if found["run"]["outcome"] == "match":
            return found


def verified(pipeline: Pipeline, *, codes: set[int]) -> dict[str, Any]:
    run = command(pipeline, "home-admin", "verify")["registries"]["registry"]["run"]
    done = pipeline.embassy_command(
        "embassy-admin", "verify", "status", "--json", "--keys", "--wait", "60", "--run", run
    )
    assert done.returncode in codes, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["registries"]["registry"]
    assert found["run"]["id"] == run
    return found


def test_what_differs_is_found_by_key_and_repaired_while_the_load_goes_on(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(SCHEMA)
    pipeline.start_all()
    with pipeline.source() as connection:
        connection.execute(ROWS.encode())
    pipeline.wait_level()
    with load(pipeline):
        found = matched(pipeline)
        tables = {table["table"] for table in found["tables"]}
        assert tables == {"Lot 1", "deed", "note", "sentinel", "pg_largeobject", "pg_largeobject_metadata"}
        assert sum(table["rows"] for table in found["tables"]) > 23_000
        spoil(
            pipeline,
            "UPDATE deed SET v = v || '!' WHERE id = 4",
            "DELETE FROM deed WHERE id = 19945",
            "INSERT INTO deed VALUES (-1, 'alien')",
            """UPDATE "Lot 1" SET v = '' WHERE district = 9 AND "no ""1"" x" = 'lot 19'""",
            """DELETE FROM "Lot 1" WHERE district = 9 AND "no ""1"" x" <> 'lot 19'""",
            "INSERT INTO note VALUES (-7, 'alien')",
            "UPDATE pg_largeobject SET data = set_byte(data, 9, 33) WHERE loid = 4711 AND pageno = 1",
            "SELECT lo_create(4712)",
        )
        found = verified(pipeline, codes={4})
        assert found["run"]["outcome"] == "differs"
        assert findings(found) == {
            ("deed", "mismatched", "4"),
            ("deed", "missing", "19945"),
            ("deed", "extra", "-1"),
            ("Lot 1", "mismatched", "9", "lot 19"),
            *{("Lot 1", "missing", "9", f"lot {number}") for number in range(9, 3000, 10) if number != 19},
            ("note", "extra", row_digest([b"-7", b"alien"])[:8].hex()),
            ("pg_largeobject", "mismatched", "4711", "1"),
            ("pg_largeobject_metadata", "extra", "4712"),
        }
        plan = pipeline.folder / "registry.repair"
        planned = command(pipeline, "embassy-admin", "repair", "plan", found["run"]["id"], "-o", str(plan))
        assert (planned["differing"], planned["copies"]) == (306, 6), "of the table without a key, all of it"
        assert plan.stat().st_mode & 0o077 == 0
        command(pipeline, "home-admin", "repair", "apply", str(plan), "--reason", "a test", "--wait", "60")
        matched(pipeline)
    with pipeline.source(databases.ADMIN) as connection:  # text, by its keys: nothing else of the table was sent
        assert connection.execute(
            "SELECT sum(rows_copied), bool_or(from_key IS NULL) FROM embassy.table_copy WHERE table_name = 'Lot 1'"
        ).fetchone() == (300, False)
    pipeline.wait_level()
    entries = command(pipeline, "home-admin", "audit", "log")["entries"]
    assert [(e["action"], e["outcome"]) for e in entries][-2:] == [
        ("repair.apply", "begun"),
        ("repair.apply", "ok"),
    ]
    assert "19945" not in json.dumps(entries)
