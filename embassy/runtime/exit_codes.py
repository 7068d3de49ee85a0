"""How a process ends, by family of failure; service files and scripts rely on the numbers."""

from __future__ import annotations

from enum import IntEnum

from embassy.model.errors import (
    ApprovalError,
    ConfigurationError,
    IntegrityError,
    RefusedError,
    StaleError,
    StepError,
    TransientError,
)


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0
    BUG = 1
    CONFIGURATION = 2
    """Usage or configuration: a restart will not help."""
    UNREACHABLE = 3
    CHECK_FAILED = 4
    """A check failed, or a threshold was exceeded."""
    REFUSED = 5
    """The present state does not allow it."""
    APPROVAL = 6
    """Too few persons have approved it, or their approval has expired."""
    STALE = 7
    """The plan is of another state, or another operation holds the lock."""
    STEP_FAILED = 8
    """A step failed; the same command goes on with it."""
    INTEGRITY = 9
    INTERRUPTED = 130


_BY_FAMILY = (
    (IntegrityError, ExitCode.INTEGRITY),
    (ConfigurationError, ExitCode.CONFIGURATION),
    (StepError, ExitCode.STEP_FAILED),
    (ApprovalError, ExitCode.APPROVAL),
    (StaleError, ExitCode.STALE),
    (RefusedError, ExitCode.REFUSED),
    (TransientError, ExitCode.UNREACHABLE),
)


def exit_code(error: BaseException) -> ExitCode:
    """The code of an error's family; what belongs to none is a bug."""
    return next((code for family, code in _BY_FAMILY if isinstance(error, family)), ExitCode.BUG)


_WORST_FIRST = (
    ExitCode.INTEGRITY,
    ExitCode.CONFIGURATION,
    ExitCode.STEP_FAILED,
    ExitCode.APPROVAL,
    ExitCode.STALE,
    ExitCode.REFUSED,
    ExitCode.UNREACHABLE,
    ExitCode.BUG,
)


def worst(codes: frozenset[ExitCode]) -> ExitCode:
    """The one code that several ended streams leave the process with."""
    return next((code for code in _WORST_FIRST if code in codes), ExitCode.OK)
