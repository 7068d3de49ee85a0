"""What is wrong with the certificate of a Kafka client, as far as its files tell.

A broker that takes it no longer says so by the number of a TLS alert, and not which file that was. And a client reads
its files once, when it is made: what is put in their place later is of use to the next process only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from embassy.model.wording import iso
from embassy.runtime.config import KafkaCluster


class ClientCertificate:
    """The certificate and the authority that this process's clients of a cluster have read."""

    def __init__(self, cluster: KafkaCluster, wall: Callable[[], float] = time.time) -> None:
        """Read the files; to be made with the clients.

        Args:
            cluster: whose section names them.
            wall: seconds since 1970 UTC.
        """
        self._wall = wall
        self._used = {path: _content(path) for path in (cluster.certificate, cluster.ca)}

    def doubt(self) -> str:
        """Why brokers may not take it, or the other way round, with the way out; empty: nothing is known."""
        for path, content in self._used.items():
            if _content(path) != content:
                return f"{path} was replaced since this process read it: restart the process"
            end = _end(content)
            if end is not None and end <= self._wall():
                return f"{path} expired at {iso(end)}: put a valid one in its place, then restart the process"
        return ""


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # whoever makes a client of it says so


def _end(content: bytes) -> float | None:
    """Until when a file's first certificate is valid, seconds since 1970 UTC; None: none can be read."""
    from cryptography import x509  # noqa: PLC0415 - a service has no use for it before the day of trouble

    try:
        return x509.load_pem_x509_certificates(content)[0].not_valid_after_utc.timestamp()
    except ValueError:
        return None
