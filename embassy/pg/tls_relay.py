"""A private Unix socket that leads to a server over TLS, for a client program that was built without TLS.

The socket is in a folder that only this account can enter. The server is verified as the dsn asks; the client's
certificate is shown for it. Bytes pass as they are.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embassy.model.errors import ConfigurationError

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
_PLAIN_MODES = ("disable", "allow", "prefer")
_CONNECT_SECONDS = 10.0
_PIECE_BYTES = 65_536


def needs_relay(parameters: Mapping[str, Any]) -> bool:
    """Whether a server is to be reached over TLS."""
    host = str(parameters.get("host") or "")
    return not host.startswith("/") and parameters.get("sslmode", "prefer") not in _PLAIN_MODES


@contextmanager
def tls_relay(parameters: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """Serve while entered; yields the host and port by which a client reaches the server.

    Args:
        parameters: of the dsn: host, port and those that begin with ssl.

    Raises:
        ConfigurationError: a certificate cannot be used.
    """
    context = _context(parameters)
    port = str(parameters.get("port") or 5432)
    with tempfile.TemporaryDirectory(prefix="embassy-") as folder:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(Path(folder) / f".s.PGSQL.{port}"))
        listener.listen()
        server = (str(parameters.get("host") or "localhost"), int(port))
        thread = threading.Thread(target=_serve, args=(listener, server, context), name="tls-relay", daemon=True)
        thread.start()
        try:
            yield {"host": folder, "port": port}
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(_CONNECT_SECONDS)


def _context(parameters: Mapping[str, Any]) -> ssl.SSLContext:
    mode, root = parameters.get("sslmode"), parameters.get("sslrootcert")
    try:
        context = ssl.create_default_context(cafile=None if root in (None, "", "system") else str(root))
        if mode != "verify-full":
            context.check_hostname = False
        if mode == "require" and not root:
            context.verify_mode = ssl.CERT_NONE
        if parameters.get("sslcert"):
            context.load_cert_chain(
                str(parameters["sslcert"]),
                str(parameters["sslkey"]) if parameters.get("sslkey") else None,
                str(parameters.get("sslpassword") or ""),
            )
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the dsn's certificates cannot be used: {error}",
            hint="check sslrootcert, sslcert and sslkey of the dsn",
        ) from error
    return context


def _serve(listener: socket.socket, server: tuple[str, int], context: ssl.SSLContext) -> None:
    """One connection after another; a client whose connection fails is told by its end."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # closed: nobody comes any more
        with contextlib.suppress(OSError), client, _upstream(server, context) as encrypted:
            _carry(client, encrypted)


def _upstream(server: tuple[str, int], context: ssl.SSLContext) -> ssl.SSLSocket:
    with socket.create_connection(server, _CONNECT_SECONDS) as plain:
        plain.sendall(_SSL_REQUEST)
        if plain.recv(1) != b"S":
            raise ConnectionError("the server does not speak TLS")
        encrypted = context.wrap_socket(plain, server_hostname=server[0])  # it takes the connection over
    encrypted.settimeout(None)
    return encrypted


def _carry(client: socket.socket, server: ssl.SSLSocket) -> None:
    """Both ways, in turn, until either ends: a TLS connection is not for two threads."""
    while True:
        readable = [server] if server.pending() else select.select([client, server], [], [])[0]
        for source, sink in ((client, server), (server, client)):
            if source in readable:
                piece = source.recv(_PIECE_BYTES)
                if not piece:
                    return
                sink.sendall(piece)
