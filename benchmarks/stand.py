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

_HBA = """\
hostssl all,replication all 127.0.0.1/32 cert
local   all             all              trust
"""


@contextmanager
def stand(
    announce: Announce, *, keep: bool, registries: str | Path = "registries.toml", postgres: str | None = None
) -> Iterator[Lab]:
    """A lab, gone at the end unless it is to be kept; in EMBASSY_LAB_HOME or ``.lab/bench`` of the project.

    Args:
        announce: told what happens.
        keep: whether its folder stays.
        registries: their file, relative to this one.
        postgres: the servers' version, if it matters.
    """
    home = Path(os.environ.get("EMBASSY_LAB_HOME") or _PROJECT / ".lab" / "bench")
    file = Path(__file__).parent / registries
    lab = Lab.up(home, registries=file, embassies=1, postgres=postgres, announce=announce)
    try:
        for server in (lab.home.postgres, lab.site(lab.embassies[0]).postgres):
            announce(f"{server.site} postgres", "restarting with the benchmark's settings")
            _configure(server)
        yield lab
    finally:
        announce("lab", "going down")
        lab.down(keep_data=keep)


def client_parameters(server: PostgresServer, database: str) -> dict[str, str]:
    """The environment in which PostgreSQL's own client programs reach a server's database, as its superuser.

    It leads over a Unix socket in the cluster's own folder, which nobody but the server's account can enter: the
    programs that come with a Python package were built without TLS.
    """
    return {
        "PGHOST": str(server.data),
        "PGPORT": str(server.port),
        "PGUSER": ADMIN,
        "PGDATABASE": database,
        "PGSSLMODE": "disable",
    }


def _configure(server: PostgresServer) -> None:
    hba = server.data / "bench_hba.conf"
    server.write(hba, _HBA)
    settings = {**SETTINGS, "unix_socket_directories": str(server.data), "hba_file": str(hba)}
    with server.connect(ADMIN) as connection:
        for name, value in settings.items():
            connection.execute(
                sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
            )
    server.stop()
    server.start()
