"""Logs on stderr: one JSON object a line, or readable lines on a terminal.

Row values never get into them. Messages of this product's own errors are written to be shown; the message of any
other exception may quote a row (PostgreSQL's ``DETAIL: Key (id)=(…)``), so only its type and where it was raised are
logged, unless the level is debug.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

import structlog

from embassy.model.errors import EmbassyError

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_REPEAT_SECONDS = 60.0
_REMEMBERED = 256
_NUMBERS = re.compile(r"\d+")
_BESIDE_AN_ERROR = "error ignored "
"""How psycopg begins what it says beside an error that it raises: that pipeline, copy or transaction could not be ended
properly either. The error is told by whoever catches it."""

WITHHELD = "(message withheld, it may quote a row; shown at --log-level debug)"


def configure(*, level: str = "info", json: bool | None = None, stream: TextIO | None = None) -> None:
    """Set up logging for the process, the standard library's included.

    Args:
        level: what the log begins with.
        json: JSON lines; by default, unless the stream is a terminal.
        stream: where to; by default stderr.
    """
    out = sys.stderr if stream is None else stream
    as_json = not out.isatty() if json is None else json
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Failures(show_messages=threshold <= logging.DEBUG, as_json=as_json),
    ]
    last: list[structlog.typing.Processor] = (
        [_readable_first, structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=out.isatty() and not os.environ.get("NO_COLOR"))]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    if threshold > logging.DEBUG:
        handler.addFilter(_not_beside_an_error)
    handler.addFilter(_Repetition(time.monotonic))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.WARNING))  # libraries speak up only when something is wrong


def _not_beside_an_error(record: logging.LogRecord) -> bool:
    return record.name != "psycopg" or not str(record.msg).startswith(_BESIDE_AN_ERROR)


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


class _Failures:
    """Turns ``exc_info`` into fields: the message, place and hint of our own errors, the traceback of others."""

    def __init__(self, *, show_messages: bool, as_json: bool) -> None:
        self._show_messages = show_messages
        self._as_json = as_json

    def __call__(
        self, _logger: Any, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        info = _exc_info(event.pop("exc_info", None))
        if info is None:
            return event
        error = info[1]
        if isinstance(error, EmbassyError):
            event.update(failure(error))
        else:
            event["error"] = f"{type(error).__name__}: {error if self._show_messages else WITHHELD}"
            frames = self._frames(error)
            event.update({"traceback": frames} if self._as_json else {"exception": "\n".join(frames)})
        return event

    def _frames(self, error: BaseException) -> list[str]:
        lines: list[str] = []
        cause: BaseException | None = error
        while cause is not None:
            shown = f": {cause}" if self._show_messages or isinstance(cause, EmbassyError) else ""
            lines.append(f"{type(cause).__name__}{shown}")
            lines += [f"  {f.filename}:{f.lineno} in {f.name}" for f in traceback.extract_tb(cause.__traceback__)]
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        return lines


def failure(error: EmbassyError) -> dict[str, str]:
    """The log fields of one of the product's own errors."""
    fields = {"error": str(error.args[0]), "family": type(error).__name__}
    if error.place:
        fields["place"] = error.place
    if error.hint:
        fields["hint"] = error.hint
    return fields


def _readable_first(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {key: event[key] for key in ("timestamp", "level", "event") if key in event} | dict(event)


def _exc_info(value: Any) -> _ExcInfo | None:
    if isinstance(value, BaseException):
        return type(value), value, value.__traceback__
    if isinstance(value, tuple) and value[0] is not None:
        return value[0], value[1], value[2]
    if value is True:
        current = sys.exc_info()
        return None if current[0] is None or current[1] is None else (current[0], current[1], current[2])
    return None
