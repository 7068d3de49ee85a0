"""What the C library's malloc keeps although nobody uses it any more."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return whole free pages to the system, in all of malloc's arenas; they come again when they are needed.

    It takes some milliseconds. Where the C library has no such call (musl), nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
