"""How a benchmark ends: its results as JSON, printed and kept, or an error and its exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from embassy.model.errors import EmbassyError
from embassy.runtime.exit_codes import exit_code


def tell(found: Mapping[str, Any], json_file: Path | None) -> None:
    """Print the results, after they are in the file if there is to be one."""
    text = json.dumps(found, indent=2)
    if json_file is not None:
        json_file.write_text(text + "\n", encoding="utf-8")
    click.echo(text)


def give_up(said: Console, error: EmbassyError) -> NoReturn:
    """Say what went wrong, and end."""
    said.print(f"error: {error}", highlight=False, markup=False)
    sys.exit(exit_code(error))
