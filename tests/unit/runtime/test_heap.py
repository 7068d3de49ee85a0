from __future__ import annotations

import os
import subprocess
import sys

_SCRIPT = """
import threading
from pathlib import Path
from embassy.runtime.heap import give_back, share_arenas

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * %d

def main_arena():
    (line,) = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]")]
    begin, end = (int(edge, 16) for edge in line.split()[0].split("-"))
    return end - begin

share_arenas()
full, done = threading.Event(), threading.Event()

def hoard():
    blocks = [bytes(64 << 10) for _ in range(1000)]
    del blocks[:-1]  # the last one is on top, so that malloc cannot give back the rest by itself
    full.set()
    done.wait()

threading.Thread(target=hoard).start()
full.wait()
before = resident()
give_back()
print(before - resident(), main_arena())
done.set()
"""
_HOARDED = 1000 * (64 << 10)


def test_threads_share_an_arena_and_free_pages_are_given_back() -> None:
    script = _SCRIPT % os.sysconf("SC_PAGE_SIZE")
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    given_back, main_arena = map(int, done.stdout.split())
    assert main_arena > _HOARDED
    assert given_back > _HOARDED // 2
