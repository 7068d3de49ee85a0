"""How commands that change something enter what they do into the audit log."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from embassy.cli.options import Options
from embassy.model.errors import EmbassyError, RefusedError
from embassy.runtime.audit_line import JSON
from embassy.runtime.audit_log import AuditLog
from embassy.runtime.exit_codes import ExitCode

VARIABLE = "EMBASSY_AUDIT__FILE"
"""Names the audit log where a command runs without a configuration, as on an operator's own machine."""


class Audited:
    """An action under way; what is noted here stands in the entry of its end."""

    def __init__(self, details: Mapping[str, JSON]) -> None:
        self.details: dict[str, JSON] = dict(details)
        self.outcome = "ok"

    def note(self, **details: JSON) -> None:
        """Add to the details: what was found or made. Never a row's values, never a secret."""
        self.details.update(details)

    def ended(self, code: ExitCode) -> ExitCode:
        """Take the exit code of a command that tells its failures itself."""
        if code is not ExitCode.OK:
            self.outcome = "failed"
            self.note(exit_code=int(code))
        return code


@contextmanager
def audited(options: Options, action: str, details: Mapping[str, JSON]) -> Iterator[Audited]:
    """Enter an action into the audit log before it begins (``begun``) and when it has ended.

    It ends as ``ok``, ``refused``, ``failed`` or ``interrupted``; the last three with the error's words. What cannot be
    recorded is not done. Without a configuration, and without the variable, there is no log and nothing is recorded.

    Raises:
        ConfigurationError: the audit log cannot be used.
        IntegrityError: the audit log's chain is broken at its end.
    """
    log = audit_log(options)
    under_way = Audited(details)
    if log is None:
        yield under_way
        return
    who = actor()
    log.append(action, actor=who, outcome="begun", details=under_way.details)
    try:
        yield under_way
    except (KeyboardInterrupt, click.Abort):
        log.append(action, actor=who, outcome="interrupted", details=under_way.details)
        raise
    except Exception as error:
        outcome = "refused" if isinstance(error, RefusedError | click.UsageError) else "failed"
        log.append(action, actor=who, outcome=outcome, details={**under_way.details, "error": _words(error)})
        raise
    log.append(action, actor=who, outcome=under_way.outcome, details=under_way.details)


def audit_log(options: Options) -> AuditLog | None:
    """The audit log of the configuration, or that of the variable; None if there is neither."""
    if options.config is not None:
        return AuditLog(options.settings().audit.file)
    named = os.environ.get(VARIABLE)
    return AuditLog(Path(named)) if named else None


def actor() -> str:
    """Whose process this is: ``anna@host``."""
    user = os.getuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return f"{name}@{socket.gethostname()}"


def _words(error: Exception) -> str:
    """An error as it may be recorded: of an unexpected one only its kind, as its words may hold anything."""
    if isinstance(error, EmbassyError):
        return f"{error.args[0]}" + (f" [{error.place}]" if error.place else "")
    return error.format_message() if isinstance(error, click.ClickException) else type(error).__name__
