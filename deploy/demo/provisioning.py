"""Provisioning the demonstration's lab with the product's own command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from deploy.lab import role_configs
from deploy.lab.lab import Lab
from deploy.lab.roles import program
from deploy.lab.site import HOME
from embassy.model.errors import RefusedError


def provision(lab: Lab, *options: str) -> None:
    """Make what the streams need, at home and in every embassy; empty replicas from the sources' schemas.

    Args:
        lab: whose.
        options: global ones of the command, such as ``-r NAME``.

    Raises:
        RefusedError: the command failed; the message has its words.
    """
    home = role_configs.admin_config(lab.layout, HOME)
    schemas = lab.layout.schemas
    _embassy(home, *options, "provision", "apply")
    _embassy(home, *options, "provision", "schema", "-o", f"{schemas}{os.sep}")
    for embassy in lab.embassies:
        config = role_configs.admin_config(lab.layout, embassy)
        _embassy(config, *options, "provision", "apply", "--schema", str(schemas))


def _embassy(config: Path, *arguments: str) -> None:
    run = subprocess.run(
        [*program(), "-c", str(config), *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    if run.returncode != 0:
        said = run.stdout.decode(errors="replace").strip().splitlines()
        raise RefusedError(
            f"embassy {' '.join(arguments)} ended with exit code {run.returncode}: {' | '.join(said[-3:])}",
            place=str(config),
        )
