"""The routes, which only read: a page, the JSON of `embassy status`, a stream of events, and whether looks go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from importlib import resources

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from console.feed import STALE_SECONDS, Feed, Taken
from console.guard import Guard
from console.page import Renderer
from embassy.runtime.health import Check

_STATIC = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_RETRY_MILLISECONDS = 2000
_STREAMS_MOST = 32
"""Browsers that hear of each look at the same time; a further one asks for the whole page every five seconds."""


class Console:
    """What the routes answer with; everything comes from the feed's memory."""

    def __init__(self, feed: Feed, renderer: Renderer, *, site: str) -> None:
        self._feed = feed
        self._renderer = renderer
        self._site = site
        self._streams = 0
        folder = resources.files("console") / "static"
        self._static = {name: (folder / name).read_bytes() for name in _STATIC}

    def app(self, hosts: frozenset[str]) -> Guard:
        """The application, for those who ask for one of these hosts."""
        routes = [
            Route("/", self.page),
            Route("/api/status", self.status),
            Route("/events", self.events),
            Route("/livez", self.livez),
            Route("/readyz", self.readyz),
            Route("/static/{name}", self.static),
        ]
        return Guard(Starlette(routes=routes), hosts)

    async def page(self, _request: Request) -> Response:
        """The whole page as it is now, stamped if it is old."""
        taken = self._feed.newest()
        stale = taken is None or self._is_stale(taken)
        text = self._renderer.whole(taken.page if taken is not None else None, site=self._site, stale=stale)
        return HTMLResponse(text)

    async def status(self, _request: Request) -> Response:
        """What `embassy status --json` prints; 503 and no figures if the newest look is old, or there is none."""
        taken = self._feed.newest()
        if taken is None or self._is_stale(taken):
            return JSONResponse(
                {
                    "schema": "embassy.console-stale/1",
                    "ok": False,
                    "observed_at": taken.seen.document["observed_at"] if taken is not None else None,
                    "message": f"nothing has been seen for more than {STALE_SECONDS:.0f} s"
                    if taken is not None
                    else "nothing has been seen yet",
                },
                503,
            )
        return JSONResponse(taken.seen.document)

    async def events(self, request: Request) -> Response:
        """Each look as it comes: the sections that have changed since the one before."""
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if self._streams >= _STREAMS_MOST:
            return PlainTextResponse("too many browsers are listening; reload instead\n", 503)
        return StreamingResponse(self._looks(), media_type="text/event-stream")

    async def livez(self, request: Request) -> Response:
        """Whether the collection turns: a restart would help if not."""
        return self._checked(self._feed.live(), request)

    async def readyz(self, request: Request) -> Response:
        """Whether what is shown counts: the page is not stamped."""
        taken = self._feed.newest()
        text = "nothing has been seen yet" if taken is None else f"the newest is {self._feed.age(taken):.0f} s old"
        return self._checked(Check("page", taken is not None and not self._is_stale(taken), text), request)

    @staticmethod
    def _checked(check: Check, request: Request) -> Response:
        lines = [f"[{'+' if check.passed else '-'}]{check.name} {check.text}"]
        told = lines if not check.passed or "verbose" in request.query_params else []
        last = "ok" if check.passed else "1 of 1 failed"
        return PlainTextResponse("\n".join([*told, last]) + "\n", 200 if check.passed else 503)

    async def static(self, request: Request) -> Response:
        """One of the page's own files."""
        name = request.path_params["name"]
        if name not in _STATIC:
            return PlainTextResponse("no such file\n", 404)
        return Response(self._static[name], headers={"Content-Type": _STATIC[name]})

    async def _looks(self) -> AsyncIterator[str]:
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        sent: dict[str, str] = {}
        number = 0
        self._streams += 1
        try:
            with self._feed.waking(partial(loop.call_soon_threadsafe, came.set)):
                yield f"retry: {_RETRY_MILLISECONDS}\n\n"
                while not self._feed.ended:
                    came.clear()
                    taken = self._feed.newest()
                    if taken is not None and taken.number != number:
                        told = number == taken.number - 1
                        number = taken.number
                        yield f"event: look\ndata: {self._event(taken, sent, changes_told=told)}\n\n"
                        continue
                    await came.wait()
        finally:
            self._streams -= 1

    def _event(self, taken: Taken, sent: dict[str, str], *, changes_told: bool) -> str:
        fresh = {name: html for name, html in taken.page.sections.items() if sent.get(name) != html}
        sent.update(fresh)
        changes = (
            [f"{c.registry}: {c.before.value} → {c.after.value}" for c in taken.changes] if changes_told else []
        )
        return json.dumps(
            {
                "number": taken.number,
                "age_seconds": round(self._feed.age(taken), 3),
                "title": taken.page.title,
                "sections": fresh,
                "changes": changes,
            },
            ensure_ascii=True,  # and so in one line, whatever stands in it
        )

    def _is_stale(self, taken: Taken) -> bool:
        return self._feed.age(taken) > STALE_SECONDS
