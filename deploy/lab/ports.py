"""Free loopback ports that stay free while a server is down."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from pathlib import Path

from embassy.model.errors import TransientError

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 20_000
_ATTEMPTS = 500


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Whether somebody answers on this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port(taken: Collection[int]) -> int:
    """A free port outside the range that outgoing connections take theirs from.

    Within that range another program's connection could take the port of a killed server before it is back, and a
    client that keeps trying could even connect to itself.

    Raises:
        TransientError: no free port was found.
    """
    highest = _first_ephemeral() - 1
    for _ in range(_ATTEMPTS):
        port = random.randint(_LOWEST, highest)  # noqa: S311 - chosen at random against collisions only
        if port not in taken and is_free(port):
            return port
    raise TransientError(f"no free loopback port between {_LOWEST} and {highest}")


def _first_ephemeral() -> int:
    try:
        first = int(_EPHEMERAL.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
    return first if first > _LOWEST + _ATTEMPTS else 65_536
