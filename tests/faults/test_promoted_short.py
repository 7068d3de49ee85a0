"""A source that lacks what the stream already has, a standby promoted short of it for one, would skip: it is refused."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from deploy.lab import databases
from deploy.lab.ports import free_port
from deploy.lab.postgres_server import SUPERUSER, PostgresServer
from tests.faults.test_attacks import commit
from tests.faults.test_continuity import assert_producer_halts
from tests.harness.pipeline import MakePipeline, Pipeline, poll_until
from tests.harness.relay import relay

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


def log_end(server: PostgresServer) -> str:
    with server.connect() as connection:
        (end,) = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone() or ("",)
    return str(end)


def beat_is_captured(pipeline: Pipeline, since: datetime) -> bool:
    """Whether the producer has read a beat that is later than a moment."""
    with pipeline.source(databases.ADMIN) as connection:
        beat = connection.execute("SELECT captured_at > %s FROM embassy.heartbeat", (since,)).fetchone()
    return beat == (True,)


@dataclass
class Copies:
    """Of home's server as it was a while ago, and a stream that went on since."""

    pipeline: Pipeline
    server: PostgresServer
    standby: Path
    restored: Path
    port: int

    def meet(self, port: int) -> None:
        """Let the producer's configuration lead to another port than home's server has."""
        config = self.pipeline.config("producer")
        dsn_port = next(word for word in config.read_text().split() if word.startswith("port="))
        config.write_text(config.read_text().replace(dsn_port, f"port={port}"))

    def execute(self, statement: LiteralString, role: str = SUPERUSER) -> list[tuple[Any, ...]]:
        """In the copy's registry."""
        dsn = make_conninfo(self.server.dsn(role, self.pipeline.names["home"]), port=self.port)
        with psycopg.connect(dsn, autocommit=True) as copy:
            cursor = copy.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def lost_with_storage(self) -> None:
        """A failover of storage loses a moment, under a data key that the copy knows; applications are back first."""
        with relay("127.0.0.1", self.server.port) as line:
            self.meet(line.port)
            roles = self.pipeline.start_all()
            commit(self.pipeline, 1, 5)
            self.pipeline.wait_level()
            # The copies are taken here; what follows at home gets into the stream, and never into them.
            copy_of(self.server, self.restored)
            shutil.copytree(self.restored, self.standby)
            (self.standby / "standby.signal").touch()
            copied_at = datetime.now(UTC)
            commit(self.pipeline, 6, 1)
            poll_until(lambda: beat_is_captured(self.pipeline, copied_at), "a beat is in the stream")
            self.pipeline.wait_level()
            end = log_end(self.server)
            with running(self.server, self.restored, self.port) as dsn:
                poll_until(lambda: answers(dsn), "the copy is up")
                poll_until(lambda: grown_past(dsn, end), "its log is longer than the stream's")
                line.lead_to("127.0.0.1", self.port)
                line.cut()
                assert roles["producer"].exit_code() == 9, roles["producer"].tail()
                assert "has forgotten a heartbeat that the stream has" in roles["producer"].tail()
                self.meet(self.port)
                assert_producer_halts(self.pipeline, "it lacked beats of the stream", "not a continuation")
                self.execute("DELETE FROM embassy.restored")

    def go_on(self) -> None:
        """At home, far ahead, under another data key."""
        with self.server.connect() as connection:
            for _ in range(4):
                connection.execute("SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'test', 'ahead')")
        commit(self.pipeline, 7, 2)
        self.meet(self.server.port)
        self.pipeline.start("producer")
        self.pipeline.wait_level()
        for role in self.pipeline.running:
            if self.pipeline.alive(role):
                self.pipeline.stop(role)

    def promoted_short(self) -> None:
        """The standby never got what the stream has."""
        self.meet(self.port)
        with running(self.server, self.standby, self.port) as dsn:
            poll_until(lambda: promoted(dsn), "the copy is promoted")
            assert_producer_halts(self.pipeline, "; the stream already has changes up to", "do not discard it")
            assert self.execute("SELECT count(*) FROM public.deed", databases.ADMIN) == [(5,)]

    def restored_on_its_timeline(self) -> None:
        """Found out before its log has grown past the stream's end, and after."""
        self.meet(self.port)
        end = log_end(self.server)
        with running(self.server, self.restored, self.port) as dsn:
            poll_until(lambda: answers(dsn), "the copy is up")
            assert_producer_halts(self.pipeline, "restored from an older state", "before the stream's end")
            poll_until(lambda: grown_past(dsn, end), "its log is longer than the stream's")
            assert_producer_halts(self.pipeline, "was restored from an older state: at", "its log ended at")
            self.execute("DELETE FROM embassy.restored")  # had nobody started a producer before
            assert_producer_halts(
                self.pipeline, "does not know the stream's newest data key", "the last one that it knows is"
            )


def test_a_source_that_is_promoted_short_of_the_log_or_restored_halts_the_producer(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(_SCHEMA)
    server = pipeline.lab.home.postgres
    standby, restored = server.folder / "promoted-copy", server.folder / "restored-copy"
    copies = Copies(pipeline, server, standby, restored, free_port(set()))
    try:
        copies.lost_with_storage()
        copies.go_on()
        copies.promoted_short()
        copies.restored_on_its_timeline()
    finally:
        shutil.rmtree(standby, ignore_errors=True)
        shutil.rmtree(restored, ignore_errors=True)
