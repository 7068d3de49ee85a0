"""``python -m benchmarks.snapshot``: copying a database, beside ``pg_dump | psql`` and ``copy_data``.

One after the other, on the same servers, into databases that are empty: PostgreSQL's own client programs, a
subscription, and then our copy, whose chunks travel through both clusters, sealed. After that everything is asked for
once more, and all three roles are killed five times on the way: what the source was asked for and the replica was given
more than once is counted by the servers themselves. Both times every row of both sides is compared at the end.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import psycopg
from rich.console import Console

from benchmarks import bulk_copies, filling
from benchmarks.fleet import Fleet
from benchmarks.memory import MemoryWatch
from benchmarks.results import give_up, tell
from benchmarks.stand import stand
from deploy.demo.provisioning import provision
from deploy.lab.databases import ADMIN
from deploy.lab.lab import Lab
from deploy.lab.waiting import Announce
from deploy.workload.comparison import compare_tables
from embassy.model.errors import EmbassyError, IntegrityError, TransientError
from embassy.pg import table_copies
from embassy.runtime.config import ProducerTuning

_SCHEMA_VERSION = "embassy.bench-snapshot/1"
_REGISTRY = "registry"
_LIMIT_SECONDS = 7200.0
_READY_SECONDS = 600.0
"""A producer that was killed reads back what it has sent since its last KEY."""
_POLL_SECONDS = 0.1
_STATISTICS_SECONDS = 2.0
"""A session tells the server of its rows once a second."""

Connection = psycopg.Connection[Any]


class SnapshotRun:
    """Our copy, from its request to a replica that has all."""

    def __init__(self, lab: Lab, fleet: Fleet, announce: Announce) -> None:
        self._lab = lab
        self._fleet = fleet
        self._announce = announce

    def first(self) -> dict[str, Any]:
        """Start the roles, and let them copy into the empty replica: provisioning has asked for it.

        Raises:
            TransientError: it does not end, or a role does.
            IntegrityError: the tables differ.
        """
        with self._source() as source, self._replica() as replica:
            before, begun = self._fleet.cpu(), time.monotonic()
            ready = self._fleet.start()
            pids = {stage: popen.pid for stage, (_, popen) in self._fleet.running.items()}
            with MemoryWatch(pids) as memory:
                self._await(source, replica)
                seconds = time.monotonic() - begun
            spent = {name: round(used - before.get(name, 0), 2) for name, used in self._fleet.cpu().items()}
        self._compare()
        return {
            "seconds": seconds,
            "ready_seconds": round(ready, 1),
            "cpu_seconds": spent,
            "rss_mb_by_quarter": memory.quarters(),
        }

    def killed(self, times: int) -> dict[str, Any]:
        """Copy again, kill -9 all roles so many times meanwhile, and count what was done more than once.

        Raises:
            TransientError, IntegrityError: as for `first`.
        """
        with self._source() as source, self._replica() as replica:
            time.sleep(_STATISTICS_SECONDS)
            read, written = _rows_read(source), _rows_written(replica)
            self._ask(source)
            for number in range(1, times + 1):
                reached = self._await_share(source, number / (times + 1))
                for stage in tuple(self._fleet.running):
                    self._fleet.kill(stage)
                self._announce("killed", f"all roles, with {reached:.0%} noted as copied")
                self._fleet.start()
            self._await(source, replica)
            time.sleep(_STATISTICS_SECONDS)
            copies = _copied(source)
            read = _grown(read, _rows_read(source))
            written = _grown(written, _rows_written(replica))
        self._compare()
        chunk_bytes = ProducerTuning().copy_chunk_bytes
        return {
            "kills": times,
            "redone_chunks_a_kill": {
                table: {
                    "read": round((read[table] - rows) * size / max(rows, 1) / chunk_bytes / times, 2),
                    "written": round((written[table] - rows) * size / max(rows, 1) / chunk_bytes / times, 2),
                }
                for table, (rows, size) in copies.items()
            },
        }

    def _source(self) -> Connection:
        return self._lab.home.postgres.connect(ADMIN, _REGISTRY)

    def _replica(self) -> Connection:
        return self._lab.site(self._lab.embassies[0]).postgres.connect(ADMIN, _REGISTRY)

    def _ask(self, source: Connection) -> None:
        """Ask for every table once more."""
        names = source.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND n.nspname = 'public' ORDER BY 1"
        ).fetchall()
        with source.transaction():
            for (name,) in names:
                table_copies.request(source, "public", name, reason="benchmark")

    def _await(self, source: Connection, replica: Connection) -> None:
        """Until all is done at home, and the replica knows it: the word travels behind the last chunk."""
        end = time.monotonic() + _LIMIT_SECONDS
        query = "SELECT count(*) FROM embassy.table_copy WHERE state <> 'done'"
        wanted = source.execute("SELECT max(copy) FROM embassy.table_copy").fetchone()
        while source.execute(query).fetchone() != (0,):
            self._look(end)
        while (
            replica.execute(query).fetchone() != (0,)
            or replica.execute("SELECT max(copy) FROM embassy.table_copy").fetchone() != wanted
        ):
            self._look(end)

    def _await_share(self, source: Connection, share: float) -> float:
        """Until so much of all bytes is noted as copied; returns how much is."""
        end = time.monotonic() + _LIMIT_SECONDS
        while True:
            row = source.execute(
                "WITH latest AS (SELECT DISTINCT ON (table_name) table_name, bytes_copied FROM embassy.table_copy"
                "  ORDER BY table_name, copy DESC),"
                " before AS (SELECT table_name, max(bytes_copied) AS bytes FROM embassy.table_copy GROUP BY 1)"
                " SELECT sum(latest.bytes_copied)::float8 / sum(before.bytes)::float8"
                " FROM latest JOIN before USING (table_name)"
            ).fetchone()
            reached = float(row[0]) if row else 0.0
            if reached >= share:
                return reached
            self._look(end)

    def _look(self, end: float) -> None:
        self._fleet.check()
        if time.monotonic() > end:
            raise TransientError("the copy does not end", place=str(self._lab.layout.roles))
        time.sleep(_POLL_SECONDS)

    def _compare(self) -> None:
        self._announce("copied", "comparing every row")
        home, abroad = self._lab.home.postgres, self._lab.site(self._lab.embassies[0]).postgres
        compared = compare_tables(home.dsn(ADMIN, _REGISTRY), abroad.dsn(ADMIN, _REGISTRY))
        if unequal := [table for table in compared if not table.equal]:
            raise IntegrityError(f"{len(unequal)} of {len(compared)} tables differ: {unequal[0]}", place=_REGISTRY)


def _copied(source: Connection) -> dict[str, tuple[int, int]]:
    """Rows and bytes of each table's newest copy."""
    rows = source.execute(
        "SELECT DISTINCT ON (table_name) table_name, rows_copied, bytes_copied FROM embassy.table_copy"
        " WHERE reason = 'benchmark' ORDER BY table_name, copy DESC"
    ).fetchall()
    return {name: (copied, size) for name, copied, size in rows if size}


def _rows_read(connection: Connection) -> dict[str, int]:
    return _counted(connection, "SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)")


def _rows_written(connection: Connection) -> dict[str, int]:
    return _counted(connection, "SELECT relname, n_tup_ins")


def _counted(connection: Connection, selected: str) -> dict[str, int]:
    query = f"{selected} FROM pg_stat_user_tables WHERE schemaname = 'public'"
    return dict(connection.execute(query.encode()).fetchall())


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: after[name] - before.get(name, 0) for name in after}


@click.command()
@click.option(
    "--size",
    type=click.IntRange(10),
    default=200,
    show_default=True,
    help="Of the database, in MB, indexes not counted.",
)
@click.option("--kills", type=click.IntRange(0), default=5, show_default=True, help="0: no second copy.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), envvar="BENCH_JSON", help="Where results go."
)
@click.option("--keep", is_flag=True, help="Keep the lab's folder.")
def main(*, size: int, kills: int, json_file: Path | None, keep: bool) -> None:
    """Copy a database in three ways; kill ours on the way; compare; exit 9 if anything differs."""
    said = Console(stderr=True, log_path=False, highlight=False)

    def announce(subject: str, stage: str) -> None:
        said.log(f"{subject}: {stage}")

    try:
        with stand(announce, keep=keep, registries="snapshot.toml") as lab:
            found = _measured(lab, size, kills, announce)
    except EmbassyError as error:
        give_up(said, error)
    tell(found, json_file)


def _measured(lab: Lab, size: int, kills: int, announce: Announce) -> dict[str, Any]:
    announce(_REGISTRY, f"filling with {size} MB")
    with lab.home.postgres.connect(ADMIN, _REGISTRY) as source:
        filling.fill(source, size)
        megabytes = filling.table_megabytes(source)
    fleet = Fleet(lab, ready_seconds=_READY_SECONDS)
    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}
    schema = Path(__file__).with_name("snapshot.sql")
    for name, copy in (
        ("pg_dump | psql", partial(bulk_copies.dump_and_load, lab, _REGISTRY)),
        ("native copy_data", partial(bulk_copies.subscribe, lab, _REGISTRY, schema)),
    ):
        announce(name, "copying")
        before = _cpu_seconds(fleet)
        seconds[name] = copy()
        cpu[name] = _cpu_seconds(fleet) - before
        announce(name, f"{megabytes / seconds[name]:.1f} MB/s, {1000 * cpu[name] / megabytes:.1f} ms of CPU a MB")
    announce("ours", "provisioning")
    provision(lab)
    try:
        run = SnapshotRun(lab, fleet, announce)
        announce("ours", "copying")
        ours = run.first()
        seconds["ours"], cpu["ours"] = ours.pop("seconds"), sum(ours["cpu_seconds"].values())
        announce("ours", f"{megabytes / seconds['ours']:.1f} MB/s; {ours}")
        killed = run.killed(kills) if kills else None
    finally:
        fleet.stop()
    return {
        "schema": _SCHEMA_VERSION,
        "megabytes": round(megabytes),
        "seconds": {name: round(lasted, 1) for name, lasted in seconds.items()},
        "megabytes_a_second": {name: round(megabytes / lasted, 1) for name, lasted in seconds.items()},
        "cpu_ms_a_megabyte": {name: round(1000 * used / megabytes, 1) for name, used in cpu.items()},
        "rate_beside": {name: round(seconds[name] / seconds["ours"], 3) for name in seconds if name != "ours"},
        "ours": ours,
        "killed": killed,
    }


def _cpu_seconds(fleet: Fleet) -> float:
    """Of the servers, and of client programs that have ended."""
    programs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(fleet.cpu().values()) + programs.ru_utime + programs.ru_stime


if __name__ == "__main__":
    main()
