"""Files that only their owner may read: refused otherwise, written once, never overwritten."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.runtime.durable import sync_folder
from embassy.wire.public_keys import SIZE_MOST

_ROOT = 0
_NEITHER_GROUP_NOR_OTHERS = 0o077
_ONLY_READING_BY_GROUP = 0o037


def read_secret(path: Path, what: str, most: int = SIZE_MOST) -> bytes:
    """The content of a secret file of at most so many bytes.

    Raises:
        ConfigurationError: it is missing, a symbolic link, not a regular file, another user's, or readable by others.
    """
    try:
        # Without waiting: a pipe in the file's place must be refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unopened(error, path, what) from error
    try:
        _check(os.fstat(descriptor), path, what)
        text = os.read(descriptor, most + 1)
    finally:
        os.close(descriptor)
    if len(text) > most:
        raise ConfigurationError(f"too large for a {what}", place=str(path), hint="correct the path")
    return text


def write_new(path: Path, text: str, *, mode: int) -> None:
    """Write a file that does not exist yet, whole or not at all.

    Raises:
        RefusedError: it exists.
        ConfigurationError: it cannot be written there.
    """
    try:
        with _written(path, text, mode) as fresh:
            os.link(fresh, path)  # unlike a rename, it never replaces
    except FileExistsError as error:
        raise RefusedError(
            "the file exists, and is never overwritten",
            place=str(path),
            hint="choose another path, or move the old file away",
        ) from error
    except OSError as error:
        raise _unwritten(error, path) from error


def replace(path: Path, text: str) -> None:
    """Replace a file that is no secret; a reader sees the old one or the new one.

    Raises:
        ConfigurationError: it cannot be written there.
    """
    try:
        with _written(path, text, stat.S_IMODE(path.stat().st_mode)) as fresh:
            fresh.rename(path)
    except OSError as error:
        raise _unwritten(error, path) from error


@contextmanager
def _written(path: Path, text: str, mode: int) -> Iterator[Path]:
    """The text in a file beside the path, on disk; gone at the end if it still has its name."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        yield fresh
        sync_folder(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def _unopened(error: OSError, path: Path, what: str) -> ConfigurationError:
    if error.errno == errno.ELOOP:
        return ConfigurationError(
            f"the {what} is a symbolic link", place=str(path), hint="name the file itself, not a link to it"
        )
    return ConfigurationError(
        f"cannot read the {what}: {error.strerror}",
        place=str(path),
        hint="correct the path; embassy keys generate makes a new file",
    )


def _unwritten(error: OSError, path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"cannot write the file: {error.strerror}",
        place=str(path),
        hint="choose a folder you may write to, on a file system that keeps owners, modes and links",
    )


def _check(status: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"the {what} is not a regular file", place=str(path), hint="correct the path")
    user = os.geteuid()
    if status.st_uid not in (user, _ROOT):
        raise ConfigurationError(
            f"the {what} belongs to user {status.st_uid}, and this process is user {user}",
            place=str(path),
            hint=f"chown {user} {path}",
        )
    # A credential of systemd is root's, and shows the one user who may read it where a group's rights stand.
    forbidden = _NEITHER_GROUP_NOR_OTHERS if status.st_uid == user else _ONLY_READING_BY_GROUP
    if status.st_mode & forbidden:
        raise ConfigurationError(
            f"the {what} can be read or changed by others: its mode is {stat.S_IMODE(status.st_mode):04o}",
            place=str(path),
            hint=f"chmod 600 {path}, and make a new key if others may have read it",
        )
