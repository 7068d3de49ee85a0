"""``embassy demo``: ten registries, load, faults on purpose, and the verdict."""

from __future__ import annotations

import json
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from deploy.demo.demonstration import Demonstration
from deploy.demo.promotion_drill import PromotionDrill
from deploy.demo.screen import print_drill, print_verdict, shown
from deploy.demo.wish import Wish
from deploy.lab.artifacts import POSTGRES_VERSIONS
from deploy.lab.lab import Lab
from deploy.lab.layout import Layout
from embassy.cli.options import Options, pass_options
from embassy.model.errors import RefusedError
from embassy.runtime.exit_codes import ExitCode
from embassy.runtime.signals import handled, interrupted_by

_WIDTH = 120


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True, help="Length of the load.")
@click.option(
    "--faults",
    type=click.IntRange(0),
    help="How many times something is killed with kill -9; default: everything once a minute.",
)
@click.option(
    "--pauses", type=click.IntRange(0), default=0, show_default=True, help="How many times a role is paused."
)
@click.option("--seed", type=int, help="Draws the business and the faults; default: a new one, shown at the end.")
@click.option(
    "--registries",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of the registries; default: the ten of the demo.",
)
@click.option("--embassies", type=click.IntRange(1, 9), help="Number of foreign sites; default: 1.")
@click.option("--postgres", type=click.Choice(list(POSTGRES_VERSIONS)), help="PostgreSQL version; default: 18.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    help="Transactions a second of each registry.",
)
@click.option(
    "--promote",
    is_flag=True,
    help="Instead: kill all of home under load, promote every registry by two persons, and let home return.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--keep", is_flag=True, help="Leave the lab and the roles running at the end.")
@click.option("--stop", is_flag=True, help="End what --keep has left running, and do nothing else.")
@pass_options
def demo(
    options: Options,
    *,
    seconds: float,
    faults: int | None,
    pauses: int,
    seed: int | None,
    registries: Path | None,
    embassies: int | None,
    postgres: str | None,
    rate: float,
    promote: bool,
    as_json: bool,
    keep: bool,
    stop: bool,
) -> ExitCode:
    """Replicate registries under load while everything is killed in turn, then compare both sides.

    The lab is the demonstration's own (EMBASSY_LAB_HOME, default .lab of the project) and is removed at the end. The
    verdict rests on what clients were told and on every row of both sides, never on the pipeline's own counters.
    Exits with 0 only if all is well, else with 4.
    """
    if stop:
        return _stop()
    wish = Wish(
        seconds=seconds,
        seed=secrets.randbelow(1 << 31) if seed is None else seed,
        faults=faults,
        pauses=pauses,
        rate=rate,
        registries=registries,
        embassies=embassies,
        postgres=postgres,
    )
    if promote:
        if faults or pauses:
            raise click.UsageError("--promote has a fault of its own: leave out --faults and --pauses")
        return _drill(wish, keep=keep, as_json=as_json or options.as_json)
    return _demonstrate(wish, keep=keep, as_json=as_json or options.as_json)


def _demonstrate(wish: Wish, *, keep: bool, as_json: bool) -> ExitCode:
    progress = _console(stderr=True)
    demonstration = Demonstration(wish)
    red = False
    with _cleaned_up(lambda: demonstration.close(keep=keep, keep_logs=red)):
        with shown(progress, demonstration.snapshot):
            report = demonstration.run(keep=keep)
        red = not report.is_true
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    print_verdict(progress if as_json else _console(), report)
    if keep:
        progress.print("Everything is left running. embassy lab status shows where; embassy demo --stop ends it.")
    elif red:
        progress.print(f"The roles' logs are kept in {demonstration.logs}.", soft_wrap=True)
    return ExitCode.OK if report.is_true else ExitCode.CHECK_FAILED


def _drill(wish: Wish, *, keep: bool, as_json: bool) -> ExitCode:
    """The worst day, rehearsed."""
    progress = _console(stderr=True)
    drill = PromotionDrill(wish)
    red = True
    with _cleaned_up(lambda: drill.close(keep=keep, keep_logs=red)):
        with shown(progress, drill.snapshot):
            report = drill.drill()
        red = not report.is_true
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    print_drill(progress if as_json else _console(), report)
    if red:
        progress.print(f"The roles' logs are kept in {drill.logs}.", soft_wrap=True)
    return ExitCode.OK if report.is_true else ExitCode.CHECK_FAILED


def _console(*, stderr: bool = False) -> Console:
    """A terminal as it is; anything else is wide enough for every table."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_WIDTH)


def _stop() -> ExitCode:
    home = Layout.choose().home
    lab = Lab.here()
    state = lab.workshop.file.read()
    if state is None:
        click.echo("No demonstration is there.")
        return ExitCode.OK
    if state.purpose != "demo":
        raise RefusedError(
            "the lab here was not made by the demonstration", place=str(home), hint="embassy lab down removes it"
        )
    lab.down()
    click.echo("The demonstration is gone.")
    return ExitCode.OK


@contextmanager
def _cleaned_up(close: Callable[[], None]) -> Iterator[None]:
    """However it ends, close, and let nobody interrupt that."""
    with interrupted_by(signal.SIGTERM, signal.SIGHUP):
        try:
            yield
        finally:
            with _uninterrupted():
                close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Cleaning up takes seconds and is not interrupted: an impatient second Ctrl-C would leave servers behind."""

    def go_on(_number: int, _frame: FrameType | None) -> None:
        """Unlike SIG_IGN, which a server that is started meanwhile would inherit."""

    with handled(go_on, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield
