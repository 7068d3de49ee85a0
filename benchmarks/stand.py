"""The servers both contestants run on: a lab of its own, with settings for a load."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import sql

from deploy.lab.databases import ADMIN
from deploy.lab.lab import Lab
from deploy.lab.postgres_server import PostgresServer
from deploy.lab.waiting import Announce

_PROJECT = Path(__file__).parents[1]

SETTINGS = {
    "shared_buffers": "512MB",
    "wal_buffers": "16MB",
    "max_wal_size": "8GB",
    "min_wal_size": "2GB",
    "checkpoint_timeout": "1h",
    # Rounds are vacuumed and checkpointed between measurements, at known times.
    "autovacuum": "off",
    # A sender is frozen while its backlog is written, for longer than these allow by default.
    "wal_sender_timeout": "0",
    "wal_receiver_timeout": "0",
}
"""Beyond the lab's own; fsync and full_page_writes stay on, and every table has checksums."""


@contextmanager
def stand(announce: Announce, *, keep: bool, registries: str = "registries.toml") -> Iterator[Lab]:
    """A lab, gone at the end unless it is to be kept; in EMBASSY_LAB_HOME or ``.lab/bench`` of the project."""
    home = Path(os.environ.get("EMBASSY_LAB_HOME") or _PROJECT / ".lab" / "bench")
    lab = Lab.up(home, registries=Path(__file__).with_name(registries), embassies=1, announce=announce)
    try:
        for server in (lab.home.postgres, lab.site(lab.embassies[0]).postgres):
            announce(f"{server.site} postgres", "restarting with the benchmark's settings")
            _configure(server)
        yield lab
    finally:
        announce("lab", "going down")
        lab.down(keep_data=keep)


def _configure(server: PostgresServer) -> None:
    with server.connect(ADMIN) as connection:
        for name, value in SETTINGS.items():
            connection.execute(
                sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
            )
    server.stop()
    server.start()
