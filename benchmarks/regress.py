"""``python -m benchmarks.regress --scripts DIR``: PostgreSQL's regression scripts against a replicated source.

DIR is ``src/test/regress`` of PostgreSQL's sources, or a folder like it: ``sql/``, ``data/``, ``parallel_schedule``. psql
runs the scripts, one after another, in one database, while all three roles run; after each the stream must come level,
and now and then every row and the whole schema of both sides are compared. Roles that scripts make are made abroad
too, as operators would.

Where the stream halts at a statement it is passed over by hand, as docs/ddl.md says, and listed. Where it halts for
anything else, that is listed, and the rest goes on in a copy of the database, with a stream of its own, whose replica is
provisioned from what is there then.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psycopg
from psycopg import sql
from rich.console import Console

from benchmarks.fleet import Fleet
from benchmarks.results import tell
from benchmarks.schema_lines import schema_differences
from benchmarks.stand import client_parameters, stand
from deploy.demo.provisioning import provision
from deploy.demo.role_log import halts, last_failure
from deploy.lab.databases import ADMIN
from deploy.lab.lab import Lab
from deploy.lab.waiting import Announce
from deploy.workload.comparison import compare_tables
from embassy.model.errors import ConfigurationError, EmbassyError
from embassy.pg.dump_client import find_client
from embassy.runtime.exit_codes import ExitCode, exit_code

_SCHEMA_VERSION = "embassy.bench-regress/1"
_STREAMS_MOST = 12
_SCRIPT_SECONDS = 300.0
_LEVEL_SECONDS = 120.0
_POLL_SECONDS = 0.05
_PASSED_OVER_MOST = 40
_SHOWN = 20
_MARK = "CREATE SCHEMA embassy_mark; CREATE TABLE embassy_mark.mark (number bigint PRIMARY KEY)"
_STATEMENT = re.compile(r"\bDDL (\d+)\b")
_ROLE = re.compile(
    r"^\s*(CREATE\s+(?:ROLE|USER|GROUP)\s+[^;]*|GRANT\s+[\w, ]+\s+TO\s+[^;]*);", re.IGNORECASE | re.MULTILINE
)


@dataclass
class Listing:
    """What the run has found."""

    scripts: int = 0
    streams: int = 1
    halts: list[dict[str, str]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """One object for scripts."""
        return {"schema": _SCHEMA_VERSION, **self.__dict__}


class RegressRun:
    """One run over the scripts of a folder."""

    def __init__(self, lab: Lab, folder: Path, announce: Announce, *, compare_every: int) -> None:
        self._lab = lab
        self._folder = folder
        self._announce = announce
        self._compare_every = compare_every
        self._home, self._abroad = lab.home.postgres, lab.site(lab.embassies[0]).postgres
        self._names = sorted(lab.registries)
        self._name = ""
        self._fleet = Fleet(lab)
        self._mark = 0
        self.found = Listing()
        with self._home.connect(ADMIN) as connection:
            self._psql = find_client(connection.info.server_version).program.with_name("psql")
        if not self._psql.is_file():
            raise ConfigurationError("there is no psql beside pg_dump", place=str(self._psql.parent))

    def run(self, scripts: list[str]) -> None:
        """Run them all, and fill the listing.

        Raises:
            ConfigurationError: there are too many halts, or a script is missing.
        """
        try:
            self._begin()
            since: list[str] = []
            for script in scripts:
                self._script(script)
                since.append(script)
                self.found.scripts += 1
                if not self._comes_level(script):
                    self._begin()
                    since = []
                elif len(since) >= self._compare_every:
                    self._compare(since)
                    since = []
            if since:
                self._compare(since)
        finally:
            self._fleet.stop()

    # ------------------------------------------------------------------ streams

    def _begin(self) -> None:
        """A stream of its own for the database as it is now; its replica is made from it."""
        before, self._name = self._name, self._next_name()
        self._announce(self._name, "provisioning")
        self._fleet.stop()
        database = sql.Identifier(self._name)
        if before:
            with self._home.connect(ADMIN) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(database, sql.Identifier(before))
                )
        with self._source() as source:
            source.execute(sql.SQL("ALTER DATABASE {} SET bytea_output TO hex").format(database))
            source.execute("SET session_replication_role = replica")  # the copied event triggers see nothing
            source.execute("DROP PUBLICATION IF EXISTS embassy; DROP SCHEMA IF EXISTS embassy CASCADE")
            if not before:
                source.execute(_MARK)
        provision(self._lab, "-r", self._name)
        self._fleet = Fleet(self._lab, registry=self._name)
        for role in self._fleet.roles:
            role.log.unlink(missing_ok=True)
        self._fleet.start()

    def _next_name(self) -> str:
        if not self._name:
            return self._names[0]
        self.found.streams += 1
        if self.found.streams > len(self._names):
            raise ConfigurationError(f"the stream halted more than {len(self._names)} times")
        return self._names[self._names.index(self._name) + 1]

    def _source(self) -> psycopg.Connection[Any]:
        return self._home.connect(ADMIN, self._name)

    def _comes_level(self, script: str) -> bool:
        """Wait until the replica shows what is there by now; False if the stream has halted for good."""
        self._mark += 1
        with self._source() as source:
            source.execute("INSERT INTO embassy_mark.mark VALUES (%s)", (self._mark,))
        end = time.monotonic() + _LEVEL_SECONDS
        passed_over = 0
        while not self._shows_mark():
            halt = next((halt for role in self._fleet.roles for halt in halts(role.log) if halt.stream), None)
            if halt is None and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
                continue
            words = (
                halt.words
                if halt
                else f"not level after {_LEVEL_SECONDS:g} s: "
                + "; ".join(last_failure(role.log) for role in self._fleet.roles)
            )
            self.found.halts.append({"script": script, "words": words})
            self._announce(script, words)
            statement = _STATEMENT.search(words)
            passed_over += 1
            if statement is None or passed_over > _PASSED_OVER_MOST:
                return False
            self._pass_over(int(statement[1]), words)
            end = time.monotonic() + _LEVEL_SECONDS
        return True

    def _shows_mark(self) -> bool:
        try:
            with self._abroad.connect(ADMIN, self._name) as replica:
                row = replica.execute("SELECT max(number) FROM embassy_mark.mark").fetchone()
        except psycopg.Error:
            return False
        return row == (self._mark,)

    def _pass_over(self, number: int, words: str) -> None:
        with self._abroad.connect(ADMIN, self._name) as replica:
            replica.execute("INSERT INTO embassy.ddl_by_hand VALUES (%s, %s)", (number, words[:200]))
        role, popen = self._fleet.running.pop("consumer")
        popen.terminate()
        popen.wait()
        role.log.unlink(missing_ok=True)
        self._fleet.start()

    # ------------------------------------------------------------------ scripts

    def _script(self, script: str) -> None:
        file = self._folder / "sql" / f"{script}.sql"
        if not file.is_file():
            raise ConfigurationError("the script does not exist", place=str(file))
        text = file.read_text(encoding="utf-8", errors="replace")
        self._make_roles_abroad(text)
        self._announce(script, "running")
        settings = {
            "PG_ABS_SRCDIR": str(self._folder),
            "PG_ABS_BUILDDIR": str(self._folder),
            "PG_LIBDIR": "/nonexistent",
            "PG_DLSUFFIX": ".so",
            "PGTZ": "America/Los_Angeles",
            "PGDATESTYLE": "Postgres, MDY",
            "PGOPTIONS": "-c intervalstyle=postgres_verbose",
            "PGAPPNAME": "regress",
        }
        with file.open("rb") as script_file:
            try:
                subprocess.run(
                    [self._psql, "-X", "-a", "-q", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"],
                    stdin=script_file,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                    env={**os.environ, **client_parameters(self._home, self._name), **settings},
                    timeout=_SCRIPT_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                self.found.halts.append({"script": script, "words": f"psql did not end in {_SCRIPT_SECONDS:g} s"})
        self._end_prepared()

    def _end_prepared(self) -> None:
        """A transaction that stays prepared would hold its locks against every script to come."""
        with self._source() as source:
            for (name,) in source.execute(
                "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            ).fetchall():
                source.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(name)))

    def _make_roles_abroad(self, text: str) -> None:
        """What a script does to roles, as far as it can be told from its text; what fails there fails at home too."""
        with self._abroad.connect(ADMIN) as connection:
            for statement in _ROLE.findall(text):
                if " ON " not in statement.upper():
                    try:
                        connection.execute(statement.encode())
                    except psycopg.Error:
                        continue

    # ------------------------------------------------------------------ both sides

    def _compare(self, scripts: list[str]) -> None:
        self._announce(self._name, "comparing")
        source, replica = self._home.dsn(ADMIN, self._name), self._abroad.dsn(ADMIN, self._name)
        for table in compare_tables(source, replica):
            if not table.equal:
                what = {
                    "table": table.table,
                    "rows": f"{table.source_rows} and {table.replica_rows}",
                    "note": table.note,
                    "first": [f"{row.side}: {row.row[:200]}" for row in table.first_differences],
                }
                self._differs(scripts, what)
        lines = schema_differences(source, replica)
        if lines:
            self._differs(scripts, {"schema": lines[:_SHOWN], "lines": len(lines)})

    def _differs(self, scripts: list[str], what: dict[str, Any]) -> None:
        known = [{k: v for k, v in found.items() if k != "scripts"} for found in self.found.differences]
        if what not in known:
            self.found.differences.append({"scripts": scripts, **what})
            self._announce(self._name, f"differs: {what}")


def schedule(folder: Path) -> list[str]:
    """The names of a folder's scripts, in the order of its ``parallel_schedule``.

    Raises:
        ConfigurationError: it cannot be read.
    """
    file = folder / "parallel_schedule"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the schedule: {error.strerror}",
            place=str(file),
            hint="--scripts is src/test/regress of PostgreSQL's sources",
        ) from error
    return [name for line in lines if line.startswith("test:") for name in line.removeprefix("test:").split()]


@click.command()
@click.option(
    "--scripts",
    "folder",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    required=True,
    help="src/test/regress of PostgreSQL's sources: sql/, data/ and parallel_schedule.",
)
@click.option("--postgres", help="The servers' version; the scripts' own, if the lab has it.")
@click.option("--only", multiple=True, help="Run these, in the schedule's order; may be repeated.")
@click.option(
    "--compare-every", type=click.IntRange(1), default=25, show_default=True, help="Compare after so many scripts."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Where the listing goes.")
@click.option("--keep", is_flag=True, help="Keep the lab's folder.")
def main(
    *,
    folder: Path,
    postgres: str | None,
    only: tuple[str, ...],
    compare_every: int,
    json_file: Path | None,
    keep: bool,
) -> None:
    """Run regression scripts at home, and list where the replica halts or differs; exit 9 if it does anywhere."""
    said = Console(stderr=True, log_path=False, highlight=False, markup=False)
    listing = Listing()
    try:
        scripts = [name for name in schedule(folder) if not only or name in only]
        with tempfile.TemporaryDirectory(prefix="bench-regress-") as made:
            file = Path(made, "registries.toml")
            file.write_text(
                "".join(f'[registries.r{i:02}]\ntitle = "Regression {i}"\n' for i in range(_STREAMS_MOST))
            )
            Path(made).chmod(0o755)
            with stand(
                lambda subject, stage: said.log(f"{subject}: {stage}"),
                keep=keep,
                registries=file,
                postgres=postgres,
            ) as lab:
                run = RegressRun(
                    lab,
                    folder,
                    lambda subject, stage: said.log(f"{subject}: {stage}"),
                    compare_every=compare_every,
                )
                listing = run.found
                run.run(scripts)
    except EmbassyError as error:
        said.print(f"error: {error}")
        click.echo(json.dumps(listing.as_json(), indent=2))
        sys.exit(exit_code(error))
    tell(listing.as_json(), json_file)
    sys.exit(ExitCode.INTEGRITY if listing.halts or listing.differences else ExitCode.OK)


if __name__ == "__main__":
    main()
