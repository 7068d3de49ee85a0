"""Avro's numbers: zigzag, seven bits a byte, lowest first. Only the shortest form is read."""

from __future__ import annotations

LONGEST = 10
_MAX_ZIGZAG = (1 << 64) - 1


def encode_long(number: int) -> bytes:
    """A signed 64-bit number.

    Raises:
        ValueError: it does not fit.
    """
    rest = number << 1 if number >= 0 else ~(number << 1)
    if rest > _MAX_ZIGZAG:
        raise ValueError(f"not a 64-bit number: {number}")
    if rest < 0x80:
        return bytes((rest,))
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def read_long(source: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a position, and the position behind it.

    Raises:
        ValueError: there is no whole number in its shortest form.
    """
    rest = shift = 0
    for position in range(at, min(at + LONGEST, len(source))):
        byte = source[position]
        rest |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or rest > _MAX_ZIGZAG:
                break
            return (rest >> 1) ^ -(rest & 1), position + 1
        shift += 7
    raise ValueError(f"no number at byte {at}")
