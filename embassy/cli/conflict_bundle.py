"""Conflict bundles: what a superseded database committed and the embassy does not have, as files for people."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from embassy.cli.untaken import Untaken
from embassy.model.errors import ConfigurationError
from embassy.pg.connection import connect, place_of
from embassy.pg.setup_errors import explained
from embassy.runtime.durable import sync_folder
from failover.conflicts import readable


class Bundle(NamedTuple):
    """What one registry's file holds."""

    name: str
    file: str
    transactions: int
    changes: int
    after_lsn: str
    """The embassy has everything up to here."""
    complete: bool
    """Whether the file has all that was committed behind that."""
    missing_after: str
    """Else: what lies between this position"""
    missing_upto: str
    """and this one is not in it,"""
    missing_why: str
    """because of this."""
    sha256: str
    tables: tuple[tuple[str, str], ...] = ()
    """Schema and name of those that the changes are of."""
    statements: int = 0
    """DDL among the changes: the schema is not the embassy's."""


def make_bundle(name: str, dsn: str, untaken: Untaken, *, slot: str, publication: str, output: Path) -> Bundle:
    """Write one registry's file; the slot stays where it is.

    The file has its name only once it is whole and on disk. No file that has one is ever replaced: of another incident,
    or of the same database before it was restored, it may be all that is left of what it holds.

    Args:
        name: the registry's; the file is NAME.jsonl, or NAME.2.jsonl and so on where another one is there.
        dsn: of the database that was superseded.
        untaken: reads what it committed.
        slot: that it was replicated from.
        publication: that of the slot.
        output: the folder, which is there.

    Raises:
        ConfigurationError: it cannot be written there.
        IntegrityError: the slot is gone, or has lost log.
        RefusedError: a session holds the slot.
        TransientError: home's cluster is unreachable, and the slot does not have everything.
    """
    place = place_of(dsn)
    partial = output / f"{name}.partial"
    digest, transactions, changes, statements = hashlib.sha256(), 0, 0, 0
    tables: set[tuple[str, str]] = set()
    with (
        explained(place),
        connect(dsn, application_name="embassy-failback", autocommit=True) as session,
        _written(partial) as file,
    ):
        for transaction in readable(untaken.transactions(session, slot, publication)):
            line = _line(transaction)
            digest.update(line)
            file.write(line)
            transactions += 1
            changes += len(transaction["changes"])
            statements += sum(change["op"] == "ddl" for change in transaction["changes"])
            tables |= {
                tuple(change["table"].split(".", 1)) for change in transaction["changes"] if "table" in change
            }
    gap = untaken.gap
    return Bundle(
        name,
        str(keep(partial, name, digest.hexdigest())),
        transactions,
        changes,
        str(untaken.after),
        gap is None,
        str(gap.after_lsn) if gap else "",
        str(gap.upto_lsn) if gap else "",
        gap.why if gap else "",
        digest.hexdigest(),
        tuple(sorted(tables)),
        statements,
    )


def keep(partial: Path, name: str, sha256: str) -> Path:
    """Give a file that is whole its name, and return it; one that is there stays as it is.

    Args:
        partial: the file.
        name: the registry's.
        sha256: of its content, hexadecimal. A file of this content is that of a run which was killed before it could note
            it, and is taken as it is.
    """
    names = (f"{name}.jsonl" if number == 1 else f"{name}.{number}.jsonl" for number in count(1))
    with _explained(partial):
        target = next(
            path for path in map(partial.with_name, names) if not path.exists() or _sha256(path) == sha256
        )
        if target.exists():
            partial.unlink()
        else:
            partial.rename(target)
        sync_folder(target.parent)
    return target


def is_kept(bundle: Mapping[str, Any]) -> bool:
    """Whether the file of a `Bundle` is there, and as it was written."""
    path = Path(bundle["file"])
    try:
        return _sha256(path) == str(bundle["sha256"])
    except OSError:  # moved away, or another machine's: it is written once more
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A new file that only its owner may read, on disk at the end; what a run that was killed has left there is gone."""
    with _explained(path):
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            try:
                yield file
            except BaseException:
                with suppress(OSError):  # half a file would pass for a whole one
                    path.unlink()
                raise
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the file of what never shipped: {error.strerror}",
            place=str(path),
            hint="name a folder with -o that you may write to, on a disk with room; then the same command goes on",
        ) from error


def _line(transaction: dict[str, Any]) -> bytes:
    return json.dumps(transaction, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"
