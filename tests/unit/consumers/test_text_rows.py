"""Segments' bytes to parameters and rows."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from consumers.text_rows import copy_rows, elements, text_array
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


@given(tables)
def test_copy_text_is_read_as_the_producer_writes_it(rows: list[list[bytes | None]]) -> None:
    segment = OpenInserts(0, 1, tuple(range(len(rows[0]))))
    for row in rows:
        segment.add([SHORT_NULL if value is None else struct.pack(">H", len(value)) + value for value in row])
    assert list(copy_rows(segment.finished().copy_text)) == rows
