"""``embassy status``: the state, lag and age of each stream, as far as this configuration reaches."""

from __future__ import annotations

import json

import click
from rich.console import Console

from embassy.cli import status_table
from embassy.cli.observing import Observer
from embassy.cli.options import Options, pass_options
from embassy.cli.status_report import Thresholds, as_json, verdict
from embassy.cli.stream_options import stream_options
from embassy.runtime.exit_codes import ExitCode


@click.command()
@click.option(
    "--fail-rpo", type=click.FloatRange(0), metavar="S", help="Exit 4 if RPO≤ is above S seconds, or not known."
)
@click.option(
    "--fail-lag", type=click.FloatRange(0), metavar="S", help="Exit 4 if LAG is above S seconds, or not known."
)
@pass_options
@stream_options
def status(options: Options, fail_rpo: float | None, fail_lag: float | None) -> ExitCode:
    """Show each stream's state, lag and age.

    Looks at the databases and topics that the configuration names, and at no process. A stream is following only if a
    fresh heartbeat has come all the way into the replica; a configuration that does not reach the replica shows its own
    share: publishing (home), carrying (up to the embassy's Kafka). What cannot be known is shown as ? and is null in
    JSON.

    LAG is the time from the newest transaction's commit at the source to its commit in the replica; RPO≤ is what would
    be lost at most if home vanished now.

    Exit codes: 4 if a stream is neither following nor its share well, rows are known to differ from home's, or a
    threshold is exceeded; 3 if something did not answer (what did is still shown).

    \b
    embassy -c embassy-admin.toml status
    embassy -c embassy-admin.toml status --json --fail-rpo 10
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    thresholds = Thresholds(fail_rpo, fail_lag)
    with Observer(options) as observer:
        look = observer.look()
    if options.as_json:
        click.echo(json.dumps(as_json(look, thresholds), indent=2))
    else:
        console = Console(soft_wrap=True, highlight=False)
        for line in status_table.lines(look, thresholds, config=options.place):
            console.print(line)
    return verdict(look, thresholds)
