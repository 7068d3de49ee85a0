"""A TCP relay on loopback, so that a test decides when a connection breaks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_PIECE_BYTES = 64 << 10


class Relay:
    """Passes bytes both ways between whoever connects to `port` and a server, until it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def lead_to(self, host: str, port: int) -> None:
        """Pass what connects from now on to another server."""
        self._server = (host, port)

    def cut(self) -> None:
        """Close every connection there is; new ones are accepted as before."""
        for end in tuple(self._sockets):
            _shut(end)

    def close(self) -> None:
        """Cut, and accept nothing more."""
        _shut(self._listener)
        self._threads[0].join()  # it starts the others
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._sockets):
            end.close()

    def _start(self, target: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._sockets += [client, server]
            self._start(self._pass, client, server)
            self._start(self._pass, server, client)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                target.sendall(piece)
        _shut(source)
        _shut(target)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):  # it is shut already
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(host: str, port: int) -> Iterator[Relay]:
    """A relay to a server, closed at the end."""
    made = Relay(host, port)
    try:
        yield made
    finally:
        made.close()
