from __future__ import annotations

import pytest

from embassy.model.errors import IntegrityError
from embassy.model.lsn import Lsn
from embassy.model.relation import Column, Relation, ReplicaIdentity
from producers.pgoutput_decoder import (
    SHORT_NULL,
    SHORT_VALUE,
    Begin,
    Commit,
    RowChange,
    Truncate,
    TypeName,
    decode_begin,
    decode_commit,
    decode_relation,
    decode_row_change,
    decode_truncate,
    decode_type,
    short_form,
    short_row,
)
from tests.harness import pgoutput
from tests.harness.pgoutput import UNCHANGED, element

NULL = element(None)


def test_a_begin_names_the_commit_to_come() -> None:
    message = pgoutput.begin(0x16_B374D848, xid=4_000_000_000, committed_at=1_767_225_600_000_001)
    assert decode_begin(message) == Begin(Lsn.parse("16/B374D848"), 1_767_225_600_000_001, 4_000_000_000)


def test_a_commit_names_where_to_resume() -> None:
    message = pgoutput.commit(100, 148, committed_at=1_767_225_600_000_001)
    assert decode_commit(message) == Commit(Lsn(100), Lsn(148), 1_767_225_600_000_001)


def test_a_relation_has_its_columns_and_their_types() -> None:
    described = Relation(
        "Übung",
        'a "b"',
        ReplicaIdentity.INDEX,
        (
            Column("id", 20, "", -1, in_key=True),
            Column("mood", 16400, "public.mood", -1, in_key=False),
            Column("code", 16401, "", 9, in_key=False),
        ),
    )
    types = {16400: TypeName(16400, "public", "mood")}
    assert decode_relation(pgoutput.relation(16390, described), types) == (16390, described)


def test_a_relation_without_a_schema_is_in_pg_catalog() -> None:
    message = pgoutput.relation(1, pgoutput.table("x", "a")._replace(schema="pg_catalog"))
    assert decode_relation(message, {})[1].schema == "pg_catalog"


def test_a_type_is_named_with_its_schema() -> None:
    assert decode_type(pgoutput.type_name(16400, "public", "mood")) == TypeName(16400, "public", "mood")
    assert decode_type(pgoutput.type_name(16401, "", "text")) == TypeName(16401, "pg_catalog", "text")


def test_a_truncate_names_all_its_tables() -> None:
    assert decode_truncate(pgoutput.truncate([5, 4_000_000_000], 3)) == Truncate((5, 4_000_000_000), 3)


def test_values_are_slices_of_the_message() -> None:
    message = pgoutput.insert(9, [b"1", None, b"", "õ".encode()])
    assert decode_row_change(message) == RowChange(
        ord("I"), 9, None, old_is_whole=False, new=[element(b"1"), NULL, element(b""), element("õ".encode())]
    )


def test_an_update_that_keeps_its_key_has_no_old_row() -> None:
    change = decode_row_change(pgoutput.update(9, [b"1", UNCHANGED, b"x"]))
    assert change == RowChange(ord("U"), 9, None, old_is_whole=False, new=[element(b"1"), None, element(b"x")])


@pytest.mark.parametrize("sent", ["key", "old"])
def test_an_old_key_and_an_old_row_are_told_apart(sent: str) -> None:
    old = [b"1", None if sent == "key" else b"y"]
    update = decode_row_change(pgoutput.update(9, [b"2", b"x"], **{sent: old}))
    delete = decode_row_change(pgoutput.delete(9, **{sent: old}))
    elements = [element(value) for value in old]
    assert update == RowChange(ord("U"), 9, elements, sent == "old", [element(b"2"), element(b"x")])
    assert delete == RowChange(ord("D"), 9, elements, sent == "old", None)


@pytest.mark.parametrize("size", [0, 1, 116, 0x7400, 65_535, 65_536, 0x740000, 0x1740000])
def test_a_value_of_any_size_is_read_in_whole(size: int) -> None:
    change = decode_row_change(pgoutput.insert(9, [b"t" * size, b"n"]))
    assert change.new == [element(b"t" * size), element(b"n")]


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (decode_begin, pgoutput.begin(1)),
        (decode_commit, pgoutput.commit(1, 2)),
        (decode_type, pgoutput.type_name(1, "a", "b")),
        (decode_truncate, pgoutput.truncate([1, 2])),
        (lambda message: decode_relation(message, {}), pgoutput.relation(1, pgoutput.table("t", "a b"))),
        (decode_row_change, pgoutput.insert(1, [b"a", None, b"long"])),
        (decode_row_change, pgoutput.update(1, [b"a", UNCHANGED], key=[b"b", None])),
        (decode_row_change, pgoutput.delete(1, old=[b"b", None])),
    ],
)
def test_a_message_that_is_too_short_or_too_long_is_refused(decode: object, message: bytes) -> None:
    assert callable(decode)
    for end in range(1, len(message)):
        with pytest.raises(IntegrityError, match="malformed"):
            decode(message[:end])
    with pytest.raises(IntegrityError, match="malformed"):
        decode(message + b"n")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"D" + bytes(4) + b"N" + b"\0\x01n", "where an old tuple must be"),
        (b"U" + bytes(4) + b"K" + b"\0\x01n" + b"X" + b"\0\x01n", "where a new tuple must be"),
        (b"I" + bytes(4) + b"K" + b"\0\x01n", "where a new tuple must be"),
        (b"I" + bytes(4) + b"N" + b"\0\x01b\0\0\0\x01x", "unknown kind of value"),
        (b"S" + bytes(4) + b"N" + b"\0\x01n", "unknown pgoutput message kind b'S'"),
    ],
)
def test_what_was_not_asked_for_is_refused(message: bytes, why: str) -> None:
    with pytest.raises(IntegrityError, match=why):
        decode_row_change(message)


def test_a_string_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(IntegrityError, match="utf-8"):
        decode_type(b"Y" + bytes(4) + b"\xff\0x\0")


def test_an_unknown_replica_identity_is_refused() -> None:
    message = pgoutput.relation(1, pgoutput.table("t", "a")).replace(b"t\0d", b"t\0z")
    with pytest.raises(IntegrityError, match="malformed"):
        decode_relation(message, {})


SPLITTABLE = [
    [b"1", b"x"],
    [b"", b""],
    [b"1", None],
    [b"1", None, None, b"x", None],
    [b"1", UNCHANGED, None, b"nnu"],
    [b"n", b"u", b"t", b"tt"],
    [b"t" * 116, b"t" * 0x7400, b"n" * 65_535],
    ["õ".encode(), b"\t\n\r\\"],
]


@pytest.mark.parametrize("row", SPLITTABLE)
def test_a_row_that_is_split_is_the_row_that_is_read_value_by_value(row: list[pgoutput.Value]) -> None:
    message = pgoutput.insert(9, row)
    header, *pieces = message.split(SHORT_VALUE)
    assert header == message[:8]
    elements = decode_row_change(message).new
    assert elements is not None
    assert short_row(pieces, len(row)) == short_form(elements)


def test_null_and_the_empty_text_differ_in_the_short_form() -> None:
    _, *pieces = pgoutput.insert(9, [b"", None]).split(SHORT_VALUE)
    assert short_row(pieces, 2) == [b"\0\0", SHORT_NULL]


@pytest.mark.parametrize(
    "row",
    [[b"1", b"x" * 65_536], [b"1", b"x" * 65_536, b"y"], [b"1", None, b"t" * 0x740000]],
)
def test_a_row_with_a_long_value_cannot_be_split(row: list[pgoutput.Value]) -> None:
    _, *pieces = pgoutput.insert(9, row).split(SHORT_VALUE)
    assert short_row(pieces, len(row)) is None


def test_a_row_of_another_width_cannot_be_split() -> None:
    _, *pieces = pgoutput.insert(9, [b"1", b"2"]).split(SHORT_VALUE)
    assert short_row(pieces, 3) is None
    assert short_row([*pieces, b"\0"], 3) is None
