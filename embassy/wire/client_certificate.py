"""What is wrong with the certificate of a Kafka client, as far as its files tell.

A broker that takes it no longer says so by the number of a TLS alert, and not which file that was. And a client reads
its files once, when it is made: what is put in their place later is of use to the next process only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from embassy.model.wording import iso
from embassy.runtime.certificates import content_of, end_of
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
        self._used = {path: content_of(path) for path in (cluster.certificate, cluster.ca)}

    def doubt(self) -> str:
        """Why brokers may not take it, or the other way round, with the way out; empty: nothing is known."""
        for path, content in self._used.items():
            if content_of(path) != content:
                return f"{path} was replaced since this process read it: restart the process"
            end = end_of(content)
            if end is not None and end <= self._wall():
                return f"{path} expired at {iso(end)}: put a valid one in its place, then restart the process"
        return ""
