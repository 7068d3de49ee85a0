"""What the routes answer, from a collection that a test turns by hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from console.app import Console
from console.feed import STALE_SECONDS, Feed
from console.guard import Guard, host_of
from console.page import Renderer
from console.seen import Seen
from tests.harness.asgi import Answer, ask
from tests.harness.console_looks import seen_of
from tests.harness.observations import EMBASSY, STALLED, well

_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_SECONDS = 10
_PATHS = ("/", "/api/status", "/events", "/livez", "/readyz", "/static/console.css", "/static/console.js", "/none")


class _Source:
    """Gives each look when the test says so, by a clock that stands until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = [seen_of({"land": well(EMBASSY)})]
        self.error: Exception | None = None
        self.may = threading.Semaphore(0)

    def look(self) -> Seen:
        self.may.acquire()
        if self.error is not None:
            raise self.error
        return self.looks[0] if len(self.looks) == 1 else self.looks.pop(0)


@contextmanager
def _console(source: _Source) -> Iterator[tuple[Guard, Feed]]:
    renderer = Renderer()
    feed = Feed(source.look, renderer.page, interval_seconds=0.01, clock=lambda: source.now)
    app = Console(feed, renderer, site="embassy-1").app(_HOSTS)
    feed.start()
    try:
        yield app, feed
    finally:
        source.may.release(1000)
        feed.stop()


def _turn(source: _Source, feed: Feed) -> None:
    came = threading.Event()
    with feed.waking(came.set):
        source.may.release()
        assert came.wait(_SECONDS)


def _events(answer: Answer) -> list[dict[str, object]]:
    return [
        json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")
    ]


def test_the_page_and_the_json_are_of_the_newest_look() -> None:
    source = _Source()
    with _console(source) as (app, feed):
        _turn(source, feed)
        page, status = ask(app, "/"), ask(app, "/api/status")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "1 of 1 registries are well" in page.text
        assert json.loads(status.body) == source.looks[0].document
        assert ask(app, "/", "HEAD").status == 200
        assert ask(app, "/events", "HEAD").status == 200


def test_what_is_old_is_stamped_and_the_json_gives_no_figures() -> None:
    source = _Source()
    with _console(source) as (app, feed):
        _turn(source, feed)
        source.now += STALE_SECONDS
        assert 'data-stale="no"' in ask(app, "/").text
        assert ask(app, "/readyz").text == "ok\n"
        source.now += 0.1
        assert 'data-stale="yes"' in ask(app, "/").text
        assert ask(app, "/readyz").text == "[-]page the newest is 10 s old\n1 of 1 failed\n"
        status = ask(app, "/api/status")
        told = json.loads(status.body)
        assert (status.status, told["ok"], "registries" in told) == (503, False, False)
        assert told["observed_at"] == "2027-01-15T08:00:00.000Z"
        _turn(source, feed)
        assert 'data-stale="no"' in ask(app, "/").text
        assert ask(app, "/api/status").status == 200


def test_before_the_first_look_nothing_is_claimed() -> None:
    with _console(_Source()) as (app, _):
        assert "Nothing has been seen yet" in ask(app, "/").text
        assert ask(app, "/api/status").status == 503
        assert ask(app, "/readyz").status == 503
        assert ask(app, "/livez").status == 200


def test_livez_tells_of_a_collection_that_hangs_or_has_failed() -> None:
    source = _Source()
    with _console(source) as (app, feed):
        _turn(source, feed)
        assert ask(app, "/livez").text == "ok\n"
        assert ask(app, "/livez?verbose").text.startswith("[+]looks ")
        source.now += 121
        assert ask(app, "/livez").status == 503
        source.error = RuntimeError("a bug")
        _turn(source, feed)
        assert ask(app, "/livez").status == 503
        assert feed.failure is source.error
        assert feed.ended


def test_events_bring_what_has_changed_and_nothing_twice() -> None:
    source = _Source()
    source.looks.append(seen_of({"land": STALLED}, later=2))
    with _console(source) as (app, feed):
        _turn(source, feed)
        release = threading.Timer(0.2, source.may.release)
        release.start()
        answer = ask(app, "/events", until='"number": 2')
        release.join()
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    first, second = _events(answer)
    assert first["changes"] == []
    assert second["changes"] == ["land: following → stalled"]
    sections, later = first["sections"], second["sections"]
    assert isinstance(sections, dict)
    assert isinstance(later, dict)
    assert set(sections) == {"verdict", "registries", "operations", "pipeline", "rpo", "changes", "audit"}
    assert set(later) == {"verdict", "registries", "pipeline", "rpo", "changes"}
    assert "stalled" in later["registries"]


def test_a_stream_of_events_ends_with_the_collection() -> None:
    source = _Source()
    with _console(source) as (app, feed):
        _turn(source, feed)
        source.error = RuntimeError("a bug")
        release = threading.Timer(0.2, source.may.release)
        release.start()
        assert len(_events(ask(app, "/events"))) == 1
        release.join()


def test_a_browser_more_than_may_listen_is_told_to_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.app._STREAMS_MOST", 0)
    with _console(_Source()) as (app, _):
        assert ask(app, "/events").status == 503


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", _PATHS)
def test_only_reading_is_possible(path: str, method: str) -> None:
    with _console(_Source()) as (app, _):
        answer = ask(app, path, method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", [path for path in _PATHS if path != "/events"])
def test_every_answer_says_what_a_browser_may_do_with_it(path: str) -> None:
    with _console(_Source()) as (app, _):
        headers = ask(app, path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert {policy[kind] for kind in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8470", "", "localhost.evil.example", "127.0.0.1@x"]
)
def test_a_name_that_is_made_to_point_here_gets_nothing(host: str) -> None:
    source = _Source()
    with _console(source) as (app, feed):
        _turn(source, feed)
        for path in _PATHS:
            answer = ask(app, path, host=host)
            assert answer.status == 421
            assert "land" not in answer.text


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:8470", "localhost"),
        ("127.0.0.1:8470", "127.0.0.1"),
        ("[::1]:8470", "::1"),
        ("[::1]", "::1"),
        ("::1", ""),
        ("[::1]x", ""),
        ("x]:1", ""),
        ("a:b", ""),
        ("", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, host: str) -> None:
    assert host_of(header) == host


def test_static_files_are_those_of_the_list_only() -> None:
    with _console(_Source()) as (app, _):
        assert ask(app, "/static/console.js").headers["content-type"] == "text/javascript; charset=utf-8"
        assert ask(app, "/static/../page.py").status == 404
        assert ask(app, "/static/page.py").status == 404
