"""``python -m benchmarks.idle``: what many streams cost while nothing happens, and whether busy ones share fairly.

One producer, one bridge and one consumer carry all streams. *Idle:* only heartbeats travel; the CPU time of each process
is measured over a minute, its memory at the end. *Busy:* a backlog of the same size waits in each of some streams; all
are let go at once, and for each the time is taken at which its replica is level.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, LiteralString

import click
import psycopg
from psycopg import sql
from rich.console import Console

from benchmarks.fleet import Fleet
from benchmarks.machine import peak_rss_mb, rss_mb, share_mb
from benchmarks.results import give_up, tell
from deploy.demo.provisioning import provision
from deploy.lab.databases import ADMIN
from deploy.lab.lab import Lab
from deploy.lab.postgres_server import PostgresServer
from embassy.model.errors import EmbassyError, TransientError

_PROJECT = Path(__file__).parents[1]
_SCHEMA = "CREATE TABLE public.entry (id bigint PRIMARY KEY, text text NOT NULL);\n"
_READY_SECONDS = 600.0
_LEVEL_SECONDS = 900.0
_SAMPLE_SECONDS = 0.2
_SETTLE_SECONDS = 20.0
"""After which what only a start costs is over, and hearts are slow."""
_SCHEMA_VERSION = "embassy.bench-idle/1"


@contextmanager
def _lab(streams: int, home: Path, said: Console) -> Iterator[Lab]:
    """A lab of so many registries, whose servers let so many sessions in."""
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as folder:
        Path(folder, "entry.sql").write_text(_SCHEMA)
        Path(folder).chmod(0o755)
        tables = [
            f'[registries.register_{i:03}]\ntitle = "Register {i}"\nschema = "entry.sql"\n' for i in range(streams)
        ]
        registries = Path(folder, "registries.toml")
        registries.write_text("\n".join(tables))
        lab = Lab.up(
            home,
            registries=registries,
            embassies=1,
            announce=lambda subject, stage: said.log(f"{subject}: {stage}"),
        )
    try:
        for server in (lab.home.postgres, lab.site(lab.embassies[0]).postgres):
            _widen(server, streams)
        yield lab
    finally:
        lab.down(keep_data=False)


def _widen(server: PostgresServer, streams: int) -> None:
    wanted = {
        "max_replication_slots": streams + 10,
        "max_wal_senders": streams + 10,
        "max_connections": 4 * streams + 50,
        "autovacuum": "off",
    }
    with server.connect(ADMIN) as connection:
        for name, value in wanted.items():
            connection.execute(
                sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(str(value)))
            )
    server.stop()
    server.start()


def _idle(fleet: Fleet, seconds: float) -> dict[str, Any]:
    before, begun = fleet.cpu(), time.monotonic()
    time.sleep(seconds)
    lasted, after = time.monotonic() - begun, fleet.cpu()
    return {
        "seconds": round(lasted, 1),
        "cpu_percent": {name: round(100 * (after[name] - before[name]) / lasted, 2) for name in after},
        "rss_mb": {stage: round(rss_mb(popen.pid)) for stage, (_, popen) in fleet.running.items()},
        "share_mb": {stage: round(share_mb(popen.pid)) for stage, (_, popen) in fleet.running.items()},
        "peak_rss_mb": {stage: round(peak_rss_mb(popen.pid)) for stage, (_, popen) in fleet.running.items()},
    }


def _write_backlogs(home: PostgresServer, names: list[str], transactions: int) -> None:
    """Side by side: a server has one log, and what is last in it is decoded last, however fair everything is."""
    block = sql.SQL(
        "DO $$BEGIN FOR i IN 1..{} LOOP INSERT INTO public.entry VALUES (i, md5(i::text)); COMMIT; END LOOP; END$$"
    ).format(sql.Literal(transactions))

    def write(name: str) -> None:
        with home.connect(ADMIN, name) as connection:
            connection.execute(block)

    with ThreadPoolExecutor(len(names)) as writers:
        list(writers.map(write, names))


def _one(session: psycopg.Connection[Any], query: LiteralString) -> int:
    row = session.execute(query).fetchone()
    assert row is not None, "an aggregate has one row"
    return int(row[0])


def _busy(lab: Lab, fleet: Fleet, names: list[str], transactions: int) -> dict[str, Any]:
    """All at once, from a backlog; the roles do not run when this is called, and run when it returns."""
    _write_backlogs(lab.home.postgres, names, transactions)
    abroad = lab.site(lab.embassies[0]).postgres
    begun = time.monotonic()
    fleet.start()
    counts: dict[str, int] = dict.fromkeys(names, 0)
    level: dict[str, float] = {}
    when_all_moved: dict[str, int] = {}
    at_first: dict[str, int] = {}
    with ExitStack() as stack:
        sessions = {name: stack.enter_context(abroad.connect(ADMIN, name)) for name in names}
        while len(level) < len(names):
            for name in names:
                if name not in level:
                    # of rows with numbers in the order of their commits: counting them all would take a share itself
                    counts[name] = _one(sessions[name], "SELECT coalesce(max(id), 0) FROM public.entry")
            if not when_all_moved and all(counts.values()):
                when_all_moved = dict(counts)
            for name in names:
                if name not in level and counts[name] >= transactions:
                    level[name] = time.monotonic() - begun
                    at_first = at_first or dict(counts)
            if time.monotonic() - begun > _LEVEL_SECONDS:
                raise TransientError(f"only {len(level)} of {len(names)} streams became level")
            time.sleep(_SAMPLE_SECONDS)
        for name, session in sessions.items():
            if (rows := _one(session, "SELECT count(*) FROM public.entry")) != transactions:
                raise TransientError(f"{name} is level with {rows} rows instead of {transactions}")
    shares = [at_first[name] / transactions for name in names]
    together = [at_first[name] - when_all_moved.get(name, at_first[name]) for name in names]
    return {
        "transactions_each": transactions,
        "level_seconds": {name: round(seconds, 1) for name, seconds in level.items()},
        "last_to_first": round(max(level.values()) / min(level.values()), 2),
        "done_when_the_first_was": round(min(shares), 2),
        "jain_index": _jain(shares),
        "jain_index_while_all_moved": _jain(together) if any(together) else None,
    }


def _jain(shares: Sequence[float]) -> float:
    """How equal shares are: 1 if they are, 1/n if one has all (Jain, Chiu and Hawe, 1984)."""
    return round(sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)), 3)


@click.command()
@click.option("--streams", type=click.IntRange(1), default=100, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(5), default=60.0, show_default=True, help="How long idleness is measured."
)
@click.option(
    "--busy", type=click.IntRange(0), default=10, show_default=True, help="Streams with a backlog; 0: none."
)
@click.option("--transactions", type=click.IntRange(1), default=20_000, show_default=True, help="In each backlog.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Where results go.")
def main(*, streams: int, seconds: float, busy: int, transactions: int, json_file: Path | None) -> None:
    """Measure many idle streams, and some busy ones, in one producer, one bridge and one consumer."""
    said = Console(stderr=True, log_path=False, highlight=False)
    home = Path(os.environ.get("EMBASSY_LAB_HOME") or _PROJECT / ".lab" / "bench-idle")
    found: dict[str, Any] = {"schema": _SCHEMA_VERSION, "streams": streams}
    try:
        with _lab(streams, home, said) as lab:
            said.log("provisioning")
            provision(lab)
            fleet = Fleet(lab, ready_seconds=_READY_SECONDS)
            try:
                said.log("starting the roles")
                found["ready_seconds"] = round(fleet.start(), 1)
                time.sleep(_SETTLE_SECONDS)
                said.log(f"{streams} idle streams for {seconds:g} s")
                found["idle"] = _idle(fleet, seconds)
                if busy:
                    fleet.stop()
                    said.log(f"{busy} streams, {transactions} transactions each")
                    found["busy"] = _busy(lab, fleet, sorted(lab.registries)[:busy], transactions)
            finally:
                fleet.stop()
    except EmbassyError as error:
        give_up(said, error)
    tell(found, json_file)


if __name__ == "__main__":
    main()
