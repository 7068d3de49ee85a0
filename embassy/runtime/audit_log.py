r"""The audit log: who did what, and how it ended, in a file to which lines are only ever added.

Each line is one JSON object and names the hash of the line before it, so that a line that was changed, taken out or
put in breaks the chain. What no chain can show is that its *end* was cut off: keep the head (`Verdict.head`) somewhere
else, and ask for it.

A crash while a line is written leaves a torn one. The next writer ends it, and records its length and hash in an entry
``audit.torn-line``: so the chain goes on, and a torn line that nobody accounted for still breaks it.

The layout of a line: ``{"action":…,"actor":…,"at":…,"details":{…},"outcome":…,"previous":…,"sequence":…,"hash":…}``,
the members before ``hash`` sorted and without spaces. The hash is the SHA-256 of ``data-embassy audit 1\0`` and
the line's bytes up to ``,"hash"``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from embassy.model.errors import ConfigurationError, IntegrityError
from embassy.runtime.durable import sync_folder

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"

TORN = "audit.torn-line"
"""The action of an entry that accounts for the torn line before it."""
LINE_BYTES_MOST = 64 << 10
"""No entry is longer."""

_DOMAIN = b"data-embassy audit 1\0"
_GENESIS = bytes(32)
_HASH_MARK = b',"hash":"'
_WHOLE = re.compile(rb',"hash":"[0-9a-f]{64}"\}\n\Z')
"""How an entry ends; a torn line does not."""
_WINDOW_BYTES = 4 * LINE_BYTES_MOST
_TAIL_BYTES = len(_HASH_MARK) + 64 + len(b'"}')
_MEMBERS = {"action", "actor", "at", "details", "outcome", "previous", "sequence", "hash"}
_NEITHER_GROUP_NOR_OTHERS = 0o077


class AuditEntry(NamedTuple):
    """One entry as the file has it."""

    sequence: int
    """From 1, without gaps."""
    at: str
    """When, by this machine's clock: RFC 3339 in UTC."""
    action: str
    actor: str
    outcome: str
    details: Mapping[str, Any]
    hash: bytes


class Verdict(NamedTuple):
    """What a whole chain is."""

    entries: int
    head: bytes
    """The hash of the last entry; zeros if there is none."""
    torn_bytes: int
    """The length of a torn line at the end that no entry accounts for yet; 0 if there is none."""


class _Head(NamedTuple):
    sequence: int
    hash: bytes


class _End(NamedTuple):
    """The end of a file that is about to be added to."""

    head: _Head
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
                head, line, _ = self._line(head, TORN, "embassy", "ok", _account_of(end.torn))
                _write(descriptor, line)
            _, line, entry = self._line(head, action, actor, outcome, details)
            _write(descriptor, line)
            return entry

    def _line(
        self, head: _Head, action: str, actor: str, outcome: str, details: Mapping[str, JSON]
    ) -> tuple[_Head, bytes, AuditEntry]:
        at = self._clock().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {
            "action": action,
            "actor": actor,
            "at": at,
            "details": dict(details),
            "outcome": outcome,
            "previous": head.hash.hex(),
            "sequence": head.sequence + 1,
        }
        try:
            text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        except TypeError as error:
            raise ValueError(f"details are not JSON: {error}") from error
        signed = text.encode("utf-8")[:-1]
        digest = _hash(signed)
        line = signed + _HASH_MARK + digest.hex().encode("ascii") + b'"}\n'
        if len(line) > LINE_BYTES_MOST:
            raise ValueError(f"an entry of {len(line)} bytes is too long for the audit log")
        entry = AuditEntry(head.sequence + 1, at, action, actor, outcome, dict(details), digest)
        return _Head(entry.sequence, digest), line, entry

    @contextmanager
    def _locked(self) -> Iterator[int]:
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fresh = not self.path.exists()
            descriptor = os.open(self.path, flags | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unopened(error, self.path) from error
        try:
            _check(os.fstat(descriptor), self.path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if fresh:
                sync_folder(self.path.parent)
            yield descriptor
        except OSError as error:  # a full disk, say
            raise _unopened(error, self.path) from error
        finally:
            os.close(descriptor)  # and with it the lock goes


def read_entries(path: Path) -> Iterator[AuditEntry]:
    """The entries, each once it is proven to follow the one before.

    Raises:
        IntegrityError: the chain is broken; the error names the line.
        ConfigurationError: the file cannot be read.
    """
    yield from _verified(path)


def verify(path: Path, *, expected: bytes | None = None) -> Verdict:
    """Prove the whole chain.

    Args:
        path: the file.
        expected: a head noted earlier; it must be the hash of one of the entries, or the end was cut off or rewritten.

    Raises:
        IntegrityError: the chain is broken, naming the line; or the expected head is not in it.
        ConfigurationError: the file cannot be read.
    """
    entries = _verified(path)
    found = expected is None or expected == _GENESIS
    while True:
        try:
            found = next(entries).hash == expected or found
        except StopIteration as end:
            verdict: Verdict = end.value
            break
    if not found:
        raise IntegrityError(
            f"the head {(expected or b'').hex()} is not in the audit log: its end was cut off, or it was written anew",
            place=str(path),
            hint="compare with copies of the log; whoever may write the file may have done it",
        )
    return verdict


def _verified(path: Path) -> Generator[AuditEntry, None, Verdict]:
    head, torn, number = _Head(0, _GENESIS), b"", 0
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unopened(error, path) from error
    with file:
        for number, line in enumerate(file, 1):
            entry = _parsed(line)
            if entry is None:
                if _WHOLE.search(line):
                    raise _broken(path, number, "the entry was changed: its hash does not hold")
                torn += line
                continue
            if torn and (entry.action != TORN or dict(entry.details) != _account_of(torn.removesuffix(b"\n"))):
                raise _broken(path, number - 1, "it is no entry, and the next one does not account for it")
            torn = b""
            _must_follow(head, line, entry, path, number)
            head = _Head(entry.sequence, entry.hash)
            yield entry
    if torn.endswith(b"\n"):
        raise _broken(path, number, "it is no entry, and no next one accounts for it")
    return Verdict(head.sequence, head.hash, len(torn))


def _must_follow(head: _Head, line: bytes, entry: AuditEntry, path: Path, number: int) -> None:
    if entry.sequence != head.sequence + 1:
        raise _broken(path, number, f"entry {entry.sequence} stands where {head.sequence + 1} should")
    if _previous(line) != head.hash:
        raise _broken(path, number, "it does not follow the entry before it")


def _parsed(line: bytes) -> AuditEntry | None:
    """The entry of a line; None if it is not, byte for byte, one whose hash holds."""
    if not line.endswith(b'"}\n'):
        return None
    body = line[:-1]
    signed, tail = body[:-_TAIL_BYTES], body[-_TAIL_BYTES:]
    digest = _hash(signed)
    if tail != _HASH_MARK + digest.hex().encode("ascii") + b'"}':
        return None
    try:
        fields: Any = json.loads(body)
        if fields.keys() != _MEMBERS:
            return None
        return AuditEntry(
            fields["sequence"],
            fields["at"],
            fields["action"],
            fields["actor"],
            fields["outcome"],
            fields["details"],
            digest,
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _previous(line: bytes) -> bytes:
    try:
        return bytes.fromhex(json.loads(line)["previous"])
    except (ValueError, LookupError, TypeError):
        return b""


def _end(descriptor: int, path: Path) -> _End:
    size = os.fstat(descriptor).st_size
    window = min(size, _WINDOW_BYTES)
    lines = os.pread(descriptor, window, size - window).split(b"\n")
    for index in range(len(lines) - 1, -1, -1):
        entry = _parsed(lines[index] + b"\n")
        if entry is not None:
            head, behind = _Head(entry.sequence, entry.hash), lines[index + 1 :]
            break
        if _WHOLE.search(lines[index] + b"\n"):
            raise _broken(path, None, "its last entry was changed: its hash does not hold")
    else:
        if window < size:
            raise _broken(path, None, "no entry is near its end")
        head, behind = _Head(0, _GENESIS), lines
    if behind in ([], [b""]):
        return _End(head, None, unended=not behind)
    left = b"\n".join(behind)
    return _End(head, left.removesuffix(b"\n"), unended=not left.endswith(b"\n"))


def _account_of(torn: bytes) -> dict[str, JSON]:
    return {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}


def _hash(signed: bytes) -> bytes:
    return hashlib.sha256(_DOMAIN + signed).digest()


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


def _broken(path: Path, number: int | None, why: str) -> IntegrityError:
    where = f"{path}:{number}" if number is not None else str(path)
    return IntegrityError(
        f"the audit log's chain is broken: {why}",
        place=where,
        hint="keep the file as evidence; move it away, and the next entry begins a new log",
    )


def _unopened(error: OSError, path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"cannot use the audit log: {error.strerror}",
        place=str(path),
        hint="name a file that this user may write in audit.file; what cannot be recorded is not done",
    )
