"""The HTTP side of a service: /metrics, /livez and /readyz.

``/livez`` fails only when a loop no longer turns: a restart would help. ``/readyz`` fails while a stream is not served,
whatever the cause; with ``?verbose`` it says which and why. Both answer from memory and never wait for a server.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from embassy.model.errors import ConfigurationError

_CLIENT_SECONDS = 10
_TEXT = "text/plain; charset=utf-8"


class Check(NamedTuple):
    """One line of an answer."""

    name: str
    passed: bool
    text: str


class Answers(NamedTuple):
    """Where the answers come from; called in the threads of the server."""

    metrics: Callable[[str], tuple[bytes, str]]
    """Called with the Accept header; returns the text and its content type."""
    live: Callable[[], Sequence[Check]]
    ready: Callable[[], Sequence[Check]]


class Listen(NamedTuple):
    """An address to listen at."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, place: str = "metrics.listen") -> Self:
        """Read ``host:port``; an IPv6 host stands in brackets, port 0 picks a free one.

        Args:
            text: what is configured.
            place: by which key.

        Raises:
            ConfigurationError: the text has another form.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        plain = host[1:-1] if bracketed else host
        if not colon or not plain or (":" in plain and not bracketed) or not port.isascii() or not port.isdigit():
            raise ConfigurationError(
                f"not an address to listen at: {text!r}",
                place=place,
                hint="write host:port, as in 127.0.0.1:9464; port 0 picks a free one",
            )
        if int(port) > 65535:
            raise ConfigurationError(f"no such port: {port}", place=place, hint="a port is at most 65535")
        return cls(plain, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class HealthServer:
    """Serves until closed."""

    def __init__(self, listen: Listen, answers: Answers, *, address_file: Path | None = None) -> None:
        """Bind the port, and write the address to a file, for those who look for it.

        Raises:
            ConfigurationError: the address is in use, is not this machine's, or the file cannot be written.
        """
        try:
            self._server = _Server(listen, answers)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen at {listen}: {error.strerror}",
                place="metrics.listen",
                hint="choose another port, or 0 for a free one",
            ) from error
        self.address = Listen(listen.host, self._server.server_port)
        self._thread = threading.Thread(target=self._serve, name="health", daemon=True)
        self._closing = ExitStack()
        try:
            self._closing.enter_context(written_address(address_file, self.address))
        except ConfigurationError:
            self._server.server_close()
            raise
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; the file with the address goes too."""
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        os.close(self._wake_fd)
        self._server.server_close()
        self._closing.close()

    def _serve(self) -> None:
        """As ``serve_forever``, which would wake again and again to see whether it is to stop."""
        while self._wake_fd not in select.select([self._server.fileno(), self._wake_fd], [], [])[0]:
            self._server.handle_request()


@contextmanager
def written_address(file: Path | None, address: Listen) -> Iterator[None]:
    """Inside the context, the file holds the address, for those who look for it; None: there is no file.

    Raises:
        ConfigurationError: it cannot be written.
    """
    if file is None:
        yield
        return
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        fresh.write_text(f"{address}\n", encoding="ascii")
        fresh.replace(file)
    except OSError as error:
        raise ConfigurationError(f"cannot write the address: {error.strerror}", place=str(file)) from error
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    timeout = 0  # a client that was there when select returned may be gone

    def __init__(self, listen: Listen, answers: Answers) -> None:
        if ":" in listen.host:
            self.address_family = socket.AF_INET6
        self.answers = answers
        super().__init__((listen.host, listen.port), _Request)

    def server_bind(self) -> None:
        """Bind without looking up the host's name, which may take long where DNS is down."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is not worth a line."""


class _Request(BaseHTTPRequestHandler):
    server: _Server
    server_version = "embassy"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        answers = self.server.answers
        if url.path == "/metrics":
            body, content_type = answers.metrics(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, body, content_type)
        elif url.path in ("/livez", "/readyz"):
            checks = answers.live() if url.path == "/livez" else answers.ready()
            self._answer_checks(checks, verbose="verbose" in parse_qs(url.query, keep_blank_values=True))
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"/metrics, /livez and /readyz?verbose are here\n", _TEXT)

    do_HEAD = do_GET  # noqa: N815 - the same

    def _answer_checks(self, checks: Sequence[Check], *, verbose: bool) -> None:
        failed = [check for check in checks if not check.passed]
        lines = [
            f"[{'+' if check.passed else '-'}]{check.name} {check.text}"
            for check in (checks if verbose else failed)
        ]
        status = HTTPStatus.SERVICE_UNAVAILABLE if failed else HTTPStatus.OK
        lines.append(f"{len(failed)} of {len(checks)} failed" if failed else "ok")
        self._answer(status, ("\n".join(lines) + "\n").encode(), _TEXT)

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature is http.server's
        """Requests are not logged: a scraper comes every few seconds."""
