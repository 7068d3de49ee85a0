"""Provisioning the demonstration's lab with the product's own command."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.lab import role_configs
from deploy.lab.lab import Lab
from deploy.lab.roles import program
from deploy.lab.site import HOME
from embassy.model.errors import RefusedError


def provision(lab: Lab) -> None:
    """Make what the streams need, at home and in every embassy.

    Raises:
        RefusedError: the command failed; the message has its words.
    """
    # Both sides of a registry were made by the same SQL, so they hold the same rows.
    _apply(role_configs.admin_config(lab.layout, HOME), "--replica-is-level")
    for embassy in lab.embassies:
        _apply(role_configs.admin_config(lab.layout, embassy))


def _apply(config: Path, *options: str) -> None:
    run = subprocess.run(
        [*program(), "-c", str(config), "provision", "apply", *options],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    if run.returncode != 0:
        said = run.stdout.decode(errors="replace").strip().splitlines()
        raise RefusedError(
            f"provisioning ended with exit code {run.returncode}: {' | '.join(said[-3:])}", place=str(config)
        )
