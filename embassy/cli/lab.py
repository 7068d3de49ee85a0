"""``embassy lab``: the local lab of real servers."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from deploy.lab.artifacts import POSTGRES_VERSIONS
from deploy.lab.lab import Lab
from deploy.lab.waiting import Announce, silent
from embassy.runtime.signals import interrupted_by


@click.group()
def lab() -> None:
    """A home site and its embassies on this machine, with real Kafka and PostgreSQL servers."""


@lab.command()
@click.option(
    "--registries",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file of the registries, a table [registries.NAME] each: title, and schema, an SQL file beside this one. "
    "Default: the ten of the demo.",
)
@click.option("--embassies", type=click.IntRange(1, 9), help="Number of foreign sites; default: 1.")
@click.option("--postgres", type=click.Choice(list(POSTGRES_VERSIONS)), help="PostgreSQL version; default: 18.")
def up(registries: Path | None, embassies: int | None, postgres: str | None) -> None:
    """Bring the lab up, or back up; what runs already is kept."""
    start = time.monotonic()
    with interrupted_by(signal.SIGTERM), _progress() as announce:
        found = Lab.up(registries=registries, embassies=embassies, postgres=postgres, announce=announce)
    state = found.state
    click.echo(
        f"The lab is up in {time.monotonic() - start:.1f} s: {len(state.registries)} registries, "
        f"home and {len(state.embassies)} {'embassy' if len(state.embassies) == 1 else 'embassies'}, "
        f"PostgreSQL {state.postgres}. embassy lab status shows where."
    )


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(*, as_json: bool) -> None:
    """Show the servers, and how to connect to them."""
    report = Lab.here().status()
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print_report(report, Console())


@lab.command()
@click.option("--keep-data", is_flag=True, help="Only stop the servers; the next up goes on with their data.")
def down(*, keep_data: bool) -> None:
    """Stop roles and servers, and remove all that is the lab's but the downloads.

    What you have put into its folder yourself stays, and is named.
    """
    with _progress() as announce:
        found = Lab.here(announce=announce)
        found.down(keep_data=keep_data)
    left = [] if keep_data else found.left()
    click.echo("The lab is down." + (f" Left in {found.layout.home}: {', '.join(left)}" if left else ""))


@contextmanager
def _progress() -> Iterator[Announce]:
    """A live list of what each server is at, on a terminal's standard error; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield silent
        return
    stages: dict[str, str] = {}

    def rendered() -> Table:
        table = Table.grid(padding=(0, 2))
        for subject, stage in list(stages.items()):  # servers report from threads of their own
            table.add_row(f"[bold]{subject}", f"[green]{stage}" if stage == "ready" else stage)
        return table

    with Live(get_renderable=rendered, console=Console(stderr=True), refresh_per_second=10, transient=True):
        yield stages.__setitem__


def _print_report(report: dict[str, Any], console: Console) -> None:
    console.print(f"The lab is [bold]{report['state']}[/bold] in {report['folder']}")
    if "home" not in report:
        return
    servers = Table("site", "server", "address", "pid", "state")
    for name, site in {"home": report["home"], **report["embassies"]}.items():
        for kind in ("kafka", "postgres"):
            server = site[kind]
            title = "Kafka" if kind == "kafka" else f"PostgreSQL {report['postgres']}"
            state = "[green]up" if server["alive"] and server["listening"] else "[red]down"
            servers.add_row(name, title, f"localhost:{server['port']}", str(server["pid"] or "-"), state)
    console.print(servers)
    registries = Table("registry", "title", "topic")
    for name, registry in report["registries"].items():
        registries.add_row(name, registry["title"], registry["topic"])
    console.print(registries)
    console.print(
        "Connection strings, role configurations and certificates: embassy lab status --json", soft_wrap=True
    )
