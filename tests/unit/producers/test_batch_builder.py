from __future__ import annotations

import struct
from pathlib import Path

import pytest

from embassy.model.batch import Batch, Operation, Segment, Transaction
from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.relation import ReplicaIdentity
from producers.batch_builder import PART_MESSAGES, BatchBuilder
from producers.pgoutput_decoder import decode_begin, decode_commit
from tests.harness import pgoutput, pgoutput_recording
from tests.harness.batch_replay import Tables, exact_changes
from tests.harness.pgoutput import UNCHANGED, element

ACCOUNT = pgoutput.table("account", "id name doc")
LOG = pgoutput.table("log", "x y", identity=ReplicaIdentity.FULL)
FEED = pgoutput.table("feed", "x", key=())
GOLDEN = sorted((Path(__file__).parents[2] / "golden").glob("pgoutput-*.bin"))


def build(*messages: bytes) -> Batch:
    builder = BatchBuilder()
    described = (pgoutput.relation(1, ACCOUNT), pgoutput.relation(2, LOG), pgoutput.relation(3, FEED))
    builder.add_transaction(
        decode_begin(pgoutput.begin(100)), decode_commit(pgoutput.commit(100, 148)), described + messages
    )
    return builder.build_whole()


def only(batch: Batch) -> Segment:
    (segment,) = batch.segments
    return segment


def order(batch: Batch) -> list[int]:
    return [index for (index,) in struct.iter_unpack("<H", batch.order)]


def elements(*values: bytes | None) -> bytes:
    return b"".join(map(element, values))


def test_inserts_are_one_copy_text_a_column_with_its_specials_escaped() -> None:
    batch = build(
        pgoutput.insert(1, [b"1", b"a\tb", None]),
        pgoutput.insert(1, [b"2", rb"\N", b"\n\r"]),
        pgoutput.insert(1, [b"3", b"", b"x" * 70_000]),
        pgoutput.insert(1, [b"4", b"plain", b"text"]),
    )
    segment = only(batch)
    assert segment.texts == (
        b"1\n2\n3\n4",
        b"a\\tb\n\\\\N\n\nplain",
        b"\\N\n\\n\\r\n" + b"x" * 70_000 + b"\ntext",
    )
    assert (segment.rows, segment.columns, segment.key, segment.wave) == (4, (0, 1, 2), (), 1)
    assert batch.relations == (ACCOUNT,)


def test_updates_are_one_column_of_elements_each() -> None:
    segment = only(
        build(
            pgoutput.update(1, [b"1", b"a", b"b"]),
            pgoutput.update(1, [b"2", None, b""]),
            pgoutput.update(1, [b"3", b"c", b"x" * 70_000]),
            pgoutput.update(1, [b"4", b"d", None]),
        )
    )
    assert segment.operation is Operation.UPDATE
    assert (segment.rows, segment.columns, segment.key) == (4, (0, 1, 2), ())
    assert segment.values == (
        elements(b"1", b"2", b"3", b"4"),
        elements(b"a", None, b"c", b"d"),
        elements(b"b", b"", b"x" * 70_000, None),
    )
    assert segment.old == ()


def test_an_unchanged_value_is_absent() -> None:
    batch = build(pgoutput.update(1, [b"1", b"a", UNCHANGED]), pgoutput.update(1, [b"2", b"b", b"sent"]))
    absent, sent = batch.segments
    assert (absent.columns, absent.values) == ((0, 1), (elements(b"1"), elements(b"a")))
    assert sent.columns == (0, 1, 2)
    assert order(batch) == [0, 1]


def test_an_update_of_the_key_carries_the_old_key() -> None:
    segment = only(build(pgoutput.update(1, [b"2", b"a", UNCHANGED], key=[b"1", None, None])))
    assert (segment.key, segment.old, segment.columns) == ((0,), (elements(b"1"),), (0, 1))


def test_deletes_carry_the_key_only() -> None:
    segment = only(build(*[pgoutput.delete(1, key=[key, None, None]) for key in (b"1", b"22", b"k" * 300)]))
    assert segment.operation is Operation.DELETE
    assert (segment.key, segment.columns, segment.values) == ((0,), (), ())
    assert segment.old == (elements(b"1", b"22", b"k" * 300),)


def test_under_full_a_row_is_matched_by_all_its_columns() -> None:
    batch = build(
        pgoutput.update(2, [b"a", UNCHANGED], old=[b"b", None]), pgoutput.delete(2, old=[None, b"long" * 20_000])
    )
    delete, update = batch.segments
    assert (update.key, update.old, update.columns) == ((0, 1), (elements(b"b"), elements(None)), (0,))
    assert (delete.key, delete.old) == ((0, 1), (elements(None), elements(b"long" * 20_000)))
    assert order(batch) == [1, 0]


def test_an_update_under_full_may_hold_nothing_new() -> None:
    segment = only(build(pgoutput.update(2, [UNCHANGED, UNCHANGED], old=[b"a", b"b"])))
    assert (segment.rows, segment.columns, segment.values) == (1, (), ())


def test_changes_of_one_row_come_in_waves() -> None:
    batch = build(
        pgoutput.insert(1, [b"1", b"a", b"b"]),
        pgoutput.update(1, [b"1", b"c", b"d"]),
        pgoutput.delete(1, key=[b"1", None, None]),
        pgoutput.insert(1, [b"1", b"e", b"f"]),
    )
    assert [(segment.wave, segment.operation) for segment in batch.segments] == [
        (1, Operation.INSERT),
        (2, Operation.UPDATE),
        (3, Operation.DELETE),
        (3, Operation.INSERT),
    ]
    assert order(batch) == [0, 1, 2, 3]


def test_a_chain_of_renames_keeps_its_order() -> None:
    batch = build(
        pgoutput.update(1, [b"9", b"", b""], key=[b"1", None, None]),
        pgoutput.update(1, [b"1", b"", b""], key=[b"2", None, None]),
        pgoutput.update(1, [b"2", b"", b""], key=[b"3", None, None]),
        pgoutput.update(1, [b"5", b"", b""], key=[b"4", None, None]),
    )
    assert [(segment.wave, segment.rows) for segment in batch.segments] == [(1, 2), (2, 1), (3, 1)]
    assert order(batch) == [0, 1, 2, 0]


def test_equal_rows_without_a_key_stay_in_one_segment() -> None:
    inserted = build(*[pgoutput.insert(2, [b"a", None])] * 5)
    deleted = build(*[pgoutput.delete(2, old=[b"a", None])] * 5)
    assert only(inserted).rows == only(deleted).rows == 5
    assert only(build(*[pgoutput.insert(3, [b"a"])] * 5)).rows == 5


def test_updates_of_equal_rows_do_not_share_a_wave() -> None:
    batch = build(*[pgoutput.update(2, [b"b", b"c"], old=[b"a", None])] * 3)
    assert [(segment.wave, segment.rows) for segment in batch.segments] == [(1, 1), (2, 1), (3, 1)]


def test_an_overwritten_update_is_superseded() -> None:
    batch = build(
        pgoutput.update(1, [b"1", b"a", b"x"]),
        pgoutput.update(1, [b"2", b"b", b"y"]),
        pgoutput.update(1, [b"1", b"c", UNCHANGED]),
        pgoutput.update(1, [b"1", b"d", b"z"]),
        pgoutput.update(1, [b"1", None, b"zz"]),
        pgoutput.update(1, [b"2", b"e", b"w"]),
    )
    found = [(segment.wave, segment.columns, segment.superseded, segment.values[1]) for segment in batch.segments]
    assert found == [
        (1, (0, 1, 2), False, elements(b"a", b"e")),  # the later update does not write what this one does
        (1, (0, 1, 2), True, elements(b"b")),
        (2, (0, 1, 2), False, elements(None)),
        (2, (0, 1), True, elements(b"c")),
        (2, (0, 1, 2), True, elements(b"d")),
    ]
    assert order(batch) == [0, 1, 3, 4, 2, 0]


def test_an_update_before_a_change_of_its_key_is_not_superseded() -> None:
    batch = build(
        pgoutput.update(1, [b"1", b"a", b"x"]),
        pgoutput.update(1, [b"2", b"b", b"y"], key=[b"1", None, None]),
        pgoutput.update(1, [b"2", b"c", b"z"]),
    )
    assert [(segment.wave, segment.superseded) for segment in batch.segments] == [
        (1, False),
        (2, False),
        (3, False),
    ]


def test_a_truncate_separates_what_is_before_from_what_is_after() -> None:
    batch = build(
        pgoutput.insert(1, [b"1", b"", b""]),
        pgoutput.update(1, [b"1", b"a", b""]),
        pgoutput.truncate([2, 1], 3),
        pgoutput.insert(1, [b"1", b"", b""]),
        pgoutput.insert(3, [b"f"]),
        pgoutput.truncate([3]),
    )
    found = [(segment.wave, segment.operation) for segment in batch.segments]
    assert found == [
        (1, Operation.INSERT),
        (2, Operation.UPDATE),
        (3, Operation.TRUNCATE),
        (4, Operation.INSERT),
        (4, Operation.INSERT),
        (5, Operation.TRUNCATE),
    ]
    truncate = batch.segments[2]
    assert [batch.relations[i].name for i in truncate.truncated] == ["log", "account"]
    assert (truncate.truncate_options, truncate.rows) == (3, 1)


def test_a_changed_table_is_another_relation_behind_a_barrier() -> None:
    wider = pgoutput.table("account", "id name doc more")
    batch = build(
        pgoutput.insert(1, [b"1", b"", b""]),
        pgoutput.relation(1, wider),
        pgoutput.insert(1, [b"2", b"", b"", b""]),
    )
    assert batch.relations == (ACCOUNT, wider)
    assert [(segment.relation, segment.wave) for segment in batch.segments] == [(0, 1), (1, 2)]


def test_a_table_described_again_is_the_same_relation() -> None:
    batch = build(
        pgoutput.insert(1, [b"1", b"", b""]), pgoutput.relation(1, ACCOUNT), pgoutput.insert(1, [b"2", b"", b""])
    )
    assert only(batch).rows == 2


def test_a_batch_describes_only_the_tables_it_changes() -> None:
    builder = BatchBuilder()
    begin, commit = decode_begin(pgoutput.begin(100)), decode_commit(pgoutput.commit(100, 148))
    for oid, described in ((1, ACCOUNT), (2, LOG)):
        builder.relations.take(pgoutput.relation(oid, described))
    builder.add_transaction(begin, commit, [pgoutput.insert(1, [b"1", b"", b""])])
    assert builder.build_whole().relations == (ACCOUNT,)
    builder.add_transaction(begin, commit, [pgoutput.insert(2, [b"1", b""])])
    assert builder.build_whole().relations == (LOG,)


def test_nothing_in_the_log_is_a_command() -> None:
    batch = build(pgoutput.logical_message("embassy", b"TRUNCATE account"), pgoutput.origin("elsewhere"))
    assert batch.segments == ()
    assert batch.transactions == (Transaction(700, Lsn(100), Lsn(148), 946_684_800_000_000, 0),)


def test_whole_transactions_keep_their_order_and_their_share() -> None:
    builder = BatchBuilder()
    builder.relations.take(pgoutput.relation(1, ACCOUNT))
    size = 0
    for number in (1, 2, 3):
        messages = [pgoutput.insert(1, [b"%d%d" % (number, i), b"", b""]) for i in range(number)]
        size += sum(map(len, messages))
        lsn = number * 100
        builder.add_transaction(
            decode_begin(pgoutput.begin(lsn, xid=number)), decode_commit(pgoutput.commit(lsn, lsn + 48)), messages
        )
    assert builder.value_bytes == size
    batch = builder.build_whole()
    assert [(t.xid, t.commit_lsn, t.end_lsn, t.changes) for t in batch.transactions] == [
        (1, 100, 148, 1),
        (2, 200, 248, 2),
        (3, 300, 348, 3),
    ]
    assert batch.complete
    assert (builder.value_bytes, builder.transactions, builder.full) == (0, [], False)


def test_the_parts_of_a_large_transaction_are_numbered_and_the_last_one_is_marked() -> None:
    builder = BatchBuilder()
    builder.relations.take(pgoutput.relation(1, ACCOUNT))
    begin, commit = decode_begin(pgoutput.begin(100, xid=9)), decode_commit(pgoutput.commit(100, 148))
    row = pgoutput.update(1, [b"1", b"a", b"b"])
    builder.add_part(begin, [row])
    first = builder.build_part(begin, 0, None)
    builder.add_part(begin, [row])
    last = builder.build_part(begin, 1, commit)
    assert (first.part, first.complete, first.transactions[0].end_lsn) == (0, False, 0)
    assert (last.part, last.complete, last.transactions[0].end_lsn) == (1, True, 148)
    assert first.segments == last.segments  # each part's waves begin anew


def test_what_a_verification_says_is_the_last_of_its_batch() -> None:
    builder = BatchBuilder()
    said = pgoutput.table("verify_message", "run body")._replace(schema="embassy")
    builder.relations.take(pgoutput.relation(1, ACCOUNT))
    builder.relations.take(pgoutput.relation(9, said))
    begin, commit = decode_begin(pgoutput.begin(100)), decode_commit(pgoutput.commit(100, 148))
    builder.add_transaction(begin, commit, [pgoutput.insert(1, [b"1", b"", b""])])
    assert not builder.full
    builder.add_transaction(
        begin, commit, [pgoutput.insert(9, [b"r", b"x"]), pgoutput.delete(9, key=[b"r", None])]
    )
    assert builder.full
    assert [segment.operation for segment in builder.build_whole().segments] == [
        Operation.INSERT,
        Operation.INSERT,
        Operation.DELETE,
    ]
    assert not builder.full


def test_a_batch_is_full_long_before_its_segments_cannot_be_numbered() -> None:
    builder = BatchBuilder()
    builder.relations.take(pgoutput.relation(1, ACCOUNT))
    begin, commit = decode_begin(pgoutput.begin(100)), decode_commit(pgoutput.commit(100, 148))
    insert, delete = pgoutput.insert(1, [b"1", b"", b""]), pgoutput.delete(1, key=[b"1", None, None])
    messages = [insert, delete] * (PART_MESSAGES // 2)
    builder.add_transaction(begin, commit, messages[:-2])
    assert not builder.full
    builder.add_transaction(begin, commit, messages)
    assert builder.full
    batch = builder.build_whole()
    assert len(batch.segments) > 65_000
    assert max(order(batch)) == len(batch.segments) - 1
    assert sum(1 for _ in exact_changes(batch)) == 2 * PART_MESSAGES - 2


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"S" + bytes(8), "unknown pgoutput message kind b'S'"),
        (b"", "unknown pgoutput message kind b''"),
        (pgoutput.insert(77, [b"1"]), "relation 77 without describing it"),
        (pgoutput.truncate([1, 77]), "relation 77 without describing it"),
        (pgoutput.insert(1, [b"1", b"2"]), "2 columns, and public.account has 3"),
        (pgoutput.insert(1, [b"1", b"2", UNCHANGED]), "a value that is not sent"),
        (pgoutput.update(1, [UNCHANGED, b"2", b"3"]), "the replica identity of public.account is not sent"),
        (pgoutput.update(2, [b"1", b"2"]), "the replica identity of public.log is not sent"),
        (pgoutput.update(3, [b"1"]), "public.feed has no replica identity"),
        (pgoutput.delete(3, old=[b"1"]), "public.feed has no replica identity"),
        (pgoutput.delete(1, old=[b"1", b"2", b"3"]), "is not that of its replica identity"),
        (pgoutput.delete(2, key=[b"1", None]), "is not that of its replica identity"),
        (pgoutput.delete(1, key=[b"1", None, None])[:-1], "cut short"),
        (pgoutput.delete(1, key=[b"1", None, None]) + b"n", "bytes expected"),
        (pgoutput.delete(1, key=[b"1", None, None])[:11], "cut short"),
        (pgoutput.insert(1, [b"1", b"2", b"3"])[:-1], "cut short"),
        (pgoutput.insert(1, [b"1", b"2", b"3"])[:-3], "cut short"),
        (pgoutput.insert(1, [b"1", b"2", b"3"]) + b"n", "bytes expected"),
        (pgoutput.update(1, [b"1", b"2", b"3"])[:-1], "cut short"),
        (pgoutput.update(1, [b"1", b"2", b"3"]) + b"u", "bytes expected"),
        (pgoutput.insert(1, [b"1", b"2", None])[:-2], "cut short|bytes expected"),
        (pgoutput.insert(1, [b"1", b"2", None]) + b"n", "bytes expected"),
    ],
)
def test_what_makes_no_sense_stops_the_stream(message: bytes, why: str) -> None:
    with pytest.raises(IntegrityError, match=why):
        build(message)


def test_a_commit_that_is_not_the_one_announced_stops_the_stream() -> None:
    builder = BatchBuilder()
    with pytest.raises(IntegrityError, match="was to commit at 0/64 and committed at 0/65"):
        builder.add_transaction(decode_begin(pgoutput.begin(100)), decode_commit(pgoutput.commit(101, 148)), [])


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
@pytest.mark.parametrize("transactions_a_batch", [1, 3, 1000])
def test_what_a_real_server_said_gives_what_it_held(file: Path, transactions_a_batch: int) -> None:
    recording = pgoutput_recording.read(file)
    fast, exact = Tables(), Tables()
    builder = BatchBuilder()
    held: list[bytes] = []
    for message in recording.messages:
        if message[:1] == b"B":
            begin = decode_begin(message)
        elif message[:1] == b"C":
            builder.add_transaction(begin, decode_commit(message), held)
            held = []
            if len(builder.transactions) == transactions_a_batch:
                _apply(builder, fast, exact)
        else:
            held.append(message)
    _apply(builder, fast, exact)
    expected = Tables()
    for name, table in recording.tables.items():
        expected.load(name, table["columns"].split(), table["copy_text"].encode())
    assert fast.contents() == exact.contents() == expected.contents()


def _apply(builder: BatchBuilder, fast: Tables, exact: Tables) -> None:
    batch = builder.build_whole()
    fast.apply_fast(batch)
    exact.apply_exactly(batch)


def test_a_statement_stands_alone_between_what_came_before_and_what_comes_after() -> None:
    ddl = pgoutput.table("ddl", "ordinal query")._replace(schema="embassy")
    builder = BatchBuilder()
    builder.add_transaction(
        decode_begin(pgoutput.begin(100)),
        decode_commit(pgoutput.commit(100, 148)),
        [
            pgoutput.relation(1, ACCOUNT),
            pgoutput.relation(9, ddl),
            pgoutput.insert(1, [b"1", b"a", b""]),
            pgoutput.insert(9, [b"1", b"ALTER"]),
            pgoutput.insert(9, [b"2", b"ALTER"]),
            pgoutput.insert(1, [b"2", b"a", b""]),
        ],
    )
    assert builder.full  # the transaction ends its batch
    batch = builder.build_whole()
    assert not builder.full
    ordered = sorted(batch.segments, key=lambda segment: (segment.wave, segment.operation))
    assert [(batch.relations[segment.relation].name, segment.rows) for segment in ordered] == [
        ("account", 1),
        ("ddl", 1),
        ("ddl", 1),
        ("account", 1),
    ]
