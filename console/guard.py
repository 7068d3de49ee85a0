"""What stands before every route: only reading, only for the hosts that are meant, and what a browser may do with it."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "HEAD")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Wraps an application. A page elsewhere whose name is made to point here asks with that name, and gets nothing."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return
        app = self._app
        host = host_of(Headers(scope=scope).get("host", ""))
        if host not in self._hosts:
            app = PlainTextResponse("this host is not served here; console.hosts names those that are\n", 421)
        elif scope["method"] not in _METHODS:
            app = PlainTextResponse("nothing can be changed here\n", 405, {"Allow": ", ".join(_METHODS)})

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await app(scope, receive, with_headers)


def host_of(header: str) -> str:
    """The name in a Host header, without its port and an address's brackets; empty if it has another form."""
    name, bracket, rest = header.partition("]")
    if bracket:
        return name.removeprefix("[").lower() if name.startswith("[") and _is_port(rest) else ""
    name, colon, port = header.partition(":")
    return name.lower() if _is_port(colon + port) else ""


def _is_port(text: str) -> bool:
    return not text or (text.startswith(":") and text[1:].isascii() and text[1:].isdigit())
