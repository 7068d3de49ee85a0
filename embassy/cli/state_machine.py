"""``embassy state-machine``: the states of a stream's replica, as the code has them."""

from __future__ import annotations

import json

import click

from embassy.cli.options import Options, pass_options
from failover.states import TRANSITIONS, mermaid


@click.command("state-machine")
@click.option(
    "--format", "form", type=click.Choice(["mermaid", "json"]), default="mermaid", show_default=True, help="Form."
)
@pass_options
def state_machine(options: Options, form: str) -> None:
    """Print which states of a replica may follow which, and under what condition.

    \b
    embassy state-machine --format mermaid > states.mmd
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    if form == "json" or options.as_json:
        table = {
            before.value: {after.value: guard.value for after, guard in following.items()}
            for before, following in TRANSITIONS.items()
        }
        click.echo(json.dumps(table, indent=2))
    else:
        click.echo(mermaid(), nl=False)
