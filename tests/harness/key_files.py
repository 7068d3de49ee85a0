"""Key files of keys that have fixed seeds."""

from __future__ import annotations

from pathlib import Path

from embassy.wire.key_document import render_key
from embassy.wire.keyring import Operator
from embassy.wire.public_keys import public_path
from embassy.wire.secret_file import write_new


def write_operator(path: Path, operator: Operator) -> None:
    """The two files of a person's key."""
    seed = operator._ed25519.private_bytes_raw()
    write_new(path, render_key(operator.half, {"ed25519": seed.hex()}), mode=0o600)
    write_new(public_path(path), render_key(operator.half), mode=0o644)
