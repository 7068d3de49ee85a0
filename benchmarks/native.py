"""PostgreSQL's own logical replication as a contestant: a publication, a subscription, nothing between."""

from __future__ import annotations

from pathlib import Path

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks.contestant import Contestant
from deploy.lab.databases import ADMIN, PRODUCER
from deploy.lab.lab import Lab
from deploy.lab.postgres_server import PostgresServer
from embassy.model.errors import TransientError

NAME = "native"
_START_SECONDS = 60.0
_FILES = {"sslcert": "subscriber.pem", "sslkey": "subscriber.key", "sslrootcert": "publisher-ca.pem"}

OPTIONS = {
    "copy_data": "false",  # both sides begin empty
    "streaming": "parallel",
    "binary": "true",
    "run_as_owner": "true",
    "slot_name": f"'{NAME}'",
}
"""The fastest there are; synchronous_commit is off by default: the applier does not wait for its own fsync."""


class Native(Contestant):
    """The yardstick. Its connection has the same TLS as ours: the lab's servers accept no other."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(NAME, lab, NAME)

    def start(self) -> None:
        """Make the databases, publish and subscribe."""
        self.make_databases()
        with self.source() as source:
            source.execute(f"CREATE PUBLICATION {NAME} FOR ALL TABLES")
        options = ", ".join(f"{name} = {value}" for name, value in OPTIONS.items())
        with self.replica() as replica:
            replica.execute(
                sql.SQL(
                    "CREATE SUBSCRIPTION {name} CONNECTION {dsn} PUBLICATION {name} WITH (" + options + ")"
                ).format(name=sql.Identifier(NAME), dsn=publisher(self.home, self.abroad, NAME))
            )
        self.await_sender(_START_SECONDS)

    def stop(self) -> None:
        """End the subscription, its slot included."""
        with self.abroad.connect(ADMIN) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (NAME,)).fetchone() is None:
                return
        with self.replica() as replica:
            replica.execute(f"DROP SUBSCRIPTION IF EXISTS {NAME}")

    def check(self) -> None:
        """Make sure that no worker has failed."""
        with self.replica() as replica:
            row = replica.execute("SELECT apply_error_count FROM pg_stat_subscription_stats").fetchone()
        if row is None or row[0]:
            raise TransientError("the subscription has failed", place=str(self.abroad.log))


def publisher(home: PostgresServer, abroad: PostgresServer, database: str) -> str:
    """How a subscription finds the publisher: a DSN whose files the embassy's server can read."""
    dsn = conninfo_to_dict(home.dsn(PRODUCER, database))
    for option, name in _FILES.items():
        path = abroad.data / name
        abroad.write(path, Path(str(dsn[option])).read_text(encoding="ascii"))
        dsn[option] = str(path)
    return make_conninfo(**{name: str(value) for name, value in dsn.items()})
