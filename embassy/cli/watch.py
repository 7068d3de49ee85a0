"""``embassy watch``: what `status` shows, again and again, and each change of state."""

from __future__ import annotations

import json
import threading
from collections import deque
from contextlib import nullcontext

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from embassy.cli import status_table
from embassy.cli.observing import Observer
from embassy.cli.options import Options, pass_options
from embassy.cli.status_report import Thresholds, as_json, verdict
from embassy.cli.stream_options import stream_options
from embassy.model.health import State
from embassy.model.look import Look
from embassy.model.wording import instant
from embassy.runtime.exit_codes import ExitCode

_CHANGES = 10


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.2),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Seconds between looks.",
)
@click.option(
    "--looks", type=click.IntRange(1), metavar="N", help="End after N looks, as status would; default: never."
)
@pass_options
@stream_options
def watch(options: Options, interval: float, looks: int | None) -> ExitCode:
    """Show what status shows, again and again, with the latest changes of state below.

    Off a terminal each look is printed below the last; with --json, as one line. Ctrl-C ends it.

    \b
    embassy -c embassy-admin.toml watch
    embassy -c embassy-admin.toml watch --json --interval 10
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    console = Console(highlight=False)
    live = console.is_terminal and not options.as_json
    changes = Changes()
    pause = threading.Event()
    taken = 0
    with (
        Observer(options) as observer,
        Live(console=console, auto_refresh=False) if live else nullcontext() as screen,
    ):
        while True:
            look = observer.look()
            taken += 1
            changes.take(look)
            if options.as_json:
                click.echo(json.dumps(as_json(look, Thresholds())))
            else:
                rendered = [*status_table.lines(look, Thresholds(), config=options.place), *changes.lines()]
                if screen is not None:
                    screen.update(Group(*rendered), refresh=True)
                else:
                    for line in (*rendered, ""):
                        console.print(line, soft_wrap=True)
            if taken == looks:
                return verdict(look, Thresholds())
            pause.wait(interval)


class Changes:
    """The latest changes of state, newest last."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._lines: deque[Text] = deque(maxlen=_CHANGES)

    def take(self, look: Look) -> None:
        """Compare a look with the one before."""
        for entry in look.streams:
            state = entry.health.state
            before = self._states.get(entry.registry)
            self._states[entry.registry] = state
            if before is not None and before is not state:
                at = instant(look.observed_at, now=look.observed_at)
                self._lines.append(Text(f"{at} {entry.registry}: {before.value} → {state.value}"))

    def lines(self) -> list[Text]:
        """The changes, under a heading; nothing if there were none."""
        return [Text("CHANGES", style="bold"), *self._lines] if self._lines else []
