"""One lab of real servers for the whole test run."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg import sql

from deploy.lab.databases import OWNER
from deploy.lab.lab import Lab

MakeDatabase = Callable[[str], str]
"""Called with a site's name; returns the name of a new empty database there, owned by registry_owner."""

_REGISTRY = "ledger"
_SCHEMA = """
CREATE TABLE account (id bigint PRIMARY KEY, owner text NOT NULL, balance numeric NOT NULL DEFAULT 0);
INSERT INTO account VALUES (1, 'treasury', 0);
"""


@contextlib.contextmanager
def lab_folder() -> Iterator[Path]:
    """A folder for a lab of its own, which the servers' account can enter, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="embassy-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def write_registries(folder: Path, *names: str) -> Path:
    """A registries file in which each registry has the small schema of the tests."""
    (folder / "small.sql").write_text(_SCHEMA)
    file = folder / "registries.toml"
    tables = [f'[registries.{name}]\ntitle = "The {name} of the tests"\nschema = "small.sql"\n' for name in names]
    file.write_text("\n".join(tables))
    return file


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab with one embassy and one registry, ``ledger``; EMBASSY_TEST_POSTGRES chooses the version."""
    with lab_folder() as folder:
        registries = write_registries(folder, _REGISTRY)
        found = Lab.up(folder / "lab", registries=registries, postgres=os.environ.get("EMBASSY_TEST_POSTGRES"))
        try:
            yield found
        finally:
            found.down()


@pytest.fixture(autouse=True)
def _servers_come_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start again what a test has killed, so that the next one finds the whole lab."""
    yield
    if "lab" in request.fixturenames:
        found: Lab = request.getfixturevalue("lab")
        for name in found.state.sites:
            site = found.site(name)
            if not site.kafka.alive:  # who starts a broker waits for it; to ask one that runs costs 50 ms a test
                site.kafka.start()
            site.postgres.start()


@pytest.fixture
def make_database(lab: Lab) -> Iterator[MakeDatabase]:
    """A maker of databases beside the registries'; they are dropped after the test, slots included."""
    made: list[tuple[str, str]] = []

    def make(site: str) -> str:
        name = f"test_{secrets.token_hex(6)}"
        with lab.site(site).postgres.connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(
                    sql.Identifier(name), sql.Identifier(OWNER)
                )
            )
        made.append((site, name))
        return name

    yield make
    for site, name in made:
        _drop_database(lab, site, name)


def _drop_database(lab: Lab, site: str, name: str) -> None:
    server = lab.site(site).postgres
    server.start()
    with server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE database = %s"
            " AND active_pid IS NOT NULL",
            (name,),
        )
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", (name,)
        )
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
