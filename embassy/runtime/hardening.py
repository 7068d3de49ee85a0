"""Keeping what is in memory out of files: no core dumps, not traced by others, not swapped out where that is allowed."""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4
_MCL_CURRENT, _MCL_FUTURE = 1, 2


def without_core_dumps() -> None:
    """From now on this process leaves no core dump, and processes of the same user cannot read its memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def lock_memory() -> bool:
    """Keep this process's memory out of swap, as far as its limits let it; whether all of it is, for good."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    libc = ctypes.CDLL(None, use_errno=True)
    if soft == resource.RLIM_INFINITY:  # else a later allocation might fail
        return bool(libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0)
    libc.mlockall(_MCL_CURRENT)
    return False
