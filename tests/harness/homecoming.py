"""Promotions there and back on one pipeline: the commands of both sites' operators, in this process or one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from deploy.lab import databases, role_configs
from deploy.lab.roles import program
from deploy.workload.comparison import compare_tables
from embassy.cli import main
from embassy.runtime.failpoints import ENVIRONMENT
from tests.harness.large_objects import objects
from tests.harness.pipeline import Connection, Pipeline, poll_until

EMBASSY, HOME = "embassy-admin", "home-replica-admin"
"""The configurations of those who promote the embassy's and home's database."""
_SOURCES = {EMBASSY: "home-admin", HOME: "embassy-source-admin"}


@dataclass
class Homecoming:
    """What operators do with one pipeline."""

    pipeline: Pipeline
    plans: list[Path] = field(default_factory=list)

    def command(self, config: str, *arguments: str, code: int = 0, failpoint: str = "") -> str:
        """Run ``embassy``, and fail unless it ends with the code; returns all that it said."""
        path = str(self.pipeline.config(config))
        if failpoint:
            done = subprocess.run(
                [*program(), "-c", path, *arguments],
                check=False,
                capture_output=True,
                text=True,
                timeout=120,
                env={**os.environ, ENVIRONMENT: failpoint},
            )
            ended, said = done.returncode, done.stdout + done.stderr
        else:  # starting a process takes longer than what it does
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                ended = int(main.run(["-c", path, *arguments]))
            said = out.getvalue()
        assert ended == code, said
        return said

    def plan(self, config: str, *terms: str) -> Path:
        """A plan that both operators have approved."""
        path = self.pipeline.folder / f"plan-{len(self.plans)}.json"
        self.plans.append(path)
        self.command(config, "promote", "plan", *terms, "-o", str(path))
        for person in role_configs.OPERATORS:
            key = role_configs.operator(self.pipeline.lab.layout, person)
            self.command(config, "promote", "approve", str(path), "--key", str(key), "--yes")
        return path

    def run_plan(self, config: str, plan: Path, *, code: int = 0, failpoint: str = "") -> Path:
        """Run a plan; returns where its report is."""
        self.command(
            config, "promote", "run", str(plan), "--confirm", self.pipeline.name, code=code, failpoint=failpoint
        )
        return plan.with_suffix(".report.json")

    def switch_over(self, to: str, *, killed_at: Iterable[str] = ()) -> Path:
        """Fence the source, and promote the replica; returns the report.

        Args:
            to: which side is promoted.
            killed_at: failpoints at which the fencing and the promotion are killed, each once, and run again.
        """
        plan = self.plan(to, "--mode", "switchover")
        fence = (_SOURCES[to], "home", "fence", str(plan), "--reason", "a test")
        windows = tuple(killed_at)
        for window in (window for window in windows if window.startswith("home.")):
            self.command(*fence, code=-9, failpoint=window)
        self.command(*fence)
        assert self.writable() == []
        for window in (window for window in windows if window.startswith("promotion.")):
            self.run_plan(to, plan, code=-9, failpoint=window)
            assert len(self.writable()) < 2, window
        return self.run_plan(to, plan)

    def promote_disaster(self) -> Path:
        """Promote the embassy without asking home; returns the report."""
        return self.run_plan(EMBASSY, self.plan(EMBASSY, "--mode", "disaster", "--accept-loss", "3600"))

    def come_home(
        self, report: Path, *options: str, code: int = 0, failpoint: str = "", config: str = HOME
    ) -> str:
        """Make the superseded database a replica."""
        return self.command(
            config,
            *("failback", "run", str(report), "--reason", "a test", *options),
            code=code,
            failpoint=failpoint,
        )

    def home_enrols_again(self) -> None:
        """The enrolment of home's next epoch takes the place of the first one's."""
        pipeline = self.pipeline
        after = role_configs.next_enrolment(pipeline.lab.layout, pipeline.stream)
        role_configs.enrolment(pipeline.lab.layout, pipeline.stream).write_text(after.read_text())

    def report(self, path: Path) -> dict[str, Any]:
        """What a report says of the stream."""
        said = self.command(EMBASSY, "promote", "report", str(path), "--json")
        (stream,) = json.loads(said)["streams"]
        return dict(stream)

    def abroad(self, role: str = databases.OWNER) -> Connection:
        """Connect to the embassy's database."""
        return self.pipeline.replica(role)

    def writable(self) -> list[str]:
        """The sites at which an administrator can write to the registry."""
        found = []
        for site, connect in (("home", self.pipeline.source), ("embassy", self.pipeline.replica)):
            with connect(databases.ADMIN) as connection:
                connection.execute("SET default_transaction_read_only = off")
                try:
                    connection.execute("DELETE FROM public.sentinel WHERE false")
                except psycopg.errors.ReadOnlySqlTransaction:
                    continue
                found.append(site)
        return found

    def await_equal_objects(self) -> None:
        """Wait until both sides have the same large objects."""

        def equal() -> bool:
            with self.pipeline.source(databases.ADMIN) as home, self.abroad(databases.ADMIN) as embassy:
                return objects(home) == objects(embassy)

        poll_until(equal, "both sides have the same large objects")

    def await_equal(self, seconds: float = 60) -> None:
        """Wait until every table of both sides has the same rows."""

        def equal() -> bool:
            tables = compare_tables(
                self.pipeline.source_dsn_all,
                self.pipeline.lab.site(self.pipeline.embassy).postgres.dsn(
                    databases.ADMIN, self.pipeline.names[self.pipeline.embassy]
                ),
            )
            return all(table.equal for table in tables)

        try:
            poll_until(equal, "both sides have the same rows", seconds)
        except BaseException:
            for role in self.pipeline.running:
                print(f"--- {role.stage} {role.popen.poll()}\n{role.tail()}")  # noqa: T201 - for the failure's message
            raise
