"""The whole demonstration: a lab, its roles, load, faults, and the comparison of both sides."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from deploy.demo.catching_up import HOPELESS_SECONDS, await_replicas
from deploy.demo.faults import Appointment, Fault, Saboteur, schedule
from deploy.demo.provisioning import provision
from deploy.demo.registry_run import RegistryRun
from deploy.demo.report import RegistryResult, Report
from deploy.demo.snapshot import Pace, Snapshot, row
from deploy.demo.supervised_role import SupervisedRole
from deploy.demo.victims import victims
from deploy.demo.wish import Wish
from deploy.lab.lab import Lab
from deploy.lab.layout import Layout
from deploy.lab.roles import roles
from deploy.lab.waiting import Patience
from deploy.workload.attempt import now
from embassy.model.errors import TransientError

_READY_SECONDS = 60.0
_COPY_SECONDS = 240.0
_CATCH_UP_SECONDS = 180.0
_TOGETHER = 4


class Demonstration:
    """Runs once; ``close`` must follow, whatever happened."""

    def __init__(self, wish: Wish, *, home: Path | None = None) -> None:
        self._wish = wish
        self._home = home
        self._stages: dict[str, str] = {}
        self._began = time.monotonic()
        self._load_began: float | None = None
        self._loaded_seconds = 0.0
        self._phase = "starting the lab"
        self._lab: Lab | None = None
        self._roles: tuple[SupervisedRole, ...] = ()
        self._runs: tuple[RegistryRun, ...] = ()
        self._paces: dict[tuple[str, str], Pace] = {}
        self._appointments: tuple[Appointment, ...] = ()
        self._saboteur: Saboteur | None = None
        self._role_complaints: list[str] = []
        self._patience = Patience(pause_seconds=0.2)

    def run(self, *, keep: bool) -> Report:
        """Demonstrate, and judge.

        Args:
            keep: leave the roles running; else they are drained, which counts too.

        Raises:
            RefusedError: the folder has a lab that is not a demonstration's, or another demonstration runs there.
            ConfigurationError: the wish cannot be had on this machine, or what the lab made does not hold.
            TransientError: a server did not start.
        """
        lab = self._bring_up()
        self._provision(lab)
        self._start_roles(lab)
        if self._copy():
            self._load(lab)
        behind = self._catch_up()
        results = self._compare(behind)
        self._end_roles(keep=keep)
        return Report(
            seconds=self._loaded_seconds,
            seed=self._wish.seed,
            registries=results,
            faults=self._faults(),
            exits=tuple(end for role in self._roles for end in role.exits),
            role_complaints=tuple(self._role_complaints),
        )

    def close(self, *, keep: bool, keep_logs: bool = False) -> None:
        """End everything that runs, and take the lab down unless it is to be kept.

        Args:
            keep: leave servers and roles running; servers that a fault has killed are started again.
            keep_logs: keep the roles' logs although the lab goes.
        """
        with ExitStack() as last:  # each step is taken, whatever becomes of the ones before it
            lab = self._lab
            if lab is not None and keep:
                last.callback(self._restore, lab)
            elif lab is not None:
                last.callback(self._take_down, lab, keep_logs=keep_logs)
            for run in self._runs:
                last.callback(run.stop_observers)
                last.callback(run.stop_clients)
                run.tell_clients_to_stop()
            if self._saboteur is not None:
                last.callback(self._saboteur.abort)

    def _restore(self, lab: Lab) -> None:
        self._phase = "leaving everything as it is"
        for role in self._roles:
            role.let_go()
        for name in lab.state.sites:
            lab.site(name).kafka.start()
            lab.site(name).postgres.start()

    def _take_down(self, lab: Lab, *, keep_logs: bool) -> None:
        self._phase = "taking everything down"
        together([role.stop for role in self._roles])
        shutil.rmtree(self.logs, ignore_errors=True)
        if keep_logs and lab.layout.roles.is_dir():  # else no role was ever started
            shutil.copytree(lab.layout.roles, self.logs)
        lab.down()

    @property
    def logs(self) -> Path:
        """Where the roles' logs are kept when the lab goes."""
        return Layout.choose(self._home).home / "demo-logs"

    def snapshot(self) -> Snapshot:
        """What it looks like now; may be asked from any thread."""
        present = now()
        halted = self._halted_streams()
        return Snapshot(
            phase=self._phase + self._stage(),
            elapsed_seconds=time.monotonic() - self._began,
            load_seconds=None if self._load_began is None else self._loaded_seconds or self._since_load(),
            rows=tuple(
                row(
                    run.name,
                    embassy,
                    run.standing(embassy),
                    self._paces[run.name, embassy],
                    present,
                    halted=not halted.isdisjoint((run.name, run.stream)),
                    loaded=self._load_began is not None,
                )
                for run in self._runs
                for embassy in run.embassies
            ),
            faults=self._faults(),
            faults_planned=len(self._appointments),
        )

    def _stage(self) -> str:
        """What the lab's servers are at, while they start."""
        stages = [f"{subject} {stage}" for subject, stage in self._stages.copy().items() if stage != "ready"]
        return f": {', '.join(stages)}" if stages else ""

    def _bring_up(self) -> Lab:
        wish = self._wish
        lab = Lab.up(
            self._home,
            registries=wish.registries,
            embassies=wish.embassies,
            postgres=wish.postgres,
            purpose="demo",
            announce=self._stages.__setitem__,
        )
        lab.take_charge()
        self._lab = lab
        self._stages.clear()
        lab.end_roles()  # an earlier demonstration may have left some
        return lab

    def _provision(self, lab: Lab) -> None:
        self._phase = "provisioning"
        provision(lab)

    def _start_roles(self, lab: Lab) -> None:
        self._phase = "starting the roles"
        wish = self._wish
        runs = tuple(
            RegistryRun(name, lab, seed=wish.seed, clients=wish.clients, rate=wish.rate, scale=wish.scale)
            for name in lab.registries
        )
        self._paces = {(run.name, embassy): Pace() for run in runs for embassy in run.embassies}
        self._runs = runs
        self._roles = tuple(SupervisedRole(role) for role in roles(lab.layout, lab.state))
        for role in self._roles:
            role.start()
        for role in self._roles:
            try:
                role.serve(self._patience, _READY_SECONDS)
            except TransientError as error:
                self._role_complaints.append(str(error))

    def _copy(self) -> bool:
        """Fill the registries and let the rows travel; returns whether all have arrived everywhere."""
        self._phase = "filling the registries"
        together([run.fill for run in self._runs], at_once=_TOGETHER)
        self._phase = "the first rows travel"
        missing = await_replicas(self._runs, _COPY_SECONDS, self._patience, self._is_hopeless)
        self._role_complaints += [
            f"{name}: the first rows did not reach {embassy} within {_COPY_SECONDS:g} s"
            for name, embassy in missing
        ]
        return not missing

    def _load(self, lab: Lab) -> None:
        wish = self._wish
        targets = victims(lab, self._roles)
        rounds = max(1, int(wish.seconds // 60))
        self._appointments = schedule(
            list(targets),
            kills=len(targets) * rounds if wish.faults is None else wish.faults,
            seconds=wish.seconds,
            seed=wish.seed,
            pauses=wish.pauses,
            pausable=[role.name for role in self._roles],
        )
        self._saboteur = Saboteur(self._appointments, targets)
        self._phase = "load and faults" if self._appointments else "load"
        for run in self._runs:
            run.start_observers()
        for run in self._runs:
            run.start_clients()
        self._load_began = time.monotonic()
        self._saboteur.start()
        while self._since_load() < wish.seconds:
            time.sleep(0.1)
        for run in self._runs:
            run.tell_clients_to_stop()
        self._loaded_seconds = self._since_load()
        self._phase = "waiting for what was killed last"
        self._saboteur.finish()
        for run in self._runs:
            run.stop_clients()

    def _since_load(self) -> float:
        return 0.0 if self._load_began is None else time.monotonic() - self._load_began

    def _catch_up(self) -> dict[str, set[str]]:
        """Wait until every replica shows everything; return, by registry, the embassies where it does not."""
        behind: dict[str, set[str]] = {run.name: set() for run in self._runs}
        if self._load_began is None:
            for run in self._runs:
                behind[run.name].update(run.embassies)
            return behind
        self._phase = "the replicas catch up"
        for run in self._runs:
            run.settle()
        missing = await_replicas(self._runs, _CATCH_UP_SECONDS, self._patience, self._is_hopeless)
        for run, embassy in missing:
            behind[run.name].add(embassy)
        for run in self._runs:
            run.stop_observers()
        return behind

    def _compare(self, behind: dict[str, set[str]]) -> tuple[RegistryResult, ...]:
        self._phase = "comparing every table"
        found = []
        for run in self._runs:
            result = run.judge(behind[run.name])
            if result.worst.tables_mismatched and not behind[run.name]:
                # Somebody else may have written to the source in between; the last word is spoken after that.
                await_replicas([run], HOPELESS_SECONDS, self._patience, self._is_hopeless)
                result = run.judge(behind[run.name])
            found.append(result)
        return tuple(found)

    def _is_hopeless(self, run: RegistryRun) -> bool:
        streams = self._halted_streams()
        return any(role.gave_up for role in self._roles) or not streams.isdisjoint((run.name, run.stream))

    def _halted_streams(self) -> set[str]:
        return {halt.stream for role in self._roles for halt in role.halts if halt.stream}

    def _end_roles(self, *, keep: bool) -> None:
        if not keep:
            self._phase = "draining the roles"
            together([role.stop for role in self._roles])
        for role in self._roles:
            for halt in role.halts:
                about = f" ({halt.stream})" if halt.stream else ""
                self._role_complaints.append(f"{role.name}{about}: {halt.words}")

    def _faults(self) -> tuple[Fault, ...]:
        return () if self._saboteur is None else self._saboteur.faults()


def together(steps: Iterable[Callable[[], None]], *, at_once: int = 8) -> None:
    """Run all steps at once; the first failure is raised when all have ended."""
    with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="demo") as pool:
        try:
            for future in [pool.submit(step) for step in steps]:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
