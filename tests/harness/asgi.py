"""Asking an ASGI application without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

Message = MutableMapping[str, Any]
App = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode("utf-8")


def ask(app: App, path: str, method: str = "GET", *, host: str = "localhost:8470", until: str = "") -> Answer:
    """Send one request.

    Args:
        app: the application.
        path: with its query, if any.
        method: the request's.
        host: its Host header.
        until: hang up once the body has this in it, of an answer that does not end by itself.
    """
    return asyncio.run(asyncio.wait_for(_ask(app, path, method, host, until.encode()), 10))


async def _ask(app: App, path: str, method: str, host: str, until: bytes) -> Answer:
    plain, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": plain,
        "raw_path": plain.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", host.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8470),
    }
    messages: list[Message] = []
    left, asked = asyncio.Event(), False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await left.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)
        if until and until in b"".join(m.get("body", b"") for m in messages):
            left.set()

    await app(scope, receive, send)
    start = messages[0]
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], headers, b"".join(m.get("body", b"") for m in messages[1:]))
