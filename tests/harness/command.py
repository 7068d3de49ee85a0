"""The command ``embassy`` in the test's own process, where starting one would take longer than what it does."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import NamedTuple

from embassy.cli import main


class Done(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def embassy(config: Path, *arguments: str, code: int = 0) -> Done:
    """Run a command, and fail unless it ends with the code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = main.run(["-c", str(config), *arguments])
    done = Done(int(found), out.getvalue(), err.getvalue())
    assert done.code == code, done
    return done
