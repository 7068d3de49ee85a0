"""How much memory a stream asks the source for, to decode a large transaction in.

A walsender keeps what it decodes until the commit, and what is more than `logical_decoding_work_mem` (64 MB unless the
server says otherwise) goes to the source's disk and comes back: a third of what a large transaction costs there. The
setting is each session's own. But a server with a hundred databases must not be asked for a hundred times as much, so
the streams that read one server share a budget. Source: PostgreSQL documentation, "Resource Consumption".
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from psycopg.conninfo import conninfo_to_dict

_MOST = 256 << 20


def share(dsn: str, all_dsns: Iterable[str], budget: int) -> int:
    """What one stream may ask for, in bytes; a server that is set to more keeps its own.

    Args:
        dsn: the stream's source.
        all_dsns: the sources of all streams of this process, its own among them.
        budget: bytes, of each server.
    """
    server = _server(dsn)
    streams = sum(_server(other) == server for other in all_dsns)
    return min(_MOST, budget // max(streams, 1))


@cache  # each of a thousand streams asks about all
def _server(dsn: str) -> tuple[str, str]:
    parts = conninfo_to_dict(dsn)
    return str(parts.get("host") or parts.get("hostaddr") or ""), str(parts.get("port") or 5432)
