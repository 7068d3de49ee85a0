"""``python -m benchmarks``: data-embassy, PostgreSQL's own logical replication and others on the same work."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console

from benchmarks import report
from benchmarks.chain import Chain
from benchmarks.contest import ALL_WORKLOADS, WORKLOADS, Contest
from benchmarks.native import Native
from benchmarks.ours import Ours
from benchmarks.stand import stand
from benchmarks.workloads import FULL, QUICK
from embassy.model.errors import EmbassyError
from embassy.runtime.exit_codes import exit_code
from embassy.runtime.signals import interrupted_by

_QUIET_SECONDS = 60.0


@click.command()
@click.option("--rounds", type=click.IntRange(1), help="Default 3, or 1 with --quick.")
@click.option("--quick", is_flag=True, help="Small sizes: shows that it works, not how fast.")
@click.option("--share", type=click.FloatRange(0.01, 100), default=1.0, help="Of the rows and transactions.")
@click.option("--workload", "workloads", multiple=True, type=click.Choice(ALL_WORKLOADS), help="Default w1 to w4.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), envvar="BENCH_JSON", help="Where results go."
)
@click.option(
    "--quiet-seconds",
    type=click.FloatRange(0),
    help="How long to wait for a quiet machine; default 60, 0 with --quick.",
)
@click.option("--peers", is_flag=True, help="Debezium and MirrorMaker 2 too; W1 to W4 only.")
@click.option("--keep", is_flag=True, help="Keep the lab's folder.")
def main(
    *,
    rounds: int | None,
    quick: bool,
    share: float,
    workloads: tuple[str, ...],
    quiet_seconds: float | None,
    peers: bool,
    json_file: Path | None,
    keep: bool,
) -> None:
    """Measure them in turn; compare their tables; exit 9 if one of ours or of PostgreSQL's own differs."""
    if peers and not set(workloads) <= set(WORKLOADS):
        raise click.UsageError(f"with --peers there are {', '.join(WORKLOADS)} only: a sink needs a key")
    said = Console(stderr=True, log_path=False, highlight=False)

    def announce(subject: str, stage: str) -> None:
        said.log(f"{subject}: {stage}")

    sizes, rounds = QUICK if quick else FULL.scaled(share), rounds or (1 if quick else 3)
    if quiet_seconds is None:
        quiet_seconds = 0 if quick else _QUIET_SECONDS
    try:
        with ExitStack() as stack:
            stack.enter_context(interrupted_by(signal.SIGTERM))
            lab = stack.enter_context(stand(announce, keep=keep))
            contestants = (Ours(lab), Native(lab), *([Chain(lab)] if peers else []))
            for contestant in contestants:
                announce(contestant.name, "starting")
                stack.callback(contestant.stop)
                contestant.start()
                stack.callback(contestant.release)
            contest = Contest(
                contestants, sizes, quiet_seconds=quiet_seconds, announce=announce, settled=not quick
            )
            contest.run(rounds, workloads or WORKLOADS)
            found = report.as_json(contest.results, sizes, rounds=rounds, postgres=lab.state.postgres)
    except EmbassyError as error:
        said.print(f"error: {error}", markup=False, highlight=False)
        sys.exit(exit_code(error))
    if json_file is not None:
        report.write_json(found, json_file)
    report.show(contest.results, found, Console(width=None if sys.stdout.isatty() else 60 * len(contestants) + 20))


if __name__ == "__main__":
    main()
