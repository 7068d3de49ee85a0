"""Columns of numbers that grow or repeat, in few bytes and without a step of Python for each: `Numbers` of batch-3.avsc.

Log positions and times grow by a little, so what is kept are differences, less the least of them; and bytes of one rank
stand together, so that those that are all zero compress to nothing.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate
from operator import sub
from typing import NamedTuple

_WIDTH = 8


class Numbers(NamedTuple):
    """A column, packed; each number but the first is the one before it, plus ``step``, plus its own entry of ``rest``."""

    first: int
    step: int
    rest: bytes
    """1 to 8 bytes a number: first the lowest byte of each."""


def pack(numbers: Sequence[int]) -> Numbers:
    """Pack one or more numbers.

    Raises:
        OverflowError: two neighbours differ by more than 64 bits hold.
    """
    first = numbers[0]
    if len(numbers) == 1:
        return Numbers(first, 0, b"")
    differences = list(map(sub, numbers[1:], numbers))
    step = min(differences)
    more = array("Q", [difference - step for difference in differences] if step else differences)
    if sys.byteorder == "big":
        more.byteswap()
    planes = more.tobytes()
    width = max((max(differences) - step).bit_length() + 7 >> 3, 1)
    return Numbers(first, step, b"".join([planes[rank::_WIDTH] for rank in range(width)]))


def unpack(packed: Numbers, count: int) -> list[int]:
    """The numbers of a column.

    Raises:
        ValueError: there are not as many.
    """
    first, step, rest = packed
    others = count - 1
    width, left = divmod(len(rest), others) if others > 0 else (0, len(rest))
    if count < 1 or left or width > _WIDTH or (others and not width):
        raise ValueError(f"{len(rest)} bytes do not hold {count} numbers")
    planes = bytearray(_WIDTH * others)
    for rank in range(width):
        planes[rank::_WIDTH] = rest[rank * others : (rank + 1) * others]
    more = array("Q", bytes(planes))
    if sys.byteorder == "big":
        more.byteswap()
    return list(accumulate([first, *([difference + step for difference in more] if step else more)]))
