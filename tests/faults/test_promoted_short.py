"""A standby that is promoted short of what the stream already has would silently skip: it is refused."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from deploy.lab import databases
from deploy.lab.ports import free_port
from deploy.lab.postgres_server import SUPERUSER, PostgresServer
from tests.faults.test_attacks import commit
from tests.faults.test_continuity import run_a_while
from tests.harness.pipeline import MakePipeline, poll_until

_SCHEMA = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);"


@contextlib.contextmanager
def promoted_copy(server: PostgresServer, folder: Path, port: int) -> Iterator[None]:
    """A base backup of the server as it is now, run as a standby on another port and promoted."""
    with server.connect() as connection:
        connection.execute("SELECT pg_backup_start('copy', true)")
        shutil.copytree(
            server.data, folder, ignore=shutil.ignore_patterns("postmaster.pid", "postmaster.opts", "pg_stat_tmp")
        )
        row = connection.execute("SELECT labelfile FROM pg_backup_stop(false)").fetchone()
        assert row is not None
        shutil.copytree(server.data / "pg_wal", folder / "pg_wal", dirs_exist_ok=True)
    (folder / "backup_label").write_text(row[0])
    (folder / "standby.signal").touch()
    for path in (folder, *folder.rglob("*")):
        server.account.own(path)
    folder.chmod(0o700)
    with subprocess.Popen(
        [server.programs().bin / "postgres", "-D", folder, "-c", f"port={port}"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **server.account.identity,
    ) as process:
        try:
            dsn = make_conninfo(server.dsn(SUPERUSER, "postgres"), port=port)
            poll_until(lambda: promoted(dsn), "the copy is promoted")
            yield
        finally:
            process.terminate()


def promoted(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
            row = connection.execute("SELECT pg_is_in_recovery() AND NOT pg_promote(true, 30)").fetchone()
    except psycopg.OperationalError:
        return False
    return row == (False,)


def test_a_source_promoted_short_of_the_log_halts_the_producer(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(_SCHEMA)
    run_a_while(pipeline)
    server = pipeline.lab.home.postgres
    folder, port = server.folder / "promoted-copy", free_port(set())
    try:
        # The copy is taken here; what follows at home gets into the stream, and never into the copy.
        with promoted_copy(server, folder, port):
            commit(pipeline, 6, 3)
            roles = pipeline.start_all()
            pipeline.wait_level()
            for role in roles.values():
                pipeline.stop(role)
            config = pipeline.config("producer")
            config.write_text(config.read_text().replace(f"port={server.port}", f"port={port}"))
            producer = pipeline.start("producer")
            assert producer.exit_code() == 9, producer.tail()
            assert "; the stream already has changes up to" in producer.tail()
            assert "do not discard it" in producer.tail()
            with psycopg.connect(
                make_conninfo(server.dsn(databases.ADMIN, pipeline.names["home"]), port=port)
            ) as copy:
                found = copy.execute("SELECT count(*) FROM public.deed").fetchone()
            assert found == (5,)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
