"""The memory of processes over time: whether it grows with what passes through them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Self

_EVERY_SECONDS = 0.5
_MIB = 1024


class MemoryWatch:
    """Samples the resident set of some processes while entered."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        """Take processes by name."""
        self._pids = dict(pids)
        self._seen: dict[str, list[float]] = {name: [] for name in pids}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def quarters(self) -> dict[str, list[float]]:
        """By name, the most in each quarter of the time, in MiB: flat, or growing."""
        return {name: _peaks(seen) for name, seen in self._seen.items()}

    def _watch(self) -> None:
        while not self._over.is_set():
            for name, pid in self._pids.items():
                resident = rss_mb(pid)
                if resident:
                    self._seen[name].append(resident)
            self._over.wait(_EVERY_SECONDS)


def rss_mb(pid: int) -> float:
    """What a process has resident now, in MiB; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    found = next((line for line in text.splitlines() if line.startswith("VmRSS:")), "VmRSS: 0")
    return int(found.split()[1]) / _MIB


def _peaks(seen: list[float]) -> list[float]:
    cuts = [len(seen) * i // 4 for i in range(5)]
    return [round(max(seen[start:end], default=0.0), 1) for start, end in pairwise(cuts)]
