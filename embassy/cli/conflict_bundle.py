"""Conflict bundles: what a superseded database committed and never shipped, as a file that people can read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from embassy.model.lsn import Lsn
from embassy.pg.connection import connect, place_of
from embassy.pg.setup_errors import explained
from embassy.pg.unshipped import peek, slot_place
from producers.readable_changes import readable


class Bundle(NamedTuple):
    """What one registry's file holds."""

    name: str
    file: str
    transactions: int
    changes: int
    after_lsn: str
    """The embassy has everything up to here."""
    complete_from: str
    """The file has everything from here on."""
    complete: bool
    sha256: str
    tables: tuple[tuple[str, str], ...] = ()
    """Schema and name of those that the changes are of."""
    statements: int = 0
    """DDL among the changes: the schema is not the embassy's."""


def make_bundle(name: str, dsn: str, *, slot: str, publication: str, after: Lsn, output: Path) -> Bundle:
    """Write one registry's file; the slot stays where it is.

    Args:
        name: the registry's; the file is NAME.jsonl.
        dsn: of the database that was superseded.
        slot: that it was replicated from.
        publication: that of the slot.
        after: the embassy has everything up to here.
        output: the folder, which is there.

    Raises:
        IntegrityError: the slot is gone, or has lost log.
        RefusedError: a session holds the slot.
    """
    place = place_of(dsn)
    target = output / f"{name}.jsonl"
    digest, transactions, changes, statements = hashlib.sha256(), 0, 0, 0
    tables: set[tuple[str, str]] = set()
    with (
        explained(place),
        connect(dsn, application_name="embassy-failback", autocommit=True) as session,
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
    ):
        confirmed_lsn = slot_place(session, slot).confirmed_lsn
        for transaction in readable(peek(session, slot, publication), after):
            line = _line(transaction)
            digest.update(line)
            file.write(line)
            transactions += 1
            changes += len(transaction["changes"])
            statements += sum(change["op"] == "ddl" for change in transaction["changes"])
            tables |= {
                tuple(change["table"].split(".", 1)) for change in transaction["changes"] if "table" in change
            }
        file.flush()
        os.fsync(file.fileno())
    complete = confirmed_lsn <= after
    begins = after if complete else confirmed_lsn
    return Bundle(
        name,
        str(target),
        transactions,
        changes,
        str(after),
        str(begins),
        complete,
        digest.hexdigest(),
        tuple(sorted(tables)),
        statements,
    )


def _line(transaction: dict[str, Any]) -> bytes:
    return json.dumps(transaction, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"
