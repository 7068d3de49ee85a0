"""Large objects are compared with home in the stream, although they come into it at their own time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.lab.lab import Lab
from embassy.cli.repair import repair_of
from embassy.model.large_objects import TABLES
from embassy.model.repair_plan import RepairPlan
from embassy.model.verification import Chunk, Message
from embassy.pg import repair_source, verify_store
from embassy.pg.large_objects import carry_all
from tests.harness.lab import MakeDatabase
from tests.harness.two_databases import new_pair
from tests.harness.verified import STREAM, Verified


@pytest.fixture
def objects(lab: Lab, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Verified]:
    two = new_pair(lab, make_database("home"), make_database("embassy-1"))
    two.publish_with_ddl()
    both = Verified(two)
    both.watch(monkeypatch)
    both.home(
        "SELECT lo_from_bytea(i::oid, convert_to(repeat('page', 300 * i), 'UTF8')) FROM generate_series(11, 40) i"
    )
    both.home("SELECT lo_put(11, 40 * 2048, 'far'), lo_create(50)")
    both.home("GRANT SELECT ON LARGE OBJECT 12 TO PUBLIC; COMMENT ON LARGE OBJECT 12 IS 'a scan'")
    carry_all(both.two.source, STREAM)
    both.carry()
    yield both
    two.close()


def of_objects(both: Verified) -> tuple[str, set[tuple[Any, ...]]]:
    """How both tables of large objects compare."""
    ended = both.outcome(both.run(tables=TABLES, whole=False))
    assert ended is not None
    return ended[1], {(name, kind, key) for name, kind, _, key in both.findings()}


def test_large_objects_are_compared_by_page_and_sent_once_more(objects: Verified) -> None:
    assert of_objects(objects) == ("match", set())
    results = objects.results()
    assert results["pg_largeobject_metadata"] == (31, 0, 0, 0, 0, "")
    assert results["pg_largeobject"][0] > 400
    objects.spoil(
        "UPDATE pg_largeobject SET data = set_byte(data, 7, 33) WHERE loid = 20 AND pageno = 2",
        "DELETE FROM pg_largeobject WHERE loid = 11 AND pageno = 40",
        "SELECT lo_unlink(14), lo_unlink(50), lo_from_bytea(45, 'nobody''s'), lo_put(13, 30 * 2048, 'more')",
        "COMMENT ON LARGE OBJECT 12 IS 'another'; GRANT UPDATE ON LARGE OBJECT 15 TO PUBLIC",
    )
    outcome, found = of_objects(objects)
    assert outcome == "differs"
    lost = {("pg_largeobject", "missing", ("14", str(page))) for page in range(9)}
    assert found == lost | {
        ("pg_largeobject", "mismatched", ("20", "2")),
        ("pg_largeobject", "missing", ("11", "40")),
        ("pg_largeobject", "extra", ("13", "30")),
        ("pg_largeobject", "extra", ("45", "0")),
        ("pg_largeobject_metadata", "missing", ("14",)),
        ("pg_largeobject_metadata", "missing", ("50",)),
        ("pg_largeobject_metadata", "extra", ("45",)),
        ("pg_largeobject_metadata", "mismatched", ("12",)),
        ("pg_largeobject_metadata", "mismatched", ("15",)),
    }
    assert verify_store.known_differences(objects.two.replica, STREAM) == [
        "pg_catalog.pg_largeobject: 13",
        "pg_catalog.pg_largeobject_metadata: 5",
    ]
    known = verify_store.tables(objects.two.replica, STREAM, with_findings=True)
    repairs = tuple(repair_of(objects.two.replica, table) for table in known if table.result.differing)
    plan = RepairPlan("registry", STREAM.hex(), "", repairs)
    requested = repair_source.request(objects.two.source, plan, "a test")
    assert repair_source.unfinished(objects.two.source, STREAM, requested) == 1
    carry_all(objects.two.source, STREAM)
    assert repair_source.unfinished(objects.two.source, STREAM, requested) == 0
    objects.carry()
    assert of_objects(objects) == ("match", set())


def test_large_objects_written_meanwhile_are_not_taken_for_differing(objects: Verified) -> None:
    """Whether the stream is behind home's snapshot, or ahead of it."""
    turns: list[str] = []

    def write(message: Message) -> None:
        if isinstance(message, Chunk) and message.table.name == "pg_largeobject" and not turns:
            turns.append("told")
            objects.home("SELECT lo_put(11, 100, 'late'), lo_unlink(14), lo_from_bytea(10, 'new')")
            carry_all(objects.two.source, STREAM)  # comes before this first chunk, which does not show it
            objects.home("SELECT lo_put(22, 100, 'later')")

    objects.home("SELECT lo_put(30, 5000, 'not carried yet'), lo_unlink(31), lo_from_bytea(61, 'nor this')")
    objects.home("BEGIN; SELECT lo_open(33, 131072); SELECT lo_truncate(0, 100); COMMIT")
    objects.home("COMMENT ON LARGE OBJECT 12 IS NULL")
    objects.between = write
    objects.spoil("UPDATE pg_largeobject SET data = set_byte(data, 7, 33) WHERE loid = 25 AND pageno = 2")
    assert of_objects(objects) == ("differs", {("pg_largeobject", "mismatched", ("25", "2"))})
    assert turns
    assert objects.results()["pg_largeobject"][4:] == (0, "")
    assert objects.results()["pg_largeobject_metadata"][4:] == (0, "")
