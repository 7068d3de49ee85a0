from __future__ import annotations

import os
import subprocess
import sys

_SCRIPT = """
from pathlib import Path
from embassy.runtime.heap import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * %d

blocks = [bytes(64 << 10) for _ in range(1000)]
del blocks[:-1]  # the last one is on top, so that malloc cannot give back the rest by itself
before = resident()
give_back()
print(before - resident())
"""
_HOARDED = 1000 * (64 << 10)


def test_free_pages_are_given_back() -> None:
    script = _SCRIPT % os.sysconf("SC_PAGE_SIZE")
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) > _HOARDED // 2
