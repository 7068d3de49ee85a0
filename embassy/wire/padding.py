"""Padding, so that a sealed body's size tells little about its content.

A padded content is its length (4 bytes, big-endian), itself, and zeros up to a size of Padmé's: the sizes whose
binary form has as few significant bits as the length of their exponent, at most 12 % larger. Nothing is smaller
than `FLOOR`, below which sizes tell one kind of transaction from another.
"""

from __future__ import annotations

FLOOR = 256
_LENGTH_BYTES = 4


def padded_size(length: int) -> int:
    """The size of a padded content of this length."""
    size = length + _LENGTH_BYTES
    if size <= FLOOR:
        return FLOOR
    mask = _mask(size)
    return (size + mask) & ~mask


def longest_content(room: int) -> int:
    """The longest content whose padded size fits.

    Raises:
        ValueError: nothing fits.
    """
    if room < FLOOR:
        raise ValueError(f"less than {FLOOR} bytes: {room}")
    return (room & ~_mask(room)) - _LENGTH_BYTES


def pad(content: bytes) -> bytearray:
    """The padded content; copies it once."""
    length = len(content)
    padded = bytearray(padded_size(length))
    padded[:_LENGTH_BYTES] = length.to_bytes(_LENGTH_BYTES, "big")
    padded[_LENGTH_BYTES : _LENGTH_BYTES + length] = content
    return padded


def unpad(padded: bytes) -> bytes:
    """The content.

    Raises:
        ValueError: this is no padded content.
    """
    length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    end = _LENGTH_BYTES + length
    if len(padded) < FLOOR or len(padded) != padded_size(length) or padded.count(0, end) != len(padded) - end:
        raise ValueError("not a padded content")
    return padded[_LENGTH_BYTES:end]


def _mask(size: int) -> int:
    exponent = size.bit_length() - 1
    return (1 << (exponent - exponent.bit_length())) - 1
