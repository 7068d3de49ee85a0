"""The worst day, rehearsed: load, all of home killed at once, promotion by two persons, business abroad, and home."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import psycopg

from deploy.demo.demonstration import Demonstration, together
from deploy.demo.drill_report import DrillReport, HomeReturn, RegistryDrill, judged
from deploy.demo.registry_run import RegistryRun
from deploy.demo.way_home import Before, WayHome
from deploy.lab import databases, role_configs
from deploy.lab.lab import Lab
from deploy.lab.roles import program
from deploy.lab.site import HOME
from deploy.workload.client import Client, stop_all
from deploy.workload.ledger import Ledger
from embassy.model.errors import RefusedError, TransientError

_ACCEPT_LOSS_SECONDS = 3600
_APPLICATION_NUMBER = 1001
"""Numbers of the application's clients abroad: other ones than at home."""
_BUSINESS_SECONDS = 5.0
_PATIENCE_SECONDS = 30.0
_COMMAND_SECONDS = 300


class PromotionDrill(Demonstration):
    """Runs once; ``close`` must follow, whatever happened."""

    _way_home: WayHome | None = None

    def drill(self) -> DrillReport:
        """Rehearse, and judge by what clients were told.

        Raises:
            RefusedError: a command of the rehearsal was refused; the message has its words.
            TransientError: a server did not start, or the first rows did not travel.
        """
        lab = self._bring_up()
        self._provision(lab)
        self._start_roles(lab)
        if not self._copy():
            raise TransientError("the first rows did not reach the embassy", hint="look at the roles' logs")
        runs = [run for run in self._runs if run.workload.has_transactions]
        self._work(runs)
        self._kill_home(lab)
        folder = lab.layout.promotion
        folder.mkdir(exist_ok=True)
        plan = folder / "plan.json"
        approving = self._plan_and_approve(lab, plan)
        ledgers = {run.name: Ledger() for run in runs}
        clients = [self._application(lab, run, ledgers[run.name]) for run in runs]
        self._phase = "promoting"
        for client in clients:
            client.start()
        began_ns, began = time.time_ns(), time.monotonic()
        said = self._promote(lab, "run", str(plan), "--confirm", self._confirmation(), "--json")
        promoting = time.monotonic() - began
        self._phase = "business abroad"
        self._until_each_has_written(ledgers)
        time.sleep(_BUSINESS_SECONDS)
        stop_all(clients)
        reported = {entry["name"]: entry for entry in json.loads(said)["streams"]}
        self._phase = "comparing with what clients were told"
        results = tuple(self._judge(lab, run, ledgers[run.name], reported[run.name], began_ns) for run in runs)
        home = self._home_returns(lab, plan.with_suffix(".report.json"), runs, results)
        self._way_home = way = WayHome(
            lab,
            [
                Before(run, ledgers[run.name], result.lost_tokens)
                for run, result in zip(runs, results, strict=True)
            ],
            command=self._commanded,
            client=self._client,
            phase=self._enter,
        )
        bundle = folder / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        homecoming = way.walk(plan.with_suffix(".report.json"), bundle, self._confirmation())
        return DrillReport(
            load_seconds=self._loaded_seconds,
            approving_seconds=approving,
            promoting_seconds=promoting,
            approvers=tuple(json.loads(said)["approvers"]),
            registries=results,
            home=home,
            bundled=sum(_in_bundle(bundle / f"{result.name}.jsonl", result) for result in results),
            bundle_whole=all(entry["complete"] for entry in way.bundles),
            homecoming=homecoming,
        )

    def close(self, *, keep: bool, keep_logs: bool = False) -> None:
        """As for any demonstration; the roles of the way home end, or go on, with the others."""
        if self._way_home is not None:
            self._way_home.close(keep=keep)
        super().close(keep=keep, keep_logs=keep_logs)

    def _enter(self, phase: str) -> None:
        self._phase = phase

    def _confirmation(self) -> str:
        return self._runs[0].name if len(self._runs) == 1 else "all"

    def _work(self, runs: list[RegistryRun]) -> None:
        self._phase = "load"
        for run in runs:
            run.start_observers()
        for run in runs:
            run.start_clients()
        self._load_began = time.monotonic()
        while self._since_load() < self._wish.seconds:
            time.sleep(0.1)
        self._loaded_seconds = self._since_load()

    def _kill_home(self, lab: Lab) -> None:
        """Everything of home at once, and the bridge, in the middle of the load."""
        self._phase = "home is gone"
        for role in self._roles:
            if not role.name.startswith("consumer"):
                role.end()
        together([lab.home.postgres.kill9, lab.home.kafka.kill9])
        for run in self._runs:
            run.tell_clients_to_stop()
        for run in self._runs:
            run.stop_clients()
        for run in self._runs:
            run.stop_observers()

    def _plan_and_approve(self, lab: Lab, plan: Path) -> float:
        self._phase = "two persons approve the plan"
        began = time.monotonic()
        plan.unlink(missing_ok=True)
        plan.with_suffix(".report.json").unlink(missing_ok=True)
        self._promote(
            lab, "plan", "--mode", "disaster", "--accept-loss", str(_ACCEPT_LOSS_SECONDS), "-o", str(plan)
        )
        for person in role_configs.OPERATORS[: role_configs.THRESHOLD]:
            key = role_configs.operator(lab.layout, person)
            self._promote(lab, "approve", str(plan), "--key", str(key), "--yes")
        return time.monotonic() - began

    def _application(self, lab: Lab, run: RegistryRun, ledger: Ledger) -> Client:
        """A client that tries to write to the replica, again and again until it may."""
        dsn = lab.replica_dsn(lab.embassies[0], run.name, databases.OWNER)
        return self._client(run, dsn, ledger, _APPLICATION_NUMBER)

    def _client(self, run: RegistryRun, dsn: str, ledger: Ledger, number: int) -> Client:
        return Client(
            run.workload,
            dsn,
            ledger,
            client=number,
            seed=self._wish.seed + 1,
            rate_per_second=self._wish.rate,
            scale=self._wish.scale,
        )

    def _until_each_has_written(self, ledgers: Mapping[str, Ledger]) -> None:
        for _ in self._patience.looks(_PATIENCE_SECONDS):
            if all(ledger.standing().committed for ledger in ledgers.values()):
                return

    def _judge(
        self, lab: Lab, run: RegistryRun, after: Ledger, reported: Mapping[str, Any], began_ns: int
    ) -> RegistryDrill:
        dsn = lab.replica_dsn(lab.embassies[0], run.name, databases.ADMIN)
        return judged(run.name, run.workload, run.told, after, dsn=dsn, reported=reported, began_ns=began_ns)

    def _home_returns(
        self, lab: Lab, report: Path, runs: list[RegistryRun], results: tuple[RegistryDrill, ...]
    ) -> HomeReturn:
        """Home comes back as it was: it has to find out, and nobody may write there."""
        self._phase = "home returns"
        together([lab.home.postgres.start, lab.home.kafka.start])
        beside = role_configs.enrolment(lab.layout, runs[0].stream).with_name("promotion.report.json")
        beside.write_text(report.read_text(encoding="utf-8"), encoding="utf-8")
        producer = self._command(role_configs.producer_config(lab.layout), "producer", "run")
        fenced = self._command(
            role_configs.admin_config(lab.layout, HOME), "home", "fence", str(report), "--reason", "superseded"
        )
        kept = sum(self._at_home(lab, run, result) for run, result in zip(runs, results, strict=True))
        return HomeReturn(
            producer_code=producer.returncode,
            producer_said="superseded" in producer.stdout + producer.stderr,
            fence_code=fenced.returncode,
            writable=tuple(run.name for run in runs if _can_write(lab, run)),
            unshipped_kept=kept,
        )

    def _at_home(self, lab: Lab, run: RegistryRun, result: RegistryDrill) -> int:
        """How many of the lost transactions home still has."""
        with psycopg.connect(lab.source_dsn(run.name, databases.ADMIN), autocommit=True) as connection:
            row = connection.execute(
                f'SELECT count(*) FROM "{run.workload.schema}".journal WHERE token = ANY (%s)'.encode(),
                (list(result.lost_tokens),),
            ).fetchone()
        return int(row[0]) if row else 0

    def _promote(self, lab: Lab, *arguments: str) -> str:
        return self._commanded(role_configs.admin_config(lab.layout, lab.embassies[0]), "promote", *arguments)

    def _commanded(self, config: Path, *arguments: str, codes: Collection[int] = (0,)) -> str:
        done = self._command(config, *arguments)
        if done.returncode not in codes:
            raise RefusedError(
                f"embassy {' '.join(arguments[:2])} ended with exit code {done.returncode}: "
                f"{' | '.join(done.stderr.strip().splitlines()[-3:])}"
            )
        return done.stdout

    def _command(self, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program(), "-c", str(config), *arguments],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_SECONDS,
            start_new_session=True,
        )


def _in_bundle(file: Path, result: RegistryDrill) -> int:
    """How many of the lost transactions the conflict bundle has."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return sum(str(token) in text for token in result.lost_tokens)


def _can_write(lab: Lab, run: RegistryRun) -> bool:
    """Whether anyone, an administrator even, can write to a registry's journal at home."""
    try:
        with psycopg.connect(lab.source_dsn(run.name, databases.ADMIN), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f'DELETE FROM "{run.workload.schema}".journal WHERE false'.encode())
    except psycopg.errors.ReadOnlySqlTransaction:
        return False
    return True
