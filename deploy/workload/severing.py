"""Ending a wait for a server that no longer answers."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from deploy.workload.registry import Connection


def sever(connection: Connection | None) -> None:
    """Shut the socket of a connection that another thread waits on; that thread then sees it as lost."""
    if connection is None:
        return
    with (
        contextlib.suppress(psycopg.Error, OSError),
        socket.socket(fileno=socket.dup(connection.fileno())) as duplicate,
    ):
        duplicate.shutdown(socket.SHUT_RDWR)
