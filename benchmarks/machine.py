"""What processes and the whole machine have used, from /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_BUSY = (0, 1, 2, 5, 6, 7)
"""user, nice, system, irq, softirq, steal of /proc/stat."""
_MIB = 1024


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all its threads, to the nanosecond; 0 if it is gone."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # the clock that clock_getcpuclockid(3) names
    except OSError:
        return 0.0


def family_cpu_seconds(pid: int) -> float:
    """CPU time of a process, of its children, and of those children that it has reaped."""
    fields = _stat(pid)
    if not fields:
        return 0.0
    reaped = sum(map(int, fields[13:15])) / _TICK
    return cpu_seconds(pid) + reaped + sum(cpu_seconds(child) for child in _children(pid))


def rss_mb(pid: int) -> float:
    """The memory that a process has resident now, in MiB; 0 if it is gone."""
    return _proc_mb(pid, "status", "VmRSS:")


def peak_rss_mb(pid: int) -> float:
    """The most memory that a process has had resident, in MiB; 0 if it is gone."""
    return _proc_mb(pid, "status", "VmHWM:")


def share_mb(pid: int) -> float:
    """The memory that a process has resident now, in MiB, of each page its share: a library that three processes have
    mapped is in memory once, and counts a third for each (proc_pid_smaps(5), Pss); 0 if it is gone."""
    return _proc_mb(pid, "smaps_rollup", "Pss:")


def _proc_mb(pid: int, file: str, name: str) -> float:
    try:
        text = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    found = next((line for line in text.splitlines() if line.startswith(name)), f"{name} 0")
    return int(found.split()[1]) / _MIB


def busy_seconds() -> float:
    """CPU time that all cores together have been busy since boot."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    return sum(int(fields[i]) for i in _BUSY) / _TICK


def await_quiet(limit_cores: float, limit_seconds: float) -> float:
    """Wait until the machine was quiet for half a second, but not for ever; returns how many cores were busy last."""
    end = time.monotonic() + limit_seconds
    while True:
        begun, busy = time.monotonic(), busy_seconds()
        time.sleep(0.5)
        cores = (busy_seconds() - busy) / (time.monotonic() - begun)
        if cores < limit_cores or time.monotonic() > end:
            return cores


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in text.split()]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
