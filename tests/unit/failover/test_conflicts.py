from __future__ import annotations

import pytest

from embassy.model.errors import IntegrityError
from embassy.model.large_objects import OBJECTS
from embassy.model.lsn import Lsn
from embassy.model.relation import ReplicaIdentity
from embassy.model.touched import Touched
from failover.conflicts import readable
from failover.touched_rows import touched_rows
from producers.slot_transactions import transactions
from tests.harness import pgoutput
from tests.harness.pgoutput import UNCHANGED

LAND, LOG, BEAT = 1, 2, 3
TABLES = (
    pgoutput.relation(LAND, pgoutput.table("land", "id owner scan")),
    pgoutput.relation(LOG, pgoutput.table("log", "what", identity=ReplicaIdentity.FULL)),
    pgoutput.relation(BEAT, pgoutput.table("heartbeat", "id")._replace(schema="embassy")),
)


def transaction(end: int, *changes: bytes) -> tuple[bytes, ...]:
    return (pgoutput.begin(end - 8, xid=end), *changes, pgoutput.commit(end - 8, end))


def test_whole_transactions_behind_the_position_come_in_order_with_names() -> None:
    messages = (
        *TABLES,
        *transaction(100, pgoutput.insert(LAND, (b"1", b"old", b"x"))),
        *transaction(
            200,
            pgoutput.insert(LAND, ("Ü".encode(), None, b"")),
            pgoutput.update(LAND, (b"2", b"new", UNCHANGED), key=(b"1", None, None)),
            pgoutput.delete(LOG, old=(b"gone",)),
            pgoutput.truncate([LOG]),
        ),
        *transaction(300, pgoutput.delete(LAND, key=(b"2", None, None))),
    )
    second, third = readable(transactions(messages, Lsn(100)))
    assert (second["xid"], second["end_lsn"]) == (200, "0/C8")
    assert second["changes"] == [
        {"op": "insert", "table": "public.land", "new": {"id": "Ü", "owner": None, "scan": ""}},
        {"op": "update", "table": "public.land", "old": {"id": "1"}, "new": {"id": "2", "owner": "new"}},
        {"op": "delete", "table": "public.log", "old": {"what": "gone"}},
        {"op": "truncate", "table": "public.log"},
    ]
    assert third["changes"] == [{"op": "delete", "table": "public.land", "old": {"id": "2"}}]


def test_the_products_own_rows_are_left_out() -> None:
    messages = (*TABLES, *transaction(200, pgoutput.update(BEAT, (b"1",))))
    assert list(readable(transactions(messages, Lsn(0)))) == []


def test_large_objects_are_told_as_they_travel() -> None:
    change = pgoutput.table("large_object_change", "ordinal loid what page data")._replace(schema="embassy")
    messages = (
        pgoutput.relation(9, change),
        *transaction(
            200,
            pgoutput.insert(9, (b"1", b"17", b"page", b"3", b"\\x00")),
            pgoutput.delete(9, key=(b"1", *[None] * 4)),
        ),
        *transaction(300, pgoutput.insert(9, (b"2", b"18", b"gone", None, None))),
    )
    assert [transaction["changes"] for transaction in readable(transactions(messages, Lsn(0)))] == [
        [{"op": "large_object", "loid": "17", "what": "page", "page": "3", "data": "\\x00"}],
        [{"op": "large_object", "loid": "18", "what": "gone"}],
    ]
    assert touched_rows(transactions(messages, Lsn(0))) == {
        OBJECTS: Touched(("oid",), frozenset({("17",), ("18",)}))
    }
    assert touched_rows(transactions(messages, Lsn(200))) == {OBJECTS: Touched(("oid",), frozenset({("18",)}))}


def test_a_change_of_a_table_that_was_not_described_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not described"):
        list(transactions(transaction(200, pgoutput.insert(9, (b"1",))), Lsn(0)))
