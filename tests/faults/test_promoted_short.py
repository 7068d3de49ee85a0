"""A source that lacks what the stream already has, a standby promoted short of it for one, would skip: it is refused."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from deploy.lab import databases
from deploy.lab.ports import free_port
from deploy.lab.postgres_server import SUPERUSER, PostgresServer
from tests.faults.test_attacks import commit
from tests.faults.test_continuity import assert_producer_halts, run_a_while
from tests.harness.pipeline import MakePipeline, poll_until

_SCHEMA = "CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);"


def copy_of(server: PostgresServer, folder: Path) -> None:
    """A base backup of the server as it is now."""
    with server.connect() as connection:
        connection.execute("SELECT pg_backup_start('copy', true)")
        shutil.copytree(
            server.data, folder, ignore=shutil.ignore_patterns("postmaster.pid", "postmaster.opts", "pg_stat_tmp")
        )
        row = connection.execute("SELECT labelfile FROM pg_backup_stop(false)").fetchone()
        assert row is not None
        shutil.copytree(server.data / "pg_wal", folder / "pg_wal", dirs_exist_ok=True)
    (folder / "backup_label").write_text(row[0])


@contextlib.contextmanager
def running(server: PostgresServer, folder: Path, port: int) -> Iterator[str]:
    """A copy of a server, run on another port; its superuser's connection string."""
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
            yield make_conninfo(server.dsn(SUPERUSER, "postgres"), port=port)
        finally:
            process.send_signal(signal.SIGINT)


def promoted(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
            row = connection.execute("SELECT pg_is_in_recovery() AND NOT pg_promote(true, 30)").fetchone()
    except psycopg.OperationalError:
        return False
    return row == (False,)


def answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def grown_past(dsn: str, lsn: str) -> bool:
    """Whether the log of a server reaches a position; it grows by asking."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        connection.execute("SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'test', 'grows')")
        return connection.execute("SELECT pg_current_wal_flush_lsn() > %s::pg_lsn", (lsn,)).fetchone() == (True,)


def test_a_source_that_is_promoted_short_of_the_log_or_restored_halts_the_producer(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(_SCHEMA)
    run_a_while(pipeline)
    server = pipeline.lab.home.postgres
    standby, restored = server.folder / "promoted-copy", server.folder / "restored-copy"
    config = pipeline.config("producer")
    original = config.read_text()
    try:
        # The copies are taken here; what follows at home gets into the stream, and never into them.
        copy_of(server, standby)
        shutil.copytree(standby, restored)
        (standby / "standby.signal").touch()
        with server.connect() as connection:
            connection.execute("SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'test', 'far ahead')")
        commit(pipeline, 6, 3)
        roles = pipeline.start_all()
        pipeline.wait_level()
        for role in roles.values():
            pipeline.stop(role)
        with pipeline.source(databases.ADMIN) as connection:
            (end,) = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone() or ("",)

        port = free_port(set())
        config.write_text(original.replace(f"port={server.port}", f"port={port}"))
        with running(server, standby, port) as dsn:
            poll_until(lambda: promoted(dsn), "the copy is promoted")
            assert_producer_halts(pipeline, "; the stream already has changes up to", "do not discard it")
            with psycopg.connect(
                make_conninfo(server.dsn(databases.ADMIN, pipeline.names["home"]), port=port)
            ) as copy:
                found = copy.execute("SELECT count(*) FROM public.deed").fetchone()
            assert found == (5,)

        port = free_port(set())
        config.write_text(original.replace(f"port={server.port}", f"port={port}"))
        with running(server, restored, port) as dsn:
            poll_until(lambda: answers(dsn), "the copy is up")
            assert_producer_halts(pipeline, "restored from an older state", "before the stream's end")
            poll_until(lambda: grown_past(dsn, end), "its log is longer than the stream's")
            assert_producer_halts(pipeline, "was restored from an older state: at", "not a continuation")
            # Had nobody started a producer before the log had grown:
            with psycopg.connect(
                make_conninfo(server.dsn(SUPERUSER, pipeline.names["home"]), port=port), autocommit=True
            ) as copy:
                copy.execute("DELETE FROM embassy.restored")
                commit(pipeline, 9, 1)
            assert_producer_halts(
                pipeline, "does not know the stream's newest data key", "the last one that it knows"
            )
    finally:
        shutil.rmtree(standby, ignore_errors=True)
        shutil.rmtree(restored, ignore_errors=True)
