from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
import structlog

from embassy.model.errors import IntegrityError
from embassy.runtime import logs


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _quote_a_row() -> None:
    try:
        int("Müller, Anna")
    except ValueError as error:
        raise LookupError("Key (name)=(Müller, Anna) already exists") from error


def test_each_line_is_one_json_object() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    structlog.get_logger(component="bridge", stream="00ff").info("carrying", offset=7)
    structlog.get_logger().debug("not shown")
    logging.getLogger("library").warning("%s is late", "it")
    logging.getLogger("library").info("not shown")
    first, second = _lines(stream)
    assert list(first)[:3] == ["timestamp", "level", "event"]
    assert (first["level"], first["event"], first["stream"], first["offset"]) == ("info", "carrying", "00ff", 7)
    assert (second["level"], second["event"], second["logger"]) == ("warning", "it is late", "library")


def test_an_error_of_ours_is_shown_with_place_and_way_out() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    structlog.get_logger().critical(
        "halted", exc_info=IntegrityError("a gap", place="s-1@6", hint="carry it again")
    )
    (line,) = _lines(stream)
    assert (line["error"], line["place"], line["hint"]) == ("a gap", "s-1@6", "carry it again")
    assert line["family"] == "IntegrityError"
    assert "traceback" not in line


def test_any_other_exception_shows_where_it_was_and_never_a_row() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    log = structlog.get_logger()
    try:
        _quote_a_row()
    except LookupError:
        log.exception("a bug")
        logging.getLogger("library").exception("a bug of theirs")
    ours, theirs = _lines(stream)
    assert "Müller" not in stream.getvalue()
    assert "\\u00fc" not in stream.getvalue()
    for line in (ours, theirs):
        assert line["error"].startswith("LookupError: (message withheld")
        assert any("in _quote_a_row" in frame for frame in line["traceback"])
        assert "ValueError" in line["traceback"]


def test_debug_shows_the_message() -> None:
    stream = io.StringIO()
    logs.configure(level="debug", stream=stream)
    try:
        _quote_a_row()
    except LookupError:
        structlog.get_logger().exception("a bug")
    (line,) = _lines(stream)
    assert line["error"] == "LookupError: Key (name)=(Müller, Anna) already exists"


def test_a_person_gets_plain_lines() -> None:
    stream = io.StringIO()
    logs.configure(json=False, stream=stream)
    structlog.get_logger(component="bridge").warning("waiting", hint="is it up?")
    assert "[warning  ] waiting" in stream.getvalue()
    assert "hint='is it up?'" in stream.getvalue()


def test_a_library_that_repeats_itself_is_heard_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = io.StringIO()
    logs.configure(stream=stream)
    log = logging.getLogger("embassy.kafka")
    for milliseconds in range(50):
        log.error("broker 1: connection refused (after %d ms)", milliseconds)
    log.error("broker 1: certificate has expired")
    now += 61
    log.error("broker 1: connection refused (after 3 ms)")
    events = [line["event"] for line in _lines(stream)]
    assert events == [
        "broker 1: connection refused (after 0 ms)",
        "broker 1: certificate has expired",
        "broker 1: connection refused (after 3 ms)",
    ]


def test_only_what_psycopg_says_beside_an_error_that_it_raises_is_left_to_that_error() -> None:
    stream = io.StringIO()
    psycopg = logging.getLogger("psycopg")
    logs.configure(stream=stream)
    psycopg.warning("error ignored terminating %r: %s", "<Pipeline>", "the connection is lost")
    psycopg.warning("query cancellation failed: %s", "a timeout")
    logging.getLogger("library").warning("error ignored in a library")
    logs.configure(level="debug", stream=stream)
    psycopg.warning("error ignored terminating %r: %s", "<Pipeline>", "shown to who looks closely")
    assert [line["event"].partition(":")[2] for line in _lines(stream)] == [
        " a timeout",
        "",
        " shown to who looks closely",
    ]
