"""Logs on stderr: one JSON object a line, or readable lines on a terminal.

Row values never get into them. Messages of this product's own errors are written to be shown; the message of any
other exception may quote a row (PostgreSQL's ``DETAIL: Key (id)=(…)``), so only its type and where it was raised are
logged, unless the level is debug.

All of it is the standard library's logging. structlog would do the same, and brings rich, pygments and asyncio into each
service: 5 to 8 MB.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from embassy.model.errors import EmbassyError

_OURS = logging.getLogger("embassy.log")
"""What a `Logger` says goes here; every other logger is a library's."""
_REPEAT_SECONDS = 60.0
_REMEMBERED = 256
_NUMBERS = re.compile(r"\d+")
_BARE = re.compile(r"[^\s='\"]+")
"""Text that a readable line shows without quotes."""
_EVENT_WIDTH = 30
_COLORS = {"warning": "\033[33m", "error": "\033[31m", "critical": "\033[1;31m"}
_PLAIN = "\033[0m"

WITHHELD = "(message withheld, it may quote a row; shown at --log-level debug)"


class Logger:
    """Says what happens, each time with the same first fields: which component it is, and which stream."""

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def debug(self, event: str, **fields: object) -> None:
        """What only someone who looks for a bug wants to know."""
        self._say(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What happens and is as it should be."""
        self._say(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """What may pass by itself."""
        self._say(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """What somebody has asked for and cannot have."""
        self._say(logging.ERROR, event, fields)

    def critical(self, event: str, **fields: object) -> None:
        """What somebody must look at."""
        self._say(logging.CRITICAL, event, fields)

    def bug(self, event: str, error: BaseException | None, /, **fields: object) -> None:
        """As `critical`, with an exception: its type, and where it was raised."""
        self._say(logging.CRITICAL, event, fields, error)

    def _say(
        self, level: int, event: str, fields: Mapping[str, object], error: BaseException | None = None
    ) -> None:
        _OURS.log(level, event, exc_info=error, extra={"fields": {**self._fields, **fields}})


def configure(*, level: str = "info", as_json: bool | None = None, stream: TextIO | None = None) -> None:
    """Set up logging for the process, the libraries' included.

    Args:
        level: what the log begins with.
        as_json: JSON lines; by default, unless the stream is a terminal.
        stream: where to; by default stderr.
    """
    out = sys.stderr if stream is None else stream
    for_machines = not out.isatty() if as_json is None else as_json
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shown = threshold <= logging.DEBUG
    colors = out.isatty() and not os.environ.get("NO_COLOR")
    formatter = (
        _JsonLines(show_messages=shown) if for_machines else _ReadableLines(show_messages=shown, colors=colors)
    )
    ours, theirs = logging.StreamHandler(out), logging.StreamHandler(out)
    for handler in (ours, theirs):
        handler.setFormatter(formatter)
    theirs.addFilter(_Repetition(time.monotonic))
    _OURS.handlers[:] = [ours]
    _OURS.propagate = False
    _OURS.setLevel(threshold)
    root = logging.getLogger()
    root.handlers[:] = [theirs]
    root.setLevel(max(threshold, logging.WARNING))  # libraries speak up only when something is wrong


class _Repetition:
    """Passes a library's line once a minute: librdkafka repeats itself several times a second while a broker is down."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._passed: OrderedDict[str, float] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        likeness = record.name + _NUMBERS.sub("", record.getMessage())
        now = self._clock()
        if now - self._passed.get(likeness, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return False
        self._passed[likeness] = now
        self._passed.move_to_end(likeness)
        if len(self._passed) > _REMEMBERED:
            self._passed.popitem(last=False)
        return True


class _Lines(logging.Formatter):
    """What both forms of a line have in common: which fields it has, and in which order."""

    def __init__(self, *, show_messages: bool) -> None:
        super().__init__()
        self._show_messages = show_messages

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        own = getattr(record, "fields", None)
        fields.update({"logger": record.name} if own is None else own)
        if record.exc_info and record.exc_info[1] is not None:
            fields.update(self._told(record.exc_info[1]))
        return self.line(fields)

    def line(self, fields: dict[str, Any]) -> str:
        """The line, without its end."""
        raise NotImplementedError

    def _told(self, error: BaseException) -> dict[str, Any]:
        """The message, place and hint of our own errors; type and traceback of others."""
        if isinstance(error, EmbassyError):
            return dict(failure(error))
        shown = error if self._show_messages else WITHHELD
        return {"error": f"{type(error).__name__}: {shown}", "traceback": self._frames(error)}

    def _frames(self, error: BaseException) -> list[str]:
        lines: list[str] = []
        cause: BaseException | None = error
        while cause is not None:
            shown = f": {cause}" if self._show_messages or isinstance(cause, EmbassyError) else ""
            lines.append(f"{type(cause).__name__}{shown}")
            lines += [f"  {f.filename}:{f.lineno} in {f.name}" for f in traceback.extract_tb(cause.__traceback__)]
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        return lines


class _JsonLines(_Lines):
    """For machines. What has no form in JSON appears as its text."""

    def line(self, fields: dict[str, Any]) -> str:
        return json.dumps(fields, default=str)


class _ReadableLines(_Lines):
    """For people."""

    def __init__(self, *, show_messages: bool, colors: bool) -> None:
        super().__init__(show_messages=show_messages)
        self._colors = colors

    def line(self, fields: dict[str, Any]) -> str:
        timestamp, level, event = (fields.pop(key) for key in ("timestamp", "level", "event"))
        frames = fields.pop("traceback", ())
        mark = f"[{level:<9}]"
        if self._colors and level in _COLORS:
            mark = f"{_COLORS[level]}{mark}{_PLAIN}"
        said = " ".join(f"{key}={_quoted(value)}" for key, value in sorted(fields.items()))
        return "\n".join([f"{timestamp} {mark} {event:<{_EVENT_WIDTH}} {said}".rstrip(), *frames])


def _quoted(value: object) -> str:
    return value if isinstance(value, str) and _BARE.fullmatch(value) else repr(value)


def failure(error: EmbassyError) -> dict[str, str]:
    """The log fields of one of the product's own errors."""
    fields = {"error": str(error.args[0]), "family": type(error).__name__}
    if error.place:
        fields["place"] = error.place
    if error.hint:
        fields["hint"] = error.hint
    return fields
