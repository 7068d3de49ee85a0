"""An operator's own secret key, and the passphrase it may need."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from embassy.wire import passphrase
from embassy.wire.keyring import Operator, load_operator


def load_own_key(path: Path) -> Operator:
    """Read a secret operator key file; asks for its passphrase where there is a terminal.

    Raises:
        ConfigurationError: it cannot be read, is no such file, or its passphrase is wrong.
    """
    if passphrase.from_file() is not None or not sys.stdin.isatty():
        return load_operator(path)
    return load_operator(
        path, lambda: str(click.prompt(f"Passphrase of {path}", hide_input=True, err=True)).encode()
    )
