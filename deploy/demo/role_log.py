"""What a role has said about its failures, read from its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

_TAIL_BYTES = 4 << 20
_FAILING = ("warning", "error", "critical")
_HALTING = "critical"


class Halt(NamedTuple):
    """A stream that its role gave up."""

    stream: str
    """As the role's configuration names it; empty if the line is about no single stream."""
    words: str


def halts(log: Path) -> tuple[Halt, ...]:
    """What a role gave up since its log began, in order; what it said repeatedly stands once."""
    found: dict[Halt, None] = {}
    for line in _lines(log):
        if f'"{_HALTING}"' in line:
            entry = _entry(line)
            if entry.get("level") == _HALTING:
                found[Halt(str(entry.get("stream", "")), _words(entry))] = None
    return tuple(found)


def last_failure(log: Path) -> str:
    """The last thing in a log that tells of a failure, in words; empty if there is none.

    A failing command line ends with ``error: ...`` and a dying interpreter with its exception: neither is a record of
    the log, and nothing of the same process can follow. What libraries say is left out; the role says it better.
    """
    spoken = ""
    for line in reversed(_lines(log)):
        entry = _entry(line)
        if not entry:
            if line.startswith("error:"):
                return line.strip()
            if not line.startswith("hint:"):
                spoken = spoken or line.strip()
        elif spoken:
            return spoken
        elif entry.get("level") in _FAILING and "logger" not in entry:
            return _words(entry)
    return spoken


def _words(entry: dict[str, Any]) -> str:
    said = ": ".join(str(entry[key]) for key in ("event", "error") if entry.get(key))
    place = f" [{entry['place']}]" if entry.get("place") else ""
    hint = f" → {entry['hint']}" if entry.get("hint") else ""
    return f"{said}{place}{hint}"


def _entry(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
