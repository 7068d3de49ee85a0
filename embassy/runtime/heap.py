"""How the C library's malloc deals with memory, and what it keeps of it that nobody uses any more."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""


def share_arenas() -> None:
    """Have all threads allocate from one arena; called before there are threads.

    By default eight a core are made, and what each keeps in fragments adds up: 5 MB in producer, bridge and consumer
    with a hundred streams. Threads of Python wait for the interpreter's lock, not for malloc's: with ten busy streams no
    difference in CPU time or rate could be told.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return whole free pages to the system, in all of malloc's arenas; they come again when they are needed.

    It takes some milliseconds. Where the C library has no such call (musl), nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
