"""Serving the application with uvicorn: the address, TLS with clients' certificates, and a clean end."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from console.feed import Feed
from embassy.model.errors import ConfigurationError
from embassy.runtime.console_config import ServerTls
from embassy.runtime.health import Listen
from embassy.runtime.signals import handled

_CONNECTIONS_MOST = 64
_SHUTDOWN_SECONDS = 2
_TICK_SECONDS = 1
_BACKLOG = 64


class Door:
    """A bound address; `serve` answers there, `close` it otherwise."""

    def __init__(self, listen: Listen, tls: ServerTls | None) -> None:
        """Bind the address, and read the certificates.

        Raises:
            ConfigurationError: the address is in use or is not this machine's, or a certificate cannot be used.
        """
        self._tls = _context(tls) if tls is not None else None
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((listen.host, listen.port))
            self._socket.listen(_BACKLOG)
        except OSError as error:
            self._socket.close()
            raise ConfigurationError(
                f"cannot listen at {listen}: {error.strerror}",
                place="console.listen",
                hint="choose another port, or 0 for a free one",
            ) from error
        self.address = Listen(listen.host, self._socket.getsockname()[1])
        self.url = f"{'https' if tls is not None else 'http'}://{self.address}/"

    def close(self) -> None:
        """Give the address back."""
        self._socket.close()

    def serve(self, app: ASGIApp, feed: Feed, tick: Callable[[], None]) -> None:
        """Answer until SIGTERM or SIGINT, or until the feed has failed.

        Args:
            app: what answers.
            feed: stopped at the end, so that streams of events end too.
            tick: called each second.
        """

        async def ticked() -> None:
            tick()

        context = self._tls
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS_MOST,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            callback_notify=ticked,
            timeout_notify=_TICK_SECONDS,
            ssl_context_factory=(lambda _config, _default: context) if context is not None else None,
        )
        with handled(_noted, signal.SIGTERM, signal.SIGINT):
            _Server(config, feed).run(sockets=[self._socket])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, feed: Feed) -> None:
        super().__init__(config)
        self._feed = feed

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._feed.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feed.stop()
        await super().shutdown(sockets)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Uvicorn raises the signal once more when it has ended; by then all is done."""


def _context(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")  # else it would ask the terminal
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the page's certificate or its key cannot be used: {error}", place=f"{tls.certificate}, {tls.key}"
        ) from error
    try:
        context.load_verify_locations(tls.client_ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the authority of the clients cannot be used: {error}", place=str(tls.client_ca)
        ) from error
    return context
