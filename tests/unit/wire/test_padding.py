from __future__ import annotations

import pytest

from embassy.wire.padding import FLOOR, longest_content, pad, padded_size, unpad


def test_a_padded_content_reads_back_and_has_a_size_of_padmes() -> None:
    for length in (*range(600), 1000, 4095, 65_536, 900_000):
        content = b"\x05" * length
        padded = bytes(pad(content))
        assert len(padded) == padded_size(length)
        assert unpad(padded) == content
        assert len(padded) >= FLOOR
        assert len(padded) <= max(FLOOR, (length + 4) * 1.12)


def test_sizes_are_few() -> None:
    sizes = {padded_size(length) for length in range(1 << 18)}
    assert len(sizes) < 200
    assert padded_size(0) == padded_size(252) == 256


def test_the_longest_content_fits_and_one_more_byte_does_not() -> None:
    for room in (*range(FLOOR, 3000), 65_535, 65_536, 65_537, 899_773):
        longest = longest_content(room)
        assert padded_size(longest) <= room < padded_size(longest + 1)


def test_too_small_a_room_is_refused() -> None:
    with pytest.raises(ValueError, match="less than 256"):
        longest_content(FLOOR - 1)


@pytest.mark.parametrize(
    "padded",
    [
        b"",
        bytes(4),
        bytes(255),
        bytes(257),
        (252).to_bytes(4, "big") + bytes(253),
        (253).to_bytes(4, "big") + bytes(252),
        (1).to_bytes(4, "big") + b"a" + bytes(250) + b"b",
        b"\xff" * 256,
    ],
)
def test_what_is_not_padded_so_is_refused(padded: bytes) -> None:
    with pytest.raises(ValueError, match="not a padded content"):
        unpad(padded)
