"""``embassy``, and ``python -m embassy``: the command from its first moment.

Loading what a command needs takes a good part of a second, in which nothing is done yet. Whoever presses Ctrl-C then ends
the process as the system ends it, by the signal, instead of reading where in an import that was.
"""

from __future__ import annotations

import signal


def main() -> None:
    """The console script; does not return."""
    # Else whoever started this has it ignored.
    unhandled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if unhandled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from embassy.cli.main import main as command  # noqa: PLC0415 - this is what takes the time

    if unhandled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


if __name__ == "__main__":
    main()
