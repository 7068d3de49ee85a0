"""The audit log: who did what, and how it ended, in a file to which lines are only ever added.

Each line is one JSON object and names the hash of the line before it, so that a line that was changed, taken out or
put in breaks the chain. What no chain can show is that its *end* was cut off: keep the head (`audit_chain.Verdict.head`)
somewhere else, and ask for it.

A crash while a line is written leaves a torn one. The next writer ends it, and records its length and hash in an entry
``audit.torn-line``: so the chain goes on, and a torn line that nobody accounted for still breaks it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from embassy.model.errors import ConfigurationError
from embassy.runtime.audit_line import (
    GENESIS,
    JSON,
    LINE_BYTES_MOST,
    TORN,
    WHOLE,
    AuditEntry,
    Head,
    account_of,
    broken,
    parsed,
    render,
    unopened,
)
from embassy.runtime.durable import sync_folder

_WINDOW_BYTES = 4 * LINE_BYTES_MOST
_NEITHER_GROUP_NOR_OTHERS = 0o077


class _End(NamedTuple):
    """The end of a file that is about to be added to."""

    head: Head
    torn: bytes | None
    """What stands behind the last entry and is none."""
    unended: bool
    """Whether the last line lacks its end."""


class AuditLog:
    """Appends to one file; several processes may do so at once."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = path
        self._clock = clock

    def check(self) -> None:
        """Prove that an entry could be added, before something is done that needs one.

        Raises:
            ConfigurationError: the file cannot be written, or others may read it.
            IntegrityError: its last entry does not hold.
        """
        with self._locked() as descriptor:
            _end(descriptor, self.path)

    def append(self, action: str, *, actor: str, outcome: str, details: Mapping[str, JSON]) -> AuditEntry:
        """Add an entry, and return once it is on disk.

        Args:
            action: what was done, as ``keys.sign``.
            actor: who did it.
            outcome: how it ended, as ``ok`` or ``refused``.
            details: what it was done to; never a row's values, never a secret.

        Raises:
            ConfigurationError: the file cannot be written, or others may read it.
            IntegrityError: its last entry does not hold, so that nothing can be chained to it.
            ValueError: the entry is too long, or its details are not JSON.
        """
        with self._locked() as descriptor:
            end = _end(descriptor, self.path)
            head = end.head
            if end.unended:
                _write(descriptor, b"\n")
            if end.torn is not None:
                head, line, _ = self._line(head, TORN, "embassy", "ok", account_of(end.torn))
                _write(descriptor, line)
            _, line, entry = self._line(head, action, actor, outcome, details)
            _write(descriptor, line)
            return entry

    def _line(
        self, head: Head, action: str, actor: str, outcome: str, details: Mapping[str, JSON]
    ) -> tuple[Head, bytes, AuditEntry]:
        at = self._clock().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line, entry = render(head, at=at, action=action, actor=actor, outcome=outcome, details=details)
        return Head(entry.sequence, entry.hash), line, entry

    @contextmanager
    def _locked(self) -> Iterator[int]:
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fresh = not self.path.exists()
            descriptor = os.open(self.path, flags | os.O_CREAT, 0o600)
        except OSError as error:
            raise unopened(error, self.path) from error
        try:
            _check(os.fstat(descriptor), self.path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if fresh:
                sync_folder(self.path.parent)
            yield descriptor
        except OSError as error:  # a full disk, say
            raise unopened(error, self.path) from error
        finally:
            os.close(descriptor)  # and with it the lock goes


def _end(descriptor: int, path: Path) -> _End:
    size = os.fstat(descriptor).st_size
    window = min(size, _WINDOW_BYTES)
    lines = os.pread(descriptor, window, size - window).split(b"\n")
    for index in range(len(lines) - 1, -1, -1):
        entry = parsed(lines[index] + b"\n")
        if entry is not None:
            head, behind = Head(entry.sequence, entry.hash), lines[index + 1 :]
            break
        if WHOLE.search(lines[index] + b"\n"):
            raise broken(path, None, "its last entry was changed: its hash does not hold")
    else:
        if window < size:
            raise broken(path, None, "no entry is near its end")
        head, behind = Head(0, GENESIS), lines
    if behind in ([], [b""]):
        return _End(head, None, unended=not behind)
    left = b"\n".join(behind)
    return _End(head, left.removesuffix(b"\n"), unended=not left.endswith(b"\n"))


def _write(descriptor: int, line: bytes) -> None:
    """Add a line; each is on disk before the next, so that a crash tears one at most."""
    while line:
        line = line[os.write(descriptor, line) :]
    os.fsync(descriptor)


def _check(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError("the audit log is not a regular file", place=str(path), hint="correct audit.file")
    if status.st_mode & _NEITHER_GROUP_NOR_OTHERS or status.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(
            f"the audit log is not its owner's alone: user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}",
            place=str(path),
            hint=f"chown it to user {os.geteuid()} and chmod 600, and find out who else wrote to it",
        )
