"""A source of each version, and a replica of the same or a newer one: provisioned, filled, changed, altered, compared.

Real servers, the real replication session and the product's own provisioning; Kafka is not in between, as no version of
PostgreSQL makes a difference to it. ``make test`` runs the pair that lies farthest apart, ``make test-matrix`` all.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

from deploy.lab.account import Account, sheltered
from deploy.lab.artifacts import SOURCE_VERSIONS, ArtifactCache
from deploy.lab.layout import Layout
from deploy.lab.waiting import Patience, silent
from embassy.model.lsn import ZERO, Lsn
from embassy.model.record import Head
from embassy.model.schema_file import parse_schema_file
from embassy.pg import source_schema
from embassy.pg.connection import connect
from embassy.pg.exchange import Exchange
from embassy.pg.replica_setup import ReplicaWish, replica_steps
from embassy.pg.replication_session import ReplicationSession
from embassy.pg.schema_dump import take_schema
from embassy.pg.source_setup import SourceWish, source_steps
from producers import pgoutput_decoder as pgoutput
from tests.harness.catalog import catalog_differences
from tests.harness.ddl_workload import START, DdlWorkload
from tests.harness.every_type import KINDS, EveryType
from tests.harness.lab import lab_folder
from tests.harness.plain_postgres import PASSWORD, PlainPostgres, PlainServers
from tests.harness.two_databases import TwoDatabases, between

ServerOf = Callable[[str], PlainPostgres]

PAIRS = [(old, new) for old in SOURCE_VERSIONS for new in SOURCE_VERSIONS if int(old) <= int(new)]
if os.environ.get("EMBASSY_TEST_MATRIX") != "all":
    PAIRS = [PAIRS[len(SOURCE_VERSIONS) - 1]]
_RECEIVE_SECONDS = 180.0
_TABLES = """
CREATE TABLE s.parent (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, big text);
CREATE TABLE s.child (id serial PRIMARY KEY, parent integer REFERENCES s.parent ON DELETE CASCADE);
CREATE TABLE s.part (id integer, year integer, v text, PRIMARY KEY (id, year)) PARTITION BY RANGE (year);
CREATE TABLE s.part_1 PARTITION OF s.part FOR VALUES FROM (2000) TO (2010);
CREATE TABLE s.part_rest PARTITION OF s.part DEFAULT;
CREATE TABLE s.bag (n numeric, t text);
CREATE TABLE s.made (id integer PRIMARY KEY, twice integer GENERATED ALWAYS AS (id * 2) STORED);
CREATE UNIQUE INDEX bag_key ON s.bag (n) WHERE t IS NULL;
CREATE VIEW s.seen AS SELECT id, v FROM s.parent;
ALTER TABLE s.parent ALTER big SET STORAGE EXTERNAL;
"""


@pytest.fixture(scope="module")
def server_of() -> Iterator[ServerOf]:
    """A server of a version, started when it is first asked for."""
    account, layout = Account.for_servers(), Layout.choose()
    artifacts = ArtifactCache(sheltered(layout.cache, account), account, Patience(), silent)
    with lab_folder() as folder:
        servers = PlainServers(folder)
        settings = {"wal_level": "logical", "fsync": "off", "max_prepared_transactions": "5"}

        @cache
        def start(version: str) -> PlainPostgres:
            server = servers.start(artifacts.postgres(version).bin, settings)
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                for role in ("embassy_producer", "registry_owner"):
                    connection.execute(
                        sql.SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD {}").format(
                            sql.Identifier(role), sql.Literal(PASSWORD)
                        )
                    )
            return server

        yield start
        servers.stop()


@contextmanager
def database(server: PlainPostgres) -> Iterator[str]:
    """An empty database; gone at the end, its slots too. Yields its DSN."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        yield server.dsn(dbname=name)
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", (name,)
        )
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def receive(session: ReplicationSession, source: psycopg.Connection[Any]) -> list[bytes]:
    """The messages of what has committed by now."""
    (position,) = source.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone() or ("",)
    source.execute("SELECT embassy.beat(NULL, NULL)")  # its commit lies behind that
    found: list[bytes] = []
    end = time.monotonic() + _RECEIVE_SECONDS
    wanted = Lsn.parse(str(position))
    reached = 0
    while reached < wanted:
        assert time.monotonic() < end, "the changes do not come"
        before = len(found)
        session.drain(found.append, 100_000, 1 << 30)
        for message in found[before:]:
            if message[0] == pgoutput.COMMIT:
                reached = pgoutput.decode_commit(message).commit_lsn
        if len(found) == before:
            time.sleep(0.01)
    return found


@contextmanager
def provisioned(source_dsn: str, replica_dsn: str) -> Iterator[TwoDatabases]:
    """Both sides as the product makes them; the replica begins empty."""
    stream, slot = secrets.token_bytes(16), f"test_{secrets.token_hex(6)}"
    for step in source_steps(
        SourceWish(source_dsn, stream, slot, "embassy", "embassy_producer", replica_is_level=False)
    ):
        step.take()
    schema = parse_schema_file(take_schema(source_dsn).text(), "the file")
    genesis = Head.genesis(secrets.token_bytes(32), 1, ZERO)
    for step in replica_steps(ReplicaWish(replica_dsn, stream, genesis, lambda: schema)):
        step.take()
    two = between(source_dsn, replica_dsn, replica_dsn)
    session = ReplicationSession(source_dsn, slot=slot, publication="embassy", application_name="test")
    try:
        session.start(ZERO)
        two.received = partial(receive, session, two.source)
        yield two
    finally:
        for connection in (two.source, two.replica, two.session.connection, session):
            connection.close()


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=[f"{old}-{new}" for old, new in PAIRS])
def test_a_source_and_a_replica_of_the_same_or_a_newer_version(server_of: ServerOf, old: str, new: str) -> None:
    with database(server_of(old)) as source_dsn, database(server_of(new)) as replica_dsn:
        with psycopg.connect(source_dsn, autocommit=True) as source:
            source.execute(KINDS)
            every = EveryType.of(source)
            source.execute(every.ddl().encode())
            source.execute(_TABLES)
        with provisioned(source_dsn, replica_dsn) as two:
            every.fill(two.source)
            two.source.execute(
                "INSERT INTO s.parent (v, big) SELECT i, repeat('x', 9000) FROM generate_series(1, 9) i"
            )
            two.source.execute("INSERT INTO s.child (parent) SELECT i FROM generate_series(1, 9) i")
            two.source.execute("INSERT INTO s.part SELECT i, 1999 + i, 'v' FROM generate_series(1, 20) i")
            two.source.execute("INSERT INTO s.made SELECT i FROM generate_series(1, 3) i")
            two.source.execute("INSERT INTO s.bag SELECT i % 3, 'v' FROM generate_series(1, 9) i")
            two.carry()
            every.change(two.source)
            two.source.execute("UPDATE s.parent SET v = v || '!' WHERE id < 5")
            two.source.execute("DELETE FROM s.parent WHERE id = 9")
            two.source.execute("UPDATE s.part SET year = 2000 WHERE id = 20")
            two.source.execute("BEGIN; INSERT INTO s.part VALUES (50, 2001, 'p'); PREPARE TRANSACTION 'kept'")
            two.source.execute("COMMIT PREPARED 'kept'")
            two.source.execute("DELETE FROM s.bag WHERE ctid = '(0,1)'")
            two.carry()
            two.source.execute("TRUNCATE s.parent RESTART IDENTITY CASCADE")
            two.source.execute("TRUNCATE s.part_1")
            two.source.execute("INSERT INTO s.parent (v) VALUES ('again')")
            Exchange(two.source).run([source_schema.SAMPLE_SEQUENCES])
            two.apply(two.batches())
            two.compare()
            query = "SELECT * FROM embassy.sequence_state ORDER BY 1, 2"
            found = [connection.execute(query).fetchall() for connection in (two.source, two.replica)]
            assert found[0]
            assert found[0] == found[1]


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=[f"{old}-{new}" for old, new in PAIRS])
def test_ddl_between_versions(server_of: ServerOf, old: str, new: str) -> None:
    with (
        database(server_of(old)) as source_dsn,
        database(server_of(new)) as replica_dsn,
        provisioned(source_dsn, replica_dsn) as two,
        connect(source_dsn, application_name="test", autocommit=True, settings={"search_path": "public"}) as home,
    ):
        home.execute(START)
        workload = DdlWorkload(home, int(old + new))
        for _ in range(3):
            workload.run(12)
            for batch in two.batches():
                two.apply([batch])
            two.compare()
            if old == new:
                assert catalog_differences(two.source, two.replica) == []
        assert workload.done > 30
