"""What a consumer and a keyd say to each other over a Unix socket: a length, then one JSON object, back and forth.

Requests: ``{"op": "holds"}`` and ``{"op": "unwrap", "recipient": …, "sealed": …, "info": …}`` (hexadecimal). Answers:
``{"ids": […]}``, ``{"secret": … or null}``, or ``{"error": "…"}`` for what is no request. A client may ask again.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

MESSAGE_BYTES_MOST = 64 << 10
_LENGTH = struct.Struct("!I")


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one message."""
    body = json.dumps(message).encode("ascii")
    connection.sendall(_LENGTH.pack(len(body)) + body)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Receive one message; None if the other side has closed instead.

    Raises:
        ValueError: what came is no message.
        OSError: the connection broke, or the other side took too long.
    """
    head = _exactly(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MESSAGE_BYTES_MOST:
        raise ValueError(f"a message of {length} bytes")
    body = _exactly(connection, length)
    if body is None:
        raise ValueError("a message that ends early")
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ValueError("not an object")  # noqa: TRY004 - the bytes are wrong, not a caller's type
    return message


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    pieces: list[bytes] = []
    left = count
    while left:
        piece = connection.recv(left)
        if not piece:
            if pieces:
                raise ValueError("a message that ends early")
            return None
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
