"""What a command that changed something says at its end: to people in lines, to scripts as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from embassy.cli.options import Options


def tell(options: Options, schema: str, facts: Mapping[str, Any], *lines: str) -> None:
    """Print the lines; with ``--json`` the facts instead, under their schema's name."""
    if options.as_json:
        click.echo(json.dumps({"schema": schema, **facts}, indent=2, ensure_ascii=False))
        return
    for line in lines:
        click.echo(line)


def say(options: Options, line: str) -> None:
    """Tell people of a part as it is done; scripts are told of all at the end."""
    if not options.as_json:
        click.echo(line)
