"""``python -m benchmarks.pgbench``: pgbench's built-in scripts on a replicated database, and everything else at once.

The tables are filled before the stream begins, so they are copied while pgbench runs. Meanwhile columns, indexes and
tables come and go, the largest table is asked for once more, and every role is killed (kill -9), several times. At the
end every row and the schema of both sides are equal, and as many transactions are there as pgbench was told.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import click
from rich.console import Console

from benchmarks.fleet import Fleet
from benchmarks.results import give_up, tell
from benchmarks.schema_lines import schema_differences
from benchmarks.stand import client_parameters, stand
from deploy.demo.provisioning import provision
from deploy.demo.role_log import last_failure
from deploy.lab.databases import ADMIN
from deploy.lab.lab import Lab
from deploy.lab.waiting import Announce
from deploy.workload.comparison import compare_tables
from embassy.model.errors import ConfigurationError, EmbassyError, IntegrityError, TransientError
from embassy.pg import table_copies
from embassy.pg.dump_client import find_client

_SCHEMA_VERSION = "embassy.bench-pgbench/1"
_BANK = "bench"
_SCRIPTS = ("tpcb-like", "simple-update", "select-only")
_WRITING = 2
"""So many of the scripts, the first ones, add a row to pgbench_history."""
_LEVEL_SECONDS = 3600.0
_POLL_SECONDS = 0.2
_TOLD = re.compile(r"^ - (\d+) transactions", re.MULTILINE)
_FAILED = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)

_DDL: tuple[LiteralString, ...] = (
    """ALTER TABLE pgbench_accounts ADD COLUMN opened timestamptz;
       ALTER TABLE pgbench_tellers ADD COLUMN note text DEFAULT 'n'""",
    "CREATE INDEX pgbench_accounts_bid ON pgbench_accounts (bid)",
    "CREATE TABLE pgbench_busiest AS SELECT aid, count(*) AS times FROM pgbench_history GROUP BY aid",
    """CREATE TABLE pgbench_review (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, aid integer, words text);
       INSERT INTO pgbench_review (aid, words) SELECT i, repeat('word ', 500) FROM generate_series(1, 500) i""",
    "ALTER TABLE pgbench_tellers ALTER COLUMN note TYPE varchar(20) USING note || tid; DROP TABLE pgbench_busiest",
)
_Deed = tuple[float, str, Callable[[], None]]
"""When, as a share of the run; what; how."""


class BankRun:
    """One run of pgbench and of what happens beside it."""

    def __init__(self, lab: Lab, fleet: Fleet, announce: Announce) -> None:
        self._lab = lab
        self._fleet = fleet
        self._announce = announce
        self._home, self._abroad = lab.home.postgres, lab.site(lab.embassies[0]).postgres
        with self._home.connect(ADMIN) as connection:
            self._program = find_client(connection.info.server_version).program.with_name("pgbench")
        if not self._program.is_file():
            raise ConfigurationError("there is no pgbench beside pg_dump", place=str(self._program.parent))

    def fill(self, scale: int) -> None:
        """Make pgbench's tables, with their keys.

        Raises:
            ConfigurationError: pgbench failed.
        """
        self._pgbench("-i", "-q", "-s", str(scale)).check()

    def run(self, seconds: int, clients: int, rate: float) -> dict[str, Any]:
        """Run everything; returns what pgbench was told.

        Raises:
            ConfigurationError: pgbench failed.
            TransientError: a role ended by itself.
        """
        limit = ["-R", f"{rate:g}"] if rate else []
        scripts = [part for script in _SCRIPTS for part in ("-b", script)]
        running = self._pgbench("-n", "-T", str(seconds), "-c", str(clients), "-j", "2", *limit, *scripts)
        begun = time.monotonic()
        for share, what, deed in sorted(self._deeds(), key=lambda deed: deed[0]):
            while time.monotonic() < begun + share * seconds and running.popen.poll() is None:
                self._fleet.check()
                time.sleep(_POLL_SECONDS)
            self._announce(f"{time.monotonic() - begun:.0f} s", " ".join(what.split()))
            deed()
        said = running.check()
        told = [int(number) for number in _TOLD.findall(said)]
        failed = _FAILED.search(said)
        if len(told) != len(_SCRIPTS) or failed is None:
            raise ConfigurationError(f"pgbench said something else: {said[-500:]}", place=str(self._program))
        return {
            "transactions": dict(zip(_SCRIPTS, told, strict=True)),
            "failed": int(failed[1]),
            "history": sum(told[:_WRITING]),
        }

    def judge(self, told: dict[str, Any]) -> dict[str, Any]:
        """Wait until both sides are level, and compare them.

        Raises:
            TransientError: they do not become level.
            IntegrityError: they differ, or do not hold what pgbench was told.
        """
        begun = time.monotonic()
        self._await_level()
        behind = time.monotonic() - begun
        self._announce("level", "comparing every row, and the schemas")
        source, replica = self._home.dsn(ADMIN, _BANK), self._abroad.dsn(ADMIN, _BANK)
        compared = compare_tables(source, replica)
        unequal = [table for table in compared if not table.equal]
        lines = schema_differences(source, replica)
        if unequal or lines:
            raise IntegrityError(f"the sides differ: {unequal[:1] or lines[:5]}", place=_BANK)
        with self._abroad.connect(ADMIN, _BANK) as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM pgbench_history), (SELECT sum(delta) FROM pgbench_history),"
                " (SELECT sum(abalance) FROM pgbench_accounts)"
            ).fetchone()
        history, moved, held = row or (0, 0, 0)
        if history != told["history"] or moved != held:
            raise IntegrityError(
                f"the replica has {history} of {told['history']} transactions; {moved} were moved, and it holds {held}",
                place=_BANK,
            )
        return {
            "level_seconds": round(behind, 1),
            "tables_equal": {table.table: table.source_rows for table in compared},
        }

    def _deeds(self) -> list[_Deed]:
        deeds: list[_Deed] = [
            (0.1 + 0.18 * i, f"DDL: {statement}", partial(self._execute, statement))
            for i, statement in enumerate(_DDL)
        ]
        deeds.append((0.35, "resync of pgbench_accounts", self._resync))
        shares = [0.05 + 0.1 * i for i in range(9)]
        stages = [role.stage for role in self._fleet.roles]
        deeds += [
            (share, f"kill -9 of the {stages[i % len(stages)]}", partial(self._kill, stages[i % len(stages)]))
            for i, share in enumerate(shares)
        ]
        return deeds

    def _execute(self, statement: LiteralString) -> None:
        with self._home.connect(ADMIN, _BANK) as connection, connection.transaction():
            connection.execute(statement)

    def _resync(self) -> None:
        with self._home.connect(ADMIN, _BANK) as connection:
            table_copies.request(connection, "public", "pgbench_accounts", reason="benchmark")

    def _kill(self, stage: str) -> None:
        self._fleet.kill(stage)
        self._fleet.spawn()

    def _await_level(self) -> None:
        """Until all copies are done, and a mark that was made after them is there."""
        end = time.monotonic() + _LEVEL_SECONDS
        with self._home.connect(ADMIN, _BANK) as source, self._abroad.connect(ADMIN, _BANK) as replica:
            while source.execute("SELECT 1 FROM embassy.table_copy WHERE state <> 'done' LIMIT 1").fetchone():
                self._look(end)
            source.execute("CREATE TABLE pgbench_level AS SELECT 1 AS mark")
            while replica.execute("SELECT to_regclass('pgbench_level')").fetchone() == (None,):
                self._look(end)

    def _look(self, end: float) -> None:
        self._fleet.check()
        if time.monotonic() > end:
            words = "; ".join(last_failure(role.log) for role in self._fleet.roles)
            raise TransientError(f"the replica does not become level: {words}", place=_BANK)
        time.sleep(_POLL_SECONDS)

    def _pgbench(self, *arguments: str) -> _Program:
        return _Program([str(self._program), *arguments], client_parameters(self._home, _BANK))


class _Program:
    """A client program that runs."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._command = command
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )

    def check(self) -> str:
        """Wait for its end; returns what it said.

        Raises:
            ConfigurationError: it failed.
        """
        said, _ = self.popen.communicate()
        if self.popen.returncode:
            raise ConfigurationError(f"pgbench failed: {said[-500:]}", place=self._command[0])
        return said


@click.command()
@click.option(
    "--scale", type=click.IntRange(1), default=5, show_default=True, help="pgbench's; 100,000 accounts each."
)
@click.option("--minutes", type=click.FloatRange(0.2), default=1.0, show_default=True)
@click.option("--clients", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--rate", type=click.FloatRange(0), default=0.0, help="Transactions a second; 0: as many as there can be."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Where results go.")
@click.option("--keep", is_flag=True, help="Keep the lab's folder.")
def main(*, scale: int, minutes: float, clients: int, rate: float, json_file: Path | None, keep: bool) -> None:
    """Run pgbench at home, with DDL, a resync and kill -9 beside it; compare; exit 9 if anything differs."""
    said = Console(stderr=True, log_path=False, highlight=False, markup=False)

    def announce(subject: str, stage: str) -> None:
        said.log(f"{subject}: {stage}")

    try:
        with stand(announce, keep=keep, registries="pgbench.toml") as lab:
            fleet = Fleet(lab)
            run = BankRun(lab, fleet, announce)
            announce(_BANK, f"filling, scale {scale}")
            run.fill(scale)
            provision(lab)
            try:
                fleet.start()
                told = run.run(int(minutes * 60), clients, rate)
                announce("pgbench", f"was told of {told}")
                judged = run.judge(told)
            finally:
                fleet.stop()
    except EmbassyError as error:
        give_up(said, error)
    tell({"schema": _SCHEMA_VERSION, "scale": scale, "minutes": minutes, **told, **judged}, json_file)


if __name__ == "__main__":
    main()
