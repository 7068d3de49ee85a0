"""The ways in which PostgreSQL itself copies a database: pg_dump into psql, and a subscription with ``copy_data``."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from psycopg import sql

from benchmarks.native import publisher
from benchmarks.stand import client_parameters
from deploy.lab.databases import ADMIN, OWNER
from deploy.lab.lab import Lab
from deploy.lab.postgres_server import PostgresServer
from embassy.model.errors import ConfigurationError, TransientError
from embassy.pg.dump_client import find_client

_DUMPED, _SUBSCRIBED = "dumped", "subscribed"
_POLL_SECONDS = 0.05
_LIMIT_SECONDS = 3600.0


def dump_and_load(lab: Lab, database: str) -> float:
    """Seconds that ``pg_dump DATABASE | psql`` takes, schema and indexes included; what it made is dropped.

    Raises:
        ConfigurationError: a program is missing or failed; the message has its words.
    """
    home, abroad = lab.home.postgres, lab.site(lab.embassies[0]).postgres
    with home.connect(ADMIN) as connection:
        dump = find_client(connection.info.server_version).program
    load = dump.with_name("psql")
    if not load.is_file():
        raise ConfigurationError("there is no psql beside pg_dump", place=str(dump.parent))
    _create(abroad, _DUMPED)
    begun = time.monotonic()
    with subprocess.Popen(
        [dump],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, **client_parameters(home, database)},
    ) as dumping:
        loaded = subprocess.run(
            [load, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", os.devnull],
            stdin=dumping.stdout,
            env={**os.environ, **client_parameters(abroad, _DUMPED)},
            check=False,
            capture_output=True,
            text=True,
        )
    seconds = time.monotonic() - begun
    if dumping.returncode or loaded.returncode:
        raise ConfigurationError(f"pg_dump | psql failed: {loaded.stderr[-500:]}", place=str(dump.parent))
    _drop(abroad, _DUMPED)
    return seconds


def subscribe(lab: Lab, database: str, schema: Path) -> float:
    """Seconds that a subscription with ``copy_data`` takes into tables with their indexes; what it made is dropped.

    Raises:
        TransientError: it does not end.
    """
    home, abroad = lab.home.postgres, lab.site(lab.embassies[0]).postgres
    _create(abroad, _SUBSCRIBED)
    with abroad.connect(OWNER, _SUBSCRIBED) as replica:
        replica.execute(schema.read_bytes())
    name = sql.Identifier(_SUBSCRIBED)
    with home.connect(ADMIN, database) as source, abroad.connect(ADMIN, _SUBSCRIBED) as replica:
        source.execute(sql.SQL("CREATE PUBLICATION {} FOR ALL TABLES").format(name))
        begun = time.monotonic()
        replica.execute(
            sql.SQL(
                "CREATE SUBSCRIPTION {0} CONNECTION {1} PUBLICATION {0} WITH (binary = true, run_as_owner = true)"
            ).format(name, publisher(home, abroad, database))
        )
        try:
            while replica.execute("SELECT 1 FROM pg_subscription_rel WHERE srsubstate <> 'r' LIMIT 1").fetchone():
                if time.monotonic() - begun > _LIMIT_SECONDS:
                    raise TransientError("the subscription's copy does not end", place=str(abroad.log))
                time.sleep(_POLL_SECONDS)
            seconds = time.monotonic() - begun
        finally:
            replica.execute(sql.SQL("DROP SUBSCRIPTION {}").format(name))
            source.execute(sql.SQL("DROP PUBLICATION {}").format(name))
    _drop(abroad, _SUBSCRIBED)
    return seconds


def _create(server: PostgresServer, database: str) -> None:
    _drop(server, database)
    with server.connect(ADMIN) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(
                sql.Identifier(database), sql.Identifier(OWNER)
            )
        )


def _drop(server: PostgresServer, database: str) -> None:
    with server.connect(ADMIN) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
        connection.execute("CHECKPOINT")
