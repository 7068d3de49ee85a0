"""Log sequence numbers: byte positions in PostgreSQL's write-ahead log."""

from __future__ import annotations

import re
from typing import Self

_FORM = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Lsn(int):
    """A position in the write-ahead log, in bytes; prints as PostgreSQL does (``16/B374D848``)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read PostgreSQL's text form.

        Raises:
            ValueError: the text is not of the form ``X/X``, each side up to eight hexadecimal digits.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"not a log sequence number: {text!r}")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({self})"


ZERO = Lsn(0)
