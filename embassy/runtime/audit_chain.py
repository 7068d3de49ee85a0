"""Reading the audit log, each entry once it is proven to follow the one before."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from embassy.model.errors import IntegrityError
from embassy.runtime.audit_line import (
    GENESIS,
    TORN,
    WHOLE,
    AuditEntry,
    Head,
    account_of,
    broken,
    parsed,
    previous_of,
    unopened,
)


class Verdict(NamedTuple):
    """What a whole chain is."""

    entries: int
    head: bytes
    """The hash of the last entry; zeros if there is none."""
    torn_bytes: int
    """The length of a torn line at the end that no entry accounts for yet; 0 if there is none."""


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
    found = expected is None or expected == GENESIS
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
    head, torn, number = Head(0, GENESIS), b"", 0
    try:
        file = path.open("rb")
    except OSError as error:
        raise unopened(error, path) from error
    with file:
        for number, line in enumerate(file, 1):
            entry = parsed(line)
            if entry is None:
                if WHOLE.search(line):
                    raise broken(path, number, "the entry was changed: its hash does not hold")
                torn += line
                continue
            if torn and (entry.action != TORN or dict(entry.details) != account_of(torn.removesuffix(b"\n"))):
                raise broken(path, number - 1, "it is no entry, and the next one does not account for it")
            torn = b""
            _must_follow(head, line, entry, path, number)
            head = Head(entry.sequence, entry.hash)
            yield entry
    if torn.endswith(b"\n"):
        raise broken(path, number, "it is no entry, and no next one accounts for it")
    return Verdict(head.sequence, head.hash, len(torn))


def _must_follow(head: Head, line: bytes, entry: AuditEntry, path: Path, number: int) -> None:
    if entry.sequence != head.sequence + 1:
        raise broken(path, number, f"entry {entry.sequence} stands where {head.sequence + 1} should")
    if previous_of(line) != head.hash:
        raise broken(path, number, "it does not follow the entry before it")
