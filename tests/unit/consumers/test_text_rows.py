"""Segments' bytes to parameters and rows."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from consumers.text_rows import copy_blocks, elements, segment_rows, text_array
from embassy.model.batch import Segment
from producers.open_segment import OpenInserts
from producers.pgoutput_decoder import SHORT_NULL
from tests.harness.pgoutput import element

values = st.lists(st.none() | st.binary(max_size=20), min_size=1, max_size=8)


@given(values)
def test_elements_are_read_as_they_were_written(row: list[bytes | None]) -> None:
    assert list(elements(b"".join(map(element, row)))) == row


@given(values)
def test_an_array_has_the_header_that_postgresql_reads(row: list[bytes | None]) -> None:
    body = b"".join(map(element, row))
    array = text_array(body, len(row))
    dimensions, has_null, oid, length, lower = struct.unpack_from(">iiIii", array)
    assert (dimensions, oid, length, lower) == (1, 25, len(row), 1)
    assert has_null == (1 if None in row or b"\xff\xff\xff\xff" in body else 0)
    assert array[20:] == body


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).map(str.encode)
awkward = st.sampled_from([b"\\", b"\\N", b"\\n", b"\t", b"\n", b"\r", b"\\\\", b"\\t\\", b"", b"\\."])


tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(st.none() | text | awkward, min_size=width, max_size=width), min_size=1)
)


def inserted(rows: list[list[bytes | None]]) -> Segment:
    segment = OpenInserts(0, 1, tuple(range(len(rows[0]))))
    for row in rows:
        segment.add([SHORT_NULL if value is None else struct.pack(">H", len(value)) + value for value in row])
    return segment.finished()


@given(tables)
def test_texts_are_read_as_the_producer_writes_them(rows: list[list[bytes | None]]) -> None:
    assert list(segment_rows(inserted(rows))) == rows


@given(tables)
def test_lines_of_copy_text_hold_the_rows(rows: list[list[bytes | None]]) -> None:
    segment = inserted(rows)
    lines = b"".join(copy_blocks(segment))
    assert lines.endswith(b"\n")
    columns = zip(*[line.split(b"\t") for line in lines[:-1].split(b"\n")], strict=True)
    assert tuple(map(b"\n".join, columns)) == segment.texts


def test_lines_come_in_blocks_that_end_between_two() -> None:
    rows: list[list[bytes | None]] = [[b"%d" % number, None] for number in range(1700)]
    blocks = list(copy_blocks(inserted(rows)))
    assert len(blocks) > 2
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) == b"".join(b"%d\t\\N\n" % number for number in range(1700))


def test_rows_without_columns_are_empty_lines() -> None:
    segment = inserted([[], []])
    assert b"".join(copy_blocks(segment)) == b"\n\n"
    assert list(segment_rows(segment)) == [[], []]
