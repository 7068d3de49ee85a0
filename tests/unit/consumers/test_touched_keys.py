from __future__ import annotations

from consumers.touched_keys import RowsOf, Touch, touches
from embassy.model.batch import Batch
from embassy.model.relation import ReplicaIdentity
from embassy.model.row_text import row_digest
from embassy.model.verification import TableName
from producers.batch_builder import BatchBuilder
from producers.pgoutput_decoder import decode_begin, decode_commit
from tests.harness import pgoutput
from tests.harness.pgoutput import UNCHANGED

ACCOUNT = pgoutput.table("account", "id part doc", key=(0, 1))
LOG = pgoutput.table("log", "x y", identity=ReplicaIdentity.FULL)
ROWS_OF_ACCOUNT = RowsOf(TableName("public", "account"), ("id", "part", "doc"), ("part", "id"))
ROWS_OF_LOG = RowsOf(TableName("public", "log"), ("y", "x"), ())


def build(*transactions: list[bytes]) -> Batch:
    builder = BatchBuilder()
    builder.relations.take(pgoutput.relation(1, ACCOUNT))
    builder.relations.take(pgoutput.relation(2, LOG))
    for number, messages in enumerate(transactions):
        lsn = 100 + number
        builder.add_transaction(
            decode_begin(pgoutput.begin(lsn, 700 + number)), decode_commit(pgoutput.commit(lsn, lsn + 1)), messages
        )
    return builder.build_whole()


def digest(*row: bytes | None) -> tuple[str]:
    return (row_digest(row)[:8].hex(),)


def test_each_transaction_touches_the_old_and_the_new_keys_of_its_rows() -> None:
    batch = build(
        [pgoutput.insert(1, [b"1", b"a\t", b""]), pgoutput.insert(2, [b"", None])],
        [
            pgoutput.update(1, [b"2", b"b", UNCHANGED]),
            pgoutput.update(1, [b"3", b"c", b"x"], key=[b"1", b"a\t", None]),
            pgoutput.update(1, [b"2", b"b", b"y"]),
        ],
        [pgoutput.insert(2, [b"q", b"r"])],
        [pgoutput.delete(1, key=[b"3", b"c", None])],
    )
    assert list(touches(batch, ROWS_OF_ACCOUNT)) == [
        Touch(700, [("a\t", "1")], ""),
        Touch(701, [("b", "2"), ("b", "2"), ("c", "3"), ("a\t", "1"), ("b", "2"), ("b", "2")], ""),
        Touch(703, [("c", "3")], ""),
    ]


def test_rows_without_a_key_are_touched_by_their_digests() -> None:
    batch = build(
        [
            pgoutput.update(2, [b"new", UNCHANGED], old=[b"old", b"long"]),
            pgoutput.insert(2, [None, b"'"]),
            pgoutput.delete(2, old=[b"\\", None]),
        ]
    )
    ((xid, keys, everything),) = touches(batch, ROWS_OF_LOG)
    assert (xid, everything) == (700, "")
    assert keys == [digest(b"long", b"new"), digest(b"long", b"old"), digest(b"'", None), digest(None, b"\\")]


def test_a_truncate_and_a_change_that_does_not_name_its_row_touch_everything() -> None:
    batch = build([pgoutput.truncate([2, 1])], [pgoutput.update(1, [b"1", b"a", b"d"])])
    assert [(touch.xid, bool(touch.everything)) for touch in touches(batch, ROWS_OF_ACCOUNT)] == [
        (700, True),
        (701, False),
    ]
    by_document = ROWS_OF_ACCOUNT._replace(key=("doc",))
    batch = build([pgoutput.update(1, [b"1", b"a", UNCHANGED])], [pgoutput.delete(1, key=[b"1", b"a", None])])
    assert all(touch.everything for touch in touches(batch, by_document))
    assert [touch.everything for touch in touches(batch, ROWS_OF_ACCOUNT._replace(key=("gone",)))] != ["", ""]


def test_what_touches_nothing_of_the_table_tells_nothing() -> None:
    assert list(touches(build([pgoutput.insert(2, [b"q", b"r"])]), ROWS_OF_ACCOUNT)) == []
