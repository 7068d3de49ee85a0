"""The three families of failure, by what the reader of the message has to do.

::

    EmbassyError
    ├── TransientError       wait: the same step is tried again under a deadline
    ├── IntegrityError       halt: a doubt about the stream; nothing is skipped, someone must look
    ├── RefusedError         the present state does not allow the operation
    │   ├── ApprovalError    not enough persons have approved it, or their approval has expired
    │   └── StaleError       it was meant for another state, or someone else is at it
    ├── StepError            a step failed half way; running the same command again goes on with it
    └── ConfigurationError   fix the configuration or the server's settings, then start again
"""

from __future__ import annotations


class EmbassyError(Exception):
    """The base of every error that the product raises on purpose.

    Attributes:
        hint: the way out, as a sentence an operator can act on.
        place: where it happened (a file and key, a topic and offset, a table), if known.
    """

    def __init__(self, message: str, *, hint: str = "", place: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.place = place

    def __str__(self) -> str:
        message = super().__str__()
        where = f" [{self.place}]" if self.place else ""
        way_out = f" → {self.hint}" if self.hint else ""
        return f"{message}{where}{way_out}"


class TransientError(EmbassyError):
    """Something outside is unreachable or busy; the same step may succeed later."""


class IntegrityError(EmbassyError):
    """The stream cannot be proven whole or in order; it halts here and keeps its last good state."""


class RefusedError(EmbassyError):
    """The operation is not allowed in the present state; nothing was changed."""


class ApprovalError(RefusedError):
    """Too few persons have approved the operation, or their approval has expired; nothing was changed."""


class StaleError(RefusedError):
    """The operation was planned for another state, or another one is under way; nothing was changed."""


class StepError(EmbassyError):
    """A step of an operation failed; what was done before it stands, and the same command goes on from there."""


class ConfigurationError(EmbassyError):
    """The configuration, a key file or a server's settings are wrong; a restart will not help."""
